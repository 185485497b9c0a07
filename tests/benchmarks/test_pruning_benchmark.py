"""DCEM over whole action sequences, its gradient through the most influential candidates only (`keep_fraction`).

For the cartpole and for an RSSM of the paper's size, one process for each fraction, since a peak of memory is of the
whole life of a process: cosine similarity with the exact gradient, mean and least over problems; peak memory above that
before the solves; processor time. One problem at a time, one thread. The table:

    python tests/benchmarks/test_pruning_benchmark.py
"""

import json
import resource
import subprocess
import sys
import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from parsecrl.algorithms.models import RSSM, Belief
from parsecrl.algorithms.models.cartpole import CartpoleConstants, cartpole
from parsecrl.algorithms.solvers import dcem

FRACTIONS = (1.0, 0.5, 0.2, 0.1, 0.05)
TEMPERATURES = (1.0, 0.1)
PROBLEMS = {"cartpole": 8, "rssm": 2}
CANDIDATES, ELITES, ITERATIONS = 1000, 100, 10


def gradients(system: str, keep_fraction: float, temperature: float) -> tuple[Tensor, float]:
    """[problems, parameters] and seconds: of the first planned action, in what the model depends on.

    cartpole: initial state, gravity, masses and length of the pole. rssm: transition and reward networks.
    """
    g = torch.Generator().manual_seed(0)
    found, seconds = [], 0.0
    torch.manual_seed(0)
    rssm = RSSM(17, 6)
    for problem in range(PROBLEMS[system]):
        if system == "cartpole":
            H, A = 20, 1
            constants = [torch.tensor(value, requires_grad=True) for value in (9.8, 1.0, 0.1, 0.5)]
            model = cartpole(CartpoleConstants(*constants))
            state = model.sample_states(1, g).requires_grad_()
            belief, parameters = model.belief(state), [state, *constants]
        else:
            H, A, model = 12, 6, rssm
            belief = Belief(torch.randn(1, 200, generator=g).tanh(), torch.randn(1, 30, generator=g))
            parameters = [*model.transition_parameters(), *model.reward_net.parameters()]

        def objective(u: Tensor, model=model, belief=belief, shape=(H, A)) -> Tensor:
            return -model.predict_rewards(belief, u.unflatten(-1, shape)).sum(-1)

        start = time.process_time()
        solution = dcem(
            objective,
            torch.zeros(1, H * A),
            1.0,
            num_samples=CANDIDATES,
            num_elites=ELITES,
            num_iterations=ITERATIONS,
            temperature=temperature,
            bounds=(-1.0, 1.0),
            generator=torch.Generator().manual_seed(problem),
            keep_fraction=keep_fraction,
        )
        grads = torch.autograd.grad(solution.mean[:, :A].sum(), parameters, allow_unused=True)
        seconds += time.process_time() - start
        found.append(torch.cat([grad.flatten() for grad in grads if grad is not None]))
    return torch.stack(found), seconds / PROBLEMS[system]


def one(system: str, keep_fraction: float, temperature: float) -> dict[str, object]:
    """In this process: memory and time first, then the exact gradient for comparison."""
    torch.set_num_threads(1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    got, seconds = gradients(system, keep_fraction, temperature)
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**10
    exact = got if keep_fraction == 1.0 else gradients(system, 1.0, temperature)[0]
    cosines = torch.cosine_similarity(got, exact, dim=1)
    return {"cosine": cosines.mean().item(), "least": cosines.min().item(), "mib": peak, "ms": 1e3 * seconds}


def row(system: str, keep_fraction: float, temperature: float) -> str:
    command = [sys.executable, __file__, system, str(keep_fraction), str(temperature)]
    out = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    return (
        f"{system:<9} {temperature:>4g} {keep_fraction:>6.0%} {out['cosine']:>8.3f} {out['least']:>8.3f} "
        f"{out['mib']:>8.0f} {out['ms']:>8.0f}"
    )


HEADINGS = f"{'model':<9} {'τ':>4} {'kept':>6} {'cosine':>8} {'least':>8} {'MiB':>8} {'ms':>8}"


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("system", PROBLEMS)
def test_pruning(benchmark: BenchmarkFixture, system: str, temperature: float):
    lines: list[str] = []
    benchmark.pedantic(lambda: lines.extend(row(system, f, temperature) for f in FRACTIONS), rounds=1)
    print("\n" + "\n".join([HEADINGS, *lines]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]))))
    else:
        print(HEADINGS, flush=True)
        for name in PROBLEMS:
            for temperature in TEMPERATURES:
                for fraction in FRACTIONS:
                    print(row(name, fraction, temperature), flush=True)
