"""Each kernel made by hand against the plain torch code that would replace it, at the sizes of the bundled specs.

Both run in turn in one process, on one thread, and processor time counts: other load on the machine hardly changes the
ratio. The ratio is that of the plain form's median to the kernel's. A kernel stays where the ratio is 1.3 or more.
"""

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from pytest_benchmark.fixture import BenchmarkFixture
from ray.rllib.core.columns import Columns
from torch import Tensor, nn

import parsecrl.envs  # noqa: F401  registers the worlds
from parsecrl.algorithms.cartpole_embedding.embedding import EmbeddingLearner
from parsecrl.algorithms.cartpole_embedding.settings import EmbeddingSettings
from parsecrl.algorithms.latent_sac import latent_sac_rl_module
from parsecrl.algorithms.latent_sac.latent_sac_rl_module import LatentSACRLModule
from parsecrl.algorithms.latent_sac.policy_losses import UPDATE
from parsecrl.algorithms.latent_sac.replay import TransitionReplay
from parsecrl.algorithms.models import parsimonious
from parsecrl.algorithms.models.cartpole import FORCE_COST, POSITION_COST, STANDARD, cartpole
from parsecrl.algorithms.models.deduplication import DistinctRows, DistinctRowsOfPair
from parsecrl.algorithms.models.latent_dynamics import DistinctSlices, feedforward
from parsecrl.algorithms.models.matrix_products import ONEDNN, Linear, product
from parsecrl.algorithms.training.process_tuning import make_process_quick

LEAST = 1.3

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _memory_as_in_the_trainables() -> None:
    make_process_quick()


def seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@pytest.fixture(scope="module")
def machine() -> str:
    """Vector width, and what a core does in square float32 products of 1024, the best of several."""
    a, b = torch.ones(1024, 1024), torch.ones(1024, 1024)
    multiply: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"torch.mm": torch.mm}
    if ONEDNN:
        multiply["oneDNN"] = product
    rates = {
        name: 2 * 1024**3 / min(seconds(lambda f=f: f(a, b)) for _ in range(6)) / 1e9 for name, f in multiply.items()
    }
    return f"{torch.backends.cpu.get_cpu_capability()}, " + ", ".join(f"{n} {r:.0f} GFLOP/s" for n, r in rates.items())


def compare(
    benchmark: BenchmarkFixture,
    machine: str,
    kernel: Callable[[], object],
    plain: Callable[[], object],
    rounds: int = 20,
) -> float:
    """The ratio; the table's times are the kernel's, of the wall clock."""
    times: dict[str, list[float]] = {"kernel": [], "plain": []}
    for _ in range(2):
        kernel()
        plain()
    benchmark.pedantic(
        lambda: times["kernel"].append(seconds(kernel)),
        setup=lambda: times["plain"].append(seconds(plain)),
        rounds=rounds,
    )
    middle = {name: statistics.median(found) for name, found in times.items()}
    ratio = middle["plain"] / middle["kernel"]
    benchmark.extra_info["ratio"] = round(ratio, 2)
    print(
        f"\n{benchmark.name}: {1e3 * middle['kernel']:.2f} ms, plain {1e3 * middle['plain']:.2f} ms, ratio {ratio:.2f} "
        f"({machine})"
    )
    return ratio


