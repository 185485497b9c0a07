"""Times of planning and of the model's update at the paper's sizes, on the device at hand.

They print their arithmetic (FLOP of the matrix products that they cannot do without) and the fraction of the machine's
measured matmul rate, taken beside every round: of torch.mm and, on the CPU, of oneDNN, which is faster on some
processors. There each time stands beside that of oneDNN's products everywhere, with which the plain rollout plans, in
turn. On the CPU one thread is used, as a runner has one core, and the fraction is of processor time, so that other load
on the machine hardly counts; the table's times are of the wall clock.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor, nn

from parsecrl.algorithms.controllers import EmbeddedController, FullSpaceController
from parsecrl.algorithms.models import RSSM, ActionDecoder, Belief, LossWeights, ReplaySequence
from parsecrl.algorithms.models.matrix_products import ONEDNN, PROBES, describe, product, use

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
OBS, A, H, LATENT = 17, 6, 12, 16  # cheetah.run; the paper's horizon
MATMUL = 1024 if DEVICE.type == "cpu" else 8192
DECISIONS = 64  # of one phase-3 gradient step


pytestmark = pytest.mark.usefixtures("one_thread")


def clock() -> float:
    return time.perf_counter() if DEVICE.type == "cuda" else time.process_time()


def finish() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def make_model() -> RSSM:
    torch.manual_seed(0)
    return RSSM(OBS, A).to(DEVICE)


def make_embedded(num_iterations: int = 10) -> EmbeddedController:
    torch.manual_seed(1)
    return EmbeddedController(ActionDecoder(LATENT, H, A), num_iterations=num_iterations).to(DEVICE)


def make_belief(B: int) -> Belief:
    g = torch.Generator().manual_seed(0)
    return Belief(torch.randn(B, 200, generator=g).tanh().to(DEVICE), torch.randn(B, 30, generator=g).to(DEVICE))


def products(module: nn.Module) -> int:
    """Multiplications of a module's linear layers for one row."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def plan_flop(model: RSSM, controller: FullSpaceController | EmbeddedController, B: int) -> int:
    """2 FLOP a multiplication; the first step's products with the belief once per belief."""
    D, S = model.deterministic_size, model.stochastic_size
    head = model.prior_net[-1].weight.numel() // 2  # a plan needs the prior's mean only
    per_step = 3 * D * A + products(model.prior_net) - head + products(model.reward_net)
    from_belief = 3 * D * (D + S)
    candidates = B * controller.num_samples
    total = candidates * (H * per_step + (H - 1) * from_belief) + B * from_belief
    if isinstance(controller, EmbeddedController):
        total += candidates * products(controller.decoder)
    return 2 * total * controller.num_iterations


def matmul_rates() -> dict[str, float]:
    """FLOP/s of a square float32 product, the best of several: by torch.mm, and by the models' own if it is another."""
    a, b = (torch.ones(MATMUL, MATMUL, device=DEVICE) for _ in range(2))
    products = {"torch.mm": torch.mm}
    if ONEDNN and DEVICE.type == "cpu":
        products["oneDNN"] = product
    rates = {}
    for name, multiply in products.items():
        times = []
        for _ in range(6):
            finish()
            start = clock()
            multiply(a, b)
            finish()
            times.append(clock() - start)
        rates[name] = 2 * MATMUL**3 / min(times)
    return rates


def measure(benchmark: BenchmarkFixture, work: Callable[[], object], flop: int, rounds: int) -> None:
    """Time `work` and report FLOP and the median over rounds of the fraction of the matmul rate of the same moment."""
    rates: list[dict[str, float]] = []
    seconds: list[float] = []
    before: list[float] = []
    work()
    finish()

    def timed(found: list[float]) -> None:
        start = clock()
        work()
        finish()
        found.append(clock() - start)

    def prepare() -> None:
        rates.append(matmul_rates())
        if ONEDNN and DEVICE.type == "cpu":
            use((True,) * len(PROBES))
            timed(before)
            use(None)

    benchmark.pedantic(lambda: timed(seconds), setup=prepare, rounds=rounds, warmup_rounds=0)
    shares = []
    for name in rates[0]:
        fraction = statistics.median(flop / s / rate[name] for s, rate in zip(seconds, rates, strict=True))
        gflop_per_s = statistics.median(rate[name] for rate in rates) / 1e9
        benchmark.extra_info[f"{name}_gflop_per_s"] = round(gflop_per_s, 1)
        benchmark.extra_info[f"fraction_of_{name}_rate"] = round(fraction, 3)
        shares.append(f"{fraction:.0%} of {name}'s rate ({gflop_per_s:.0f} GFLOP/s)")
    if before:
        gain = statistics.median(then / now for then, now in zip(before, seconds, strict=True))
        benchmark.extra_info["gain_over_onednn_everywhere"] = round(gain, 2)
        shares.append(f"{gain:.2f} times as fast as with oneDNN's products everywhere; now {describe()}")
    benchmark.extra_info["gflop"] = round(flop / 1e9, 2)
    print(
        f"\n{benchmark.name} on {DEVICE.type}: {statistics.median(seconds) * 1e3:.1f} ms, {flop / 1e9:.1f} GFLOP, "
        + ", ".join(shares)
    )


