"""iCEM's refinements and MPPI's weights: closed forms, laws, gradients, and how good the answers are."""

import math

import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.solvers import Refinements, cem, colored_noise, dcem, mppi
from parsecrl.algorithms.solvers.scores import softmax_of_elites

GOAL = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def bowl(x: Tensor) -> Tensor:
    return (x - GOAL).square().sum(-1)


def start(B: int, n: int = 3) -> tuple[Tensor, Tensor]:
    return torch.zeros(B, n, dtype=torch.float64), torch.ones(B, n, dtype=torch.float64)


# -- coloured noise


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.5])
@pytest.mark.parametrize("horizon", [16, 15])
def test_power_falls_with_frequency_as_the_exponent_says(exponent: float, horizon: int):
    """Of the autocovariance, exactly: white noise times the mixing has this spectrum."""
    mixing = colored_noise(horizon, 2, exponent).double()
    covariance = mixing @ mixing.t()
    torch.testing.assert_close(covariance.diagonal(), torch.ones(2 * horizon, dtype=torch.float64))
    first = covariance[::2, ::2]  # of the first action; the second is independent of it
    assert (covariance[::2, 1::2] == 0).all()
    power = torch.fft.rfft(first[0]).real  # circulant
    frequency = torch.arange(1, horizon // 2 + 1, dtype=torch.float64)
    torch.testing.assert_close(power[1:] / power[1], frequency**-exponent, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(power[0], power[1], rtol=1e-5, atol=1e-6)


def test_drawn_candidates_have_the_spectrum():
    H, exponent = 16, 2.0
    found = cem(
        lambda x: x.sum(-1),
        torch.zeros(1, H),
        1.0,
        20_000,
        10,
        1,
        generator=seeded(0),
        keep_history=True,
        refinements=Refinements(mixing=colored_noise(H, 1, exponent)),
    )
    samples = found.history[0].samples[0]  # [N, H]
    power = torch.fft.rfft(samples).abs().square().mean(0)[1:]
    slope = torch.log(power[-1] / power[0]) / math.log(H / 2)
    assert slope == pytest.approx(-exponent, abs=0.05)
    torch.testing.assert_close(samples.var(0), torch.ones(H), rtol=0.05, atol=0)


def test_white_noise_is_no_mixing():
    torch.testing.assert_close(colored_noise(7, 2, 0.0), torch.eye(14))


# -- kept elites, decay, candidates from outside, the best


def test_an_iteration_with_all_refinements_by_hand():
    """Two iterations of one problem: what is tried, in which order, and what it leaves."""
    noise, given = randn(2, 1, 12, 3), randn(1, 2, 3, seed=1)
    refined = Refinements(decay=2.0, kept_elites=2, candidates=given, min_std=0.4, best=True)
    seen = []

    def counted(x: Tensor) -> Tensor:
        seen.append(x.clone())
        return bowl(x)

    found = cem(counted, *start(1), 12, 3, 2, noise=noise, keep_history=True, refinements=refined)
    first = torch.cat([noise[0], given], 1)
    torch.testing.assert_close(seen[0], first)
    elites = first[0][bowl(first[0]).argsort()[:3]]
    mean, std = elites.mean(0), elites.std(0, correction=0).clamp(min=0.4)
    # six are drawn, the mean is tried, the two best elites are known
    second = torch.cat([mean + std * noise[1, 0, :6], mean[None]])
    torch.testing.assert_close(seen[1][0], second)
    tried = torch.cat([second, elites[:2]])
    torch.testing.assert_close(found.history[1].samples[0], tried)
    torch.testing.assert_close(found.history[1].costs[0], bowl(tried))
    last = tried[bowl(tried).argsort()[:3]]
    torch.testing.assert_close(found.mean[0], last.mean(0))
    torch.testing.assert_close(found.std[0], last.std(0, correction=0).clamp(min=0.4))
    torch.testing.assert_close(found.kept[0], last[:2])
    everything = torch.cat([first[0], tried])
    torch.testing.assert_close(found.best[0], everything[bowl(everything).argmin()])
    assert refined.num_evaluated(12, 3, 2) == sum(x.shape[1] for x in seen) == 12 + 2 + 6 + 1


def test_the_number_of_candidates_never_falls_below_twice_the_elites():
    sizes = []

    def counted(x: Tensor) -> Tensor:
        sizes.append(x.shape[1])
        return bowl(x)

    cem(counted, *start(1), 40, 5, 6, generator=seeded(0), refinements=Refinements(decay=1.5))
    assert sizes == [40, 26, 17, 11, 10, 10]


def test_kept_elites_never_let_the_best_cost_rise():
    def rough(x: Tensor) -> Tensor:
        return bowl(x) + torch.sin(20 * x).sum(-1)

    found = cem(
        rough,
        *start(4),
        20,
        5,
        8,
        generator=seeded(0),
        keep_history=True,
        refinements=Refinements(kept_elites=1, best=True),
    )
    least = torch.stack([i.costs.amin(1) for i in found.history])
    assert (least[1:] <= least[:-1]).all()
    torch.testing.assert_close(rough(found.best), least[-1])


@pytest.mark.parametrize("solve", [cem, dcem, mppi])
def test_a_batch_equals_one_at_a_time(solve):
    B, noise, given = 4, randn(3, 4, 16, 3), randn(4, 2, 3, seed=1)
    centres = randn(B, 1, 3, seed=2)
    mixing = colored_noise(3, 1, 1.0).double()

    def options(rows: slice) -> dict:
        refined = Refinements(1.3, 2, given[rows], mixing, 0.05, best=True)
        return {"noise": noise[:, rows], "bounds": (-1.0, 1.0), "refinements": refined}

    together = solve(lambda x: (x - centres).square().sum(-1), *start(B), 16, 4, 3, **options(slice(None)))
    for b in range(B):
        one = solve(lambda x, b=b: (x - centres[b]).square().sum(-1), *start(1), 16, 4, 3, **options(slice(b, b + 1)))
        for name in ("mean", "std", "kept", "best"):
            torch.testing.assert_close(getattr(together, name)[b : b + 1], getattr(one, name))


@pytest.mark.parametrize("solve", [cem, dcem, mppi])
def test_a_candidate_without_finite_cost_is_neither_kept_nor_best(solve):
    def cost(x: Tensor) -> Tensor:
        return torch.where(x[..., 0] > 0, math.nan, bowl(x))

    found = solve(cost, *start(2), 60, 5, 3, generator=seeded(0), refinements=Refinements(kept_elites=3, best=True))
    assert (found.kept[..., 0] <= 0).all()
    assert (found.best[..., 0] <= 0).all()
    assert found.mean.isfinite().all()


# -- MPPI


def test_an_iteration_of_mppi_by_hand():
    noise = randn(1, 1, 10, 3)
    found = mppi(bowl, *start(1), 10, 4, 1, temperature=0.7, noise=noise, keep_history=True)
    x = noise[0, 0]
    z = (bowl(x) - bowl(x).mean()) / bowl(x).std(correction=0)
    best = z.argsort()[:4]
    w = (-z[best] / 0.7).exp()
    w = w / w.sum()
    mean = (w[:, None] * x[best]).sum(0)
    torch.testing.assert_close(found.mean[0], mean)
    torch.testing.assert_close(found.std[0], (w[:, None] * (x[best] - mean).square()).sum(0).sqrt())
    torch.testing.assert_close(found.history[0].weights.sum(1), torch.full((1,), 4.0, dtype=torch.float64))


def test_a_high_temperature_is_cem_and_a_low_one_the_best_candidate():
    noise = randn(2, 2, 20, 3)
    hot, plain = (
        mppi(bowl, *start(2), 20, 4, 2, temperature=1e9, noise=noise),
        cem(bowl, *start(2), 20, 4, 2, noise=noise),
    )
    torch.testing.assert_close(hot.mean, plain.mean, rtol=1e-6, atol=1e-8)
    cold = mppi(bowl, *start(2), 20, 4, 1, temperature=1e-4, noise=noise[:1])
    best = noise[0].gather(1, bowl(noise[0]).argmin(1)[:, None, None].expand(-1, 1, 3))[:, 0]
    torch.testing.assert_close(cold.mean, best, rtol=1e-6, atol=1e-8)


def test_too_few_finite_scores_are_no_answer():
    scores = torch.tensor([[1.0, 0.0, -math.inf], [1.0, -math.inf, -math.inf]])
    weights = softmax_of_elites(scores, 2, 1.0)
    assert weights[0].isfinite().all()
    assert weights[1].isnan().any()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_bad_temperature(temperature: float):
    with pytest.raises(ValueError, match=f"temperature must be positive and finite, got {temperature}"):
        mppi(bowl, *start(1), temperature=temperature)


# -- gradients


@pytest.mark.parametrize("solve", [dcem, mppi])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradient_is_the_finite_difference(solve, checkpoint: bool):
    theta = torch.tensor([0.5, -0.3, 0.8, 2.0], dtype=torch.float64, requires_grad=True)
    noise = randn(4, 2, 15, 3)

    def through(theta: Tensor) -> Tensor:
        def cost(x: Tensor) -> Tensor:
            return ((x - theta[:3]).square() + 0.3 * torch.sin(theta[3] * x)).sum(-1)

        refined = Refinements(decay=1.3, kept_elites=2, min_std=0.3)
        options = {"temperature": 0.8, "noise": noise, "checkpoint": checkpoint, "refinements": refined}
        found = solve(cost, *start(2), 15, 4, 4, **options)
        return (found.mean * torch.arange(1, 7).reshape(2, 3)).sum() + found.std.sum() + found.kept.sum()

    assert torch.autograd.gradcheck(through, (theta,), atol=1e-6)


@pytest.mark.parametrize("solve", [dcem, mppi])
def test_a_kept_elite_without_gradient_of_its_own_run_adds_no_nan(solve):
    """A candidate of infinite slope is replaced in a second run; kept elites come from finite ones."""
    theta = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64, requires_grad=True)

    def cost(x: Tensor) -> Tensor:
        return torch.sqrt(x[..., 0] * theta[0] + 0.5) + (x - theta).square().sum(-1)

    found = solve(cost, *start(2), 24, 4, 4, generator=seeded(0), refinements=Refinements(kept_elites=2))
    (grad,) = torch.autograd.grad(found.mean.sum(), theta)
    assert grad.isfinite().all()
    assert (grad != 0).all()


# -- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decay": 0.9}, "decay must be 1 or more, got 0.9"),
        ({"min_std": -1.0}, "min_std must be finite and 0 or more, got -1.0"),
        ({"kept_elites": 11}, r"kept_elites must lie in \[0, num_elites\], got 11 with num_elites=10"),
        ({"candidates": torch.zeros(1, 2, 3)}, r"candidates must have the shape \[2, M, 3\], got \(1, 2, 3\)"),
        ({"mixing": torch.zeros(2, 2)}, r"mixing must have the shape \[3, 3\], got \(2, 2\)"),
    ],
)
def test_bad_refinements(options: dict, message: str):
    with pytest.raises(ValueError, match=message):
        cem(bowl, *start(2), refinements=Refinements(**options))


