"""Frames a second of phase 1's rollouts at several commits: cheetah_run_quick's environments and planner, one runner.

python docs/results/programs/border_frames.py PYTHON PYTHON ... [--rounds 9] [--seconds 4]

Each PYTHON is the interpreter of a checkout's virtual environment. The checkouts take turns, each in a process of its
own with one thread. Frames are simulator steps. Rates are by processor time, medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from statistics import median


def measure() -> None:
    """Answer each line `seconds plans` of standard input with frames by second of processor time, and by second."""
    import torch
    from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    from parsecrl.algorithms.planet.planet import PlanetConfig
    from parsecrl.platform.specs import load_spec
    from parsecrl.platform.specs.phases import parse_phase

    torch.set_num_threads(1)
    spec = load_spec("cheetah_run_quick")
    phase = parse_phase(spec.phases[0].model_dump(exclude={"search"}))
    env, resources = spec.env.model_dump(), {**spec.resources.model_dump(), "num_env_runners": 0}
    config = PlanetConfig.from_phase(phase, env, resources, 0, None)
    config.validate()
    runner = (config.env_runner_cls or SingleAgentEnvRunner)(config=config, worker_index=0)
    for line in sys.stdin:
        seconds, plans = line.split()
        runner.module.agent.trained.fill_(plans == "True")  # without, actions are uniform
        runner.sample(num_timesteps=8)
        decisions, wall, processor = 0, time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < float(seconds):
            decisions += sum(len(episode) for episode in runner.sample(num_timesteps=50))
        frames = decisions * config.action_repeat
        rates = frames / (time.process_time() - processor), frames / (time.perf_counter() - wall)
        print(json.dumps(rates), file=sys.stderr, flush=True)


def main() -> None:
    """Print a row for each interpreter: random actions and planned ones."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="+")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [os.path.abspath(__file__), "--measure"]
    workers = [
        subprocess.Popen(
            [python, *command], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, bufsize=1
        )
        for python in options.pythons
    ]
    found: dict[tuple[int, bool], list[list[float]]] = {}
    for number in range(options.rounds):
        order = list(enumerate(workers))
        for plans in (False, True):
            for index, worker in order if number % 2 else order[::-1]:
                assert worker.stdin is not None  # both are pipes
                assert worker.stderr is not None
                worker.stdin.write(f"{options.seconds} {plans}\n")
                for line in worker.stderr:
                    if line.startswith("["):  # the others are warnings
                        found.setdefault((index, plans), []).append(json.loads(line))
                        break
    for index, python in enumerate(options.pythons):
        rates = [median(rate[0] for rate in found[index, plans]) for plans in (False, True)]
        spread = [sorted(rate[0] for rate in found[index, plans]) for plans in (False, True)]
        cells = [f"{rate:,.0f} ({each[0]:,.0f} to {each[-1]:,.0f})" for rate, each in zip(rates, spread, strict=True)]
        print(f"| {python} | {' | '.join(cells)} |", flush=True)
    for worker in workers:
        worker.communicate()


if __name__ == "__main__":
    measure() if sys.argv[1:] == ["--measure"] else main()