# -- products


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [
        (1000, 230, 600),
        (500, 200, 200),
        (100, 200, 200),
        (100, 256, 256),
        (50, 64, 64),
        (150, 1200, 1200),
        (80, 800, 800),
    ],
)
def test_product(
    benchmark: BenchmarkFixture, machine: str, rows: int, inputs: int, outputs: int, gradient: bool
) -> None:
    """oneDNN's products against torch's, with as many rows in every call."""
    x, layer = torch.randn(rows, inputs, requires_grad=gradient), Linear(inputs, outputs)

    def run(forward: Callable[[Tensor], Tensor]) -> None:
        for _ in range(10):
            with torch.set_grad_enabled(gradient):
                y = forward(x)
            if gradient:
                y.backward(y.detach())

    compare(benchmark, machine, lambda: run(layer), lambda: run(lambda x: nn.Linear.forward(layer, x)))


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(
    ("rows", "sizes"), [((60, 100), (15, 5, 800, 4)), ((120, 200), (20, 120, 1200, 2)), ((20, 60), (8, 5, 64, 2))]
)
@pytest.mark.parametrize("kind", ["Linear", "torch"])
def test_layers_of_varying_rows(
    benchmark: BenchmarkFixture, machine: str, rows: tuple[int, int], sizes: tuple[int, ...], gradient: bool, kind: str
) -> None:
    """Numbers of rows that differ from call to call: what latent_sac has."""
    network = feedforward(*sizes)
    forward = {"Linear": Linear.forward, "torch": nn.Linear.forward}[kind]
    draws = iter(np.random.default_rng(0).integers(*rows, 10_000).tolist())

    def run() -> None:
        for _ in range(5):
            x = torch.randn(next(draws), sizes[0])
            with torch.set_grad_enabled(gradient):
                y = network(x)
            if gradient:
                y.backward(y.detach())

    def run_plain() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(network[0]), "forward", forward)
            run()

    compare(benchmark, machine, run, run_plain)


# -- the cartpole's rollout

EMBEDDING = {
    "cartpole_embedding": EmbeddingSettings(),
    "cartpole_embedding, 16 latents": EmbeddingSettings(controller={"latent_size": 16}),
    "cartpole_embedding_quick": EmbeddingSettings(
        controller={"num_samples": 50, "num_elites": 5, "num_iterations": 5},
        decoder={"hidden_size": 64},
        states_per_update=4,
    ),
}


def costs_by_autograd(state: Tensor, actions: Tensor) -> Tensor:
    """The fused rollout's forward pass, written plainly and differentiated by autograd."""
    g, cart, pole, length, dt = STANDARD
    total = cart + pole
    k = pole * length / total
    u = actions[..., 0].t().contiguous()  # [H, R]
    th, w = torch.atan2(state[:, 3], state[:, 2]), state[:, 4]
    angles, accelerations = [], []
    for force in u.unbind(0):
        angles.append(th)
        c, s = th.cos(), th.sin()
        push = torch.addcmul(force, w * w, s, value=pole * length) / total
        dw = torch.addcmul(g * s, c, push, value=-1.0) / (length * 4.0 / 3.0 - k * c * c)
        accelerations.append(torch.addcmul(push, dw, c, value=-k))
        th, w = torch.add(th, w, alpha=dt), torch.add(w, dw, alpha=dt)
    ddx = torch.stack(accelerations)
    dx = state[:, 1] + dt * (torch.cumsum(ddx, 0) - ddx)
    x = state[:, 0] + dt * (torch.cumsum(dx, 0) - dx)
    return (POSITION_COST * x.square() + FORCE_COST * u.square() - torch.stack(angles).cos()).t()


@pytest.mark.parametrize("plain", [None, costs_by_autograd], ids=["pair of functions", "autograd"])
@pytest.mark.parametrize("spec", EMBEDDING)
def test_cartpole_update(
    benchmark: BenchmarkFixture, machine: str, spec: str, plain: Callable[[Tensor, Tensor], Tensor] | None
) -> None:
    """A whole update of algorithm 2, its rollouts differentiated by hand or by autograd."""
    learner = EmbeddingLearner(cartpole(), EMBEDDING[spec], 0)
    other = EmbeddingLearner(dataclasses.replace(cartpole(), fused_costs=plain), EMBEDDING[spec], 0)
    assert learner.update().item() == pytest.approx(other.update().item(), rel=1e-3)
    assert compare(benchmark, machine, learner.update, other.update) >= LEAST


# -- equal rows