@pytest.mark.parametrize("B", [1, 8])
def test_full_space_plan(benchmark: BenchmarkFixture, B: int):
    model, controller, belief = make_model(), FullSpaceController(H, A), make_belief(B)
    assert (controller.num_samples, controller.num_iterations) == (1000, 10)

    def plan() -> Tensor:
        with torch.no_grad():
            return controller.plan(model, belief).actions

    measure(benchmark, plan, plan_flop(model, controller, B), rounds=5 if B == 1 else 2)


@pytest.mark.parametrize("B", [1, 8])
def test_embedded_plan(benchmark: BenchmarkFixture, B: int):
    model, controller, belief = make_model(), make_embedded(), make_belief(B)
    assert (controller.num_samples, controller.num_iterations) == (100, 10)

    def plan() -> Tensor:
        with torch.no_grad():
            return controller.plan(model, belief).actions

    measure(benchmark, plan, plan_flop(model, controller, B), rounds=10)


@pytest.mark.parametrize("B", [1, 8])
def test_embedded_plan_with_gradient(benchmark: BenchmarkFixture, B: int):
    model, controller, belief = make_model(), make_embedded(), make_belief(B)
    parameters = [*controller.parameters(), *model.transition_parameters(), *model.reward_net.parameters()]

    def plan_and_back() -> tuple[Tensor, ...]:
        return torch.autograd.grad(controller.plan(model, belief).actions[:, 0].sum(), parameters)

    # Backward: two products for each of forward's.
    measure(benchmark, plan_and_back, 3 * plan_flop(model, controller, B), rounds=5)


def test_rssm_update(benchmark: BenchmarkFixture):
    B, T = 50, 50
    model = make_model()
    g = torch.Generator().manual_seed(0)
    sequence = ReplaySequence(
        obs=torch.randn(B, T, OBS, generator=g).to(DEVICE),
        action=(2 * torch.rand(B, T, A, generator=g) - 1).to(DEVICE),
        reward=torch.randn(B, T, generator=g).to(DEVICE),
        is_first=(torch.rand(B, T, generator=g) < 0.01).to(DEVICE),
        terminated=torch.zeros(B, T, dtype=torch.bool).to(DEVICE),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def update() -> None:
        loss, _, _ = model.loss(sequence, LossWeights())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        optimizer.step()

    gru = model.gru.weight_ih.numel() + model.gru.weight_hh.numel()
    nets = (model.prior_net, model.posterior_net, model.obs_net, model.reward_net)
    measure(benchmark, update, 3 * 2 * B * T * (gru + sum(map(products, nets))), rounds=10)


def gradient_step() -> float:
    """One gradient of 64 planned first actions, checkpointed as in phase 3; returns the peak memory, GiB."""
    import resource

    torch.set_num_threads(1)
    model, controller, belief = make_model(), make_embedded(), make_belief(DECISIONS)
    controller.plan(model, belief, checkpoint=True).actions[:, 0].square().sum().backward()
    finish()
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def test_memory_of_a_gradient_step_through_the_planner(benchmark: BenchmarkFixture):
    """In a process of its own: a peak is of the whole life of a process, the libraries included."""
    peaks: list[float] = []

    def run() -> None:
        result = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=True)
        peaks.append(float(result.stdout.split()[-1]))

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["peak_gib"] = round(peaks[0], 2)
    print(f"\n{benchmark.name} on {DEVICE.type}: {DECISIONS} decisions, peak memory {peaks[0]:.2f} GiB")
    assert peaks[0] < 6


if __name__ == "__main__":
    print(gradient_step())
