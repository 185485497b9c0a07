"""A plan over discrete actions at the paper's budget and sizes (Saanum and Schulz 2022, A.2 and A.7), each transition
evaluated, and each distinct one; and a gradient step of the dynamics. One thread, processor time for the ratio.
"""

import time

import gymnasium
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

import parsecrl.envs  # noqa: F401  registers the worlds
from parsecrl.algorithms.controllers import CategoricalController
from parsecrl.algorithms.models import ParsimoniousDynamics, TransitionSequence

TRAINING_STEPS = 200  # enough that codes and plans are no longer those of an untrained model


pytestmark = pytest.mark.usefixtures("one_thread")


class Training:
    """Gradient steps on batches of 150 transitions of the gridworld."""

    def __init__(self, transformation: str) -> None:
        self.transformation = transformation
        torch.manual_seed(0)
        env = gymnasium.make("parsecrl/Gridworld-v0").unwrapped
        self.obs = torch.from_numpy(env.observations)
        self.to = torch.from_numpy(env.topology.transitions)
        self.model = ParsimoniousDynamics(self.obs.shape[1], 5, transformation=transformation)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)

    def step(self) -> None:
        s, a = torch.randint(len(self.obs), (150,)), torch.randint(5, (150,))
        batch = TransitionSequence(torch.stack([self.obs[s], self.obs[self.to[s, a]]], 1), a[:, None])
        self.optimiser.zero_grad()
        self.model.loss(batch).total.backward()
        self.optimiser.step()


@pytest.fixture(scope="module", params=["affine", "translation"])
def trained(request: pytest.FixtureRequest) -> Training:
    training = Training(request.param)
    for _ in range(TRAINING_STEPS):
        training.step()
    return training


def test_a_distinct_plan_takes_half_the_time(benchmark: BenchmarkFixture, trained: Training) -> None:
    model = trained.model
    with torch.no_grad():
        z: Tensor = model.encode(trained.obs[[12, 100]])
    seconds: dict[bool, list[float]] = {False: [], True: []}

    def plan(deduplicate: bool):
        began = time.process_time()
        found = CategoricalController(5, deduplicate=deduplicate).plan(
            model, z[:1], z[1:], torch.Generator().manual_seed(0)
        )
        seconds[deduplicate].append(time.process_time() - began)
        return found

    plain = plan(False)
    plan(False)
    distinct = benchmark.pedantic(plan, (True,), rounds=5)
    ratio = min(seconds[True]) / min(seconds[False])
    print(
        f"\na plan with {trained.transformation}: {min(seconds[False]):.2f} s, distinct {min(seconds[True]):.2f} s, "
        f"ratio {ratio:.2f}; "
        f"{distinct.num_evaluated} of {distinct.num_asked} transitions evaluated, "
        f"{distinct.num_transformations} transformations decoded"
    )
    assert torch.equal(plain.actions, distinct.actions)
    assert ratio <= 0.5


def test_a_gradient_step(benchmark: BenchmarkFixture, trained: Training) -> None:
    benchmark.pedantic(trained.step, rounds=20)