def test_bad_exponent():
    with pytest.raises(ValueError, match="noise_exponent must be finite and 0 or more, got -1"):
        colored_noise(4, 1, -1.0)


# -- how good they are, at equal evaluations on known functions


H, A = 20, 2


def slow(x: Tensor) -> Tensor:
    """Cost of action sequences whose best is slow in time: a wave, behind a double integrator. [B, N, H A] -> [B, N]"""
    u = x.unflatten(-1, (H, A))
    place = u.cumsum(-2).cumsum(-2) / H
    target = torch.linspace(0, math.pi, H, dtype=x.dtype).sin()[:, None] * torch.tensor([1.0, -1.0], dtype=x.dtype)
    return (place - 2 * target).square().sum((-1, -2)) + 0.01 * u.square().sum((-1, -2))


def rosenbrock(x: Tensor) -> Tensor:
    """A curved valley, [B, N, n] -> [B, N]."""
    x = 2 * x
    return (100 * (x[..., 1:] - x[..., :-1].square()).square() + (1 - x[..., :-1]).square()).sum(-1)


SEARCHES = {
    "cem": (cem, {"num_samples": 100, "num_elites": 10, "num_iterations": 5}, {}),
    "icem": (
        cem,
        {"num_samples": 208, "num_elites": 10, "num_iterations": 4},
        {"decay": 1.5, "kept_elites": 3, "best": True},
    ),
    "mppi": (mppi, {"num_samples": 100, "num_elites": 20, "num_iterations": 5}, {"min_std": 0.05}),
}


