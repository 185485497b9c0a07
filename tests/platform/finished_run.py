"""A small finished run folder, in the formats that Tune and the pipeline write."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import yaml

from parsecrl.algorithms.reporting.statistics import summarize

PHASES = ("planet", "embed", "finetune")
FULL = {"kind": "full", "horizon": 4, "num_samples": 30, "num_elites": 5, "num_iterations": 6}
EMBEDDED = {"kind": "embedded", "latent_size": 3, "horizon": 4, "num_samples": 20, "num_elites": 4, "num_iterations": 3}
WORLD_MODEL = {"deterministic_size": 8, "stochastic_size": 4, "hidden_size": 8, "min_std": 0.1}
DECODER = {"hidden_size": 8, "num_layers": 1, "init_scale": 1.0, "conditioning": "none"}
SPEC = {
    "name": "cheetah_tiny",
    "env": {"id": "dm_control/cheetah-run-v0", "action_repeat": 4},
    "seed": 3,
    "phases": [
        {"name": "planet", "algorithm": "planet", "controller": FULL, "stop": {"env_steps": 240_000}},
        {
            "name": "embed",
            "algorithm": "planet",
            "start_from": "planet",
            "controller": EMBEDDED,
            "search": {"controller.num_iterations": {"grid": [3, 5]}, "keep_replay": {"grid": [True, False]}},
            "stop": {"env_steps": 20_000},
        },
        {"name": "finetune", "algorithm": "dcem_ppo", "start_from": "embed", "stop": {"ppo_steps": 20}},
    ],
    "evaluate": {"episodes": 20, "phases": list(PHASES), "random": True, "videos": True},
}


def returns_of(phase: str) -> np.ndarray:
    centre = {"random": 5.0, "planet": 420.0, "embed": 350.0, "finetune": 390.0}[phase]
    rng = np.random.default_rng(len(phase))
    return centre + 0.12 * centre * rng.standard_normal(20)


def write_trial(folder: Path, controller: dict, keep_replay: bool, steps: int, unit: str, final: float) -> None:
    """A Tune trial folder: params.json and result.json, an object a line."""
    folder.mkdir(parents=True)
    config = {"controller": controller, "keep_replay": keep_replay, "env": "parsecrl.envs:parsecrl/Control-v0"}
    (folder / "params.json").write_text(json.dumps(config))
    rows = []
    for i in range(1, 21):
        rows.append(
            {
                "training_iteration": i,
                "env_steps": steps * i // 20,
                "episode_return_mean": float("nan") if i == 1 else final * (1 - np.exp(-i / 5)) + 10 * np.sin(3 * i),
                "planning_ms": 12.5,
                "time_total_s": 30.0 * i,
                **({"ppo_steps": i} if unit == "ppo_steps" else {"num_updates": 10 * i}),
                "learners": {
                    "__all_modules__": {"num_env_steps_trained": 80},
                    "default_policy": {"model_loss": 9.0 / i, "reward": 2.0 / i, "kl": 1.0, "weights_seq_no": i},
                },
            }
        )
    with (folder / "result.json").open("w") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def write_checkpoint(folder: Path, algorithm: str, controller: dict, env_steps: int) -> None:
    import torch

    from parsecrl.algorithms.checkpoints.agent import save_agent
    from parsecrl.algorithms.controllers import PlanningAgent

    folder.mkdir(parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        agent = PlanningAgent(17, 6, WORLD_MODEL, controller, DECODER)
    description = {"algorithm": algorithm, "env": SPEC["env"], "env_steps": env_steps}
    save_agent(folder, agent, {**description, "world_model": WORLD_MODEL, "controller": controller, "decoder": DECODER})
    reached = {"episode_return_mean": 300.0, "env_steps": env_steps, "ppo_steps": 15, "training_iteration": 15}
    (folder / "metrics.json").write_text(json.dumps(reached))


def write_evaluation(folder: Path, phases: tuple[str, ...]) -> None:
    with (folder / "evaluation.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["phase", "controller", "episode", "seed", "episode_return", "env_steps", "planning_ms"])
        for phase in phases:
            kind = {"random": "random", "planet": "full"}.get(phase, "embedded")
            for episode, value in enumerate(returns_of(phase)):
                ms = 0.0 if phase == "random" else 12.5
                writer.writerow([phase, kind, episode, 1000 + episode, repr(float(value)), 1000, ms])


def write_summary(folder: Path, checkpoints: dict[str, Path]) -> None:
    phases = {}
    for phase, checkpoint in checkpoints.items():
        phases[phase] = {
            "algorithm": "dcem_ppo" if phase == "finetune" else "planet",
            "controller": "full" if phase == "planet" else "embedded",
            "best_trial": checkpoint.parent.name,
            "checkpoint": str(checkpoint),
            "env_steps": {"planet": 240_000, "embed": 20_000, "finetune": 120_000}[phase],
            "wall_time_s": 600.0,
            "planning_ms": 12.5,
            **summarize(returns_of(phase))._asdict(),
        }
    machine = {"cpu": "2 cores <test>", "versions": {"torch": "2.13.0", "ray": "2.60.0"}}
    summary = {"name": SPEC["name"], "spec": SPEC, "env": SPEC["env"], "machine": machine, "phases": phases}
    (folder / "summary.json").write_text(json.dumps(summary))


def write_video(path: Path) -> None:
    import imageio.v2 as imageio

    path.parent.mkdir(exist_ok=True)
    ramp = np.arange(64, dtype=np.uint8)
    frames = [np.broadcast_to((ramp * 3 + i)[None, :, None], (48, 64, 3)).copy() for i in range(12)]
    imageio.mimwrite(path, frames, fps=12, macro_block_size=16)


def write_run(run: Path) -> Path:
    """A finished run: three phases (the second a sweep of four trials), evaluation, summary, one video."""
    run.mkdir()
    (run / "spec.yaml").write_text(yaml.safe_dump(SPEC, sort_keys=False))
    checkpoints = {}
    write_trial(run / "planet/trial_00000", FULL, True, 240_000, "env_steps", 400)
    write_checkpoint(run / "planet/trial_00000/checkpoint_000001", "planet", FULL, 180_000)
    checkpoints["planet"] = run / "planet/trial_00000/checkpoint_000001"
    for i, (iterations, keep) in enumerate([(3, True), (3, False), (5, True), (5, False)]):
        controller = {**EMBEDDED, "num_iterations": iterations}
        write_trial(run / f"embed/trial_0000{i}", controller, keep, 20_000, "env_steps", 250 + 40 * i)
    checkpoints["embed"] = run / "embed/trial_00002/checkpoint_000001"
    write_checkpoint(checkpoints["embed"], "planet", {**EMBEDDED, "num_iterations": 5}, 15_000)
    write_trial(run / "finetune/trial_00000", EMBEDDED, True, 120_000, "ppo_steps", 380)
    checkpoints["finetune"] = run / "finetune/trial_00000/checkpoint_000001"
    write_checkpoint(checkpoints["finetune"], "dcem_ppo", {**EMBEDDED, "num_iterations": 5}, 90_000)
    write_evaluation(run, ("random", *PHASES))
    write_summary(run, checkpoints)
    write_video(run / "videos/planet.mp4")
    return run