@dataclasses.dataclass
class Agent:
    """latent_sac's networks, and batches of what random walks have seen. A policy that has settled sees fewer cells."""

    world: str
    kind: str
    batch_size: int
    wide: bool

    def __post_init__(self) -> None:
        size, steps = (50, 250) if self.wide else (10, 40)
        extra: dict[str, Any] = {} if self.wide else {"size": 4, "start": (0, 0), "goal": (3, 3)}
        env = gymnasium.make(self.world, observation_size=size, episode_steps=steps, **extra)
        size = env.observation_space.shape[0]
        self.replay, rng = TransitionReplay(100_000, size), np.random.default_rng(0)
        for episode in range(20):
            obs, action, reward, done = [env.reset(seed=episode)[0]], [], [], False
            while not done:
                action.append(int(rng.integers(5)))
                seen, gained, ended, cut, _ = env.step(action[-1])
                obs.append(seen)
                reward.append(gained)
                done = ended or cut
            self.replay.add(np.float32(obs), np.int64(action), np.float32(reward), ended)
        model = {"latent_size": 15, "code_size": 15, "hidden_size": 1200, "num_layers": 2, "transformation": "affine"}
        policy = {"hidden_size": 800, "num_layers": 4}
        if not self.wide:
            model |= {"latent_size": 8, "code_size": 6, "hidden_size": 64}
            policy = {"hidden_size": 64, "num_layers": 2}
        if self.kind != "parsimonious":
            for name in ("code_size", "transformation"):
                del model[name]
        self.module = LatentSACRLModule(
            observation_space=spaces.Box(-10, 10, (size,)),
            action_space=spaces.Discrete(5),
            model_config={
                "latent_model": {"kind": self.kind, **model},
                "policy_network": policy,
                "encoder_training": "dynamics",
                "alpha": 0.5,
                "target_entropy": None,
                "discount": 0.99,
                "trial_seed": 0,
            },
        )
        self.rng = rng

    def update_model(self) -> None:
        obs, action = self.replay.slices(self.batch_size, 1, self.rng)
        self._step(
            {Columns.OBS: torch.from_numpy(obs), Columns.ACTIONS: torch.from_numpy(action), UPDATE: torch.zeros(1)}
        )

    def update_policy(self) -> None:
        batch = self.replay.sample(self.batch_size, self.rng)
        columns = {
            Columns.OBS: batch.obs,
            Columns.ACTIONS: batch.action,
            Columns.REWARDS: batch.reward,
            Columns.NEXT_OBS: batch.next_obs,
            Columns.TERMINATEDS: batch.terminated,
        }
        given = {name: torch.from_numpy(value) for name, value in columns.items()}
        self._step({**given, **self.module.fixed_latents(given)})

    def _step(self, batch: dict[str, Tensor]) -> None:
        self.module.zero_grad()
        self.module._forward_train(batch)["loss"].backward()


@contextlib.contextmanager
def every_row() -> Iterator[None]:
    """The plain forms: every row of a batch is computed."""

    def pair(first: Tensor, second: Tensor) -> Any:
        B, C = len(first), len(second)
        index = torch.arange(B + C)
        return DistinctRowsOfPair(torch.cat([first, second]), B, index[:B], index[B:], index[:C])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_sac_rl_module, "distinct_rows_of_pair", pair)
        patch.setattr(DistinctRows, "forward", nn.Sequential.forward)
        patch.setattr(
            parsimonious, "distinct_slices", lambda batch: DistinctSlices(batch, batch.obs.new_ones(len(batch.obs)))
        )
        yield


@pytest.mark.parametrize("kind", ["parsimonious", "encoder_only", "beta_vae"])
@pytest.mark.parametrize(
    ("world", "batch_size", "wide"),
    [("parsecrl/Gridworld-v0", 150, True), ("parsecrl/FourRooms-v0", 350, True), ("parsecrl/Gridworld-v0", 64, False)],
)
@pytest.mark.parametrize("what", ["model", "policy"])
def test_equal_rows_once(
    benchmark: BenchmarkFixture, machine: str, world: str, batch_size: int, wide: bool, kind: str, what: str
) -> None:
    """An update of latent_sac's model, which latent_planning has too, and one of its policy, without Adam's step."""
    if kind == "encoder_only" and what == "model":
        pytest.skip("it has no objective of its own")
    agent = Agent(world, kind, batch_size, wide)
    update = agent.update_model if what == "model" else agent.update_policy

    def plain() -> None:
        with every_row():
            update()

    ratio = compare(benchmark, machine, update, plain)
    assert ratio >= LEAST or not wide or kind != "parsimonious"  # where less is repeated, less is gained