def costs_found(function, n: int, B: int = 32) -> dict[str, Tensor]:
    """Costs [B] of each search's answers in B runs, with 500 evaluations each."""
    found = {}
    for name, (solve, sizes, refined) in SEARCHES.items():
        if name == "icem" and function is slow:
            refined = {**refined, "mixing": colored_noise(H, A, 2.0)}
        options = Refinements(**refined)
        assert abs(options.num_evaluated(*sizes.values()) - 500) <= 2
        mean = torch.zeros(B, n)
        s = solve(function, mean, 0.5, **sizes, bounds=(-1.0, 1.0), generator=seeded(1), refinements=options)
        found[name] = function((s.mean if s.best is None else s.best)[:, None])[:, 0]
    draws = 2 * torch.rand(B, 500, n, generator=seeded(1)) - 1
    found["random"] = function(draws).amin(1)
    return found


def test_on_a_slow_plan_icem_is_better_than_cem_and_all_are_than_random_search():
    found = {name: costs.mean().item() for name, costs in costs_found(slow, H * A).items()}
    assert found["icem"] < 0.75 * found["cem"]
    assert found["cem"] < 0.8 * found["random"]
    assert found["mppi"] < 0.8 * found["random"]


def test_in_a_curved_valley_every_search_is_better_than_random_search():
    found = {name: costs.median().item() for name, costs in costs_found(rosenbrock, 4).items()}
    for name in SEARCHES:
        assert found[name] < 0.7 * found["random"], found
