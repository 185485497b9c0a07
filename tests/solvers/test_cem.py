import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from parsecrl.algorithms.solvers import Solution, cem, dcem, lml_projection

GOAL = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def bowl(x: Tensor) -> Tensor:
    return (x - GOAL.to(x)).square().sum(-1)


def start(B: int, n: int = 3, std: float = 1.0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.zeros(B, n, dtype=dtype), torch.full((B, n), std, dtype=dtype)


# -- closed forms and brute force


def test_cem_iteration_is_the_elites_mean_and_deviation():
    noise = randn(1, 2, 8, 3)
    mean, std = randn(2, 3, seed=1), torch.full((2, 3), 0.5, dtype=torch.float64)
    solution = cem(bowl, mean, std, 8, 3, 1, noise=noise, keep_history=True)
    for b in range(2):
        x = mean[b] + std[b] * noise[0, b]
        best = sorted(x.tolist(), key=lambda row: bowl(torch.tensor(row, dtype=torch.float64)).item())[:3]
        elites = torch.tensor(best, dtype=torch.float64)
        torch.testing.assert_close(solution.mean[b], elites.mean(0))
        torch.testing.assert_close(solution.std[b], elites.std(0, correction=0))
        torch.testing.assert_close(solution.history[0].samples[b], x)
    torch.testing.assert_close(solution.history[0].weights.sum(1), torch.full((2,), 3.0, dtype=torch.float64))


@pytest.mark.parametrize("normalize", [False, True])
def test_dcem_iteration_is_the_weighted_mean_and_deviation(normalize: bool):
    noise = randn(1, 1, 8, 3)
    solution = dcem(bowl, *start(2), 8, 3, 1, 0.7, normalize, noise=noise, keep_history=True)
    x = noise[0, 0]
    v = bowl(x)
    if normalize:
        v = (v - v.mean()) / v.std(correction=0)
    w = lml_projection(-v, 3, 0.7)
    mean = sum(w[i] * x[i] for i in range(8)) / 3
    variance = sum(w[i] * (x[i] - mean) ** 2 for i in range(8)) / 3
    for b in range(2):
        torch.testing.assert_close(solution.mean[b], mean)
        torch.testing.assert_close(solution.std[b], variance.sqrt())
        torch.testing.assert_close(solution.history[0].weights[b], w)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reaches_a_known_optimum(dtype: torch.dtype):
    for solve in (cem, dcem):
        solution = solve(bowl, *start(4, dtype=dtype), 200, 20, 15, generator=seeded(0))
        assert solution.mean.dtype == solution.std.dtype == dtype
        assert (solution.mean - GOAL.to(dtype)).abs().max() < 0.02
        assert solution.history is None


def test_finds_the_better_of_two_valleys():
    def two(x: Tensor) -> Tensor:
        return torch.minimum((x - 2).square(), 1 + (x + 2).square()).sum(-1)

    for solve in (cem, dcem):
        mean = solve(two, *start(5, 1, std=2.0), 300, 10, 20, generator=seeded(1)).mean
        assert (mean - 2).abs().max() < 0.1


def test_entropy_is_that_of_the_last_weights():
    costs = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    hard = cem(lambda x: costs, *start(1), 6, 2, 3, generator=seeded(0))
    torch.testing.assert_close(hard.entropy, torch.tensor([2.0], dtype=hard.mean.dtype).log())
    flat = dcem(lambda x: 0 * costs, *start(1), 6, 2, 3, generator=seeded(0))
    torch.testing.assert_close(flat.entropy, torch.tensor([6.0], dtype=flat.mean.dtype).log())
    for checkpoint in (False, True):
        mean, std = (t.requires_grad_() for t in start(2))
        soft = dcem(bowl, mean, std, 20, 4, 3, generator=seeded(0), keep_history=True, checkpoint=checkpoint)
        p = soft.history[-1].weights / 4
        torch.testing.assert_close(soft.entropy, -(p * p.log()).sum(-1).detach())
        assert (soft.entropy > math.log(4)).all()
        assert not soft.entropy.requires_grad


# -- CEM as the limit of DCEM


def test_temperature_zero_is_cem_number_for_number():
    noise = randn(4, 2, 20, 3)
    hard = cem(bowl, *start(2), 20, 4, 4, noise=noise, keep_history=True)
    zero = dcem(bowl, *start(2), 20, 4, 4, temperature=0.0, noise=noise, keep_history=True)
    assert torch.equal(hard.mean, zero.mean)
    assert torch.equal(hard.std, zero.std)
    for a, b in zip(hard.history, zero.history, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    for normalize in (False, True):
        nearly = dcem(bowl, *start(2), 20, 4, 4, temperature=1e-9, normalize=normalize, noise=noise)
        torch.testing.assert_close(nearly.mean, hard.mean, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(nearly.std, hard.std, rtol=1e-9, atol=1e-12)


def test_hard_selection_passes_no_gradient_but_the_elites_do():
    theta = GOAL.clone().requires_grad_()
    mean, std = (t.requires_grad_() for t in start(1))
    for solve in (cem, lambda *args, **options: dcem(*args, temperature=0.0, **options)):
        solution = solve(lambda x: (x - theta).square().sum(-1), mean, std, 20, 4, 3, generator=seeded(0))
        grads = torch.autograd.grad(solution.mean.sum(), (theta, mean, std), allow_unused=True)
        assert grads[0] is None
        assert all(g.isfinite().all() and (g != 0).all() for g in grads[1:])


# -- laws


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.integers(2, 4), st.integers(4, 30), st.integers(1, 3), st.booleans(), st.integers(0, 1000), st.floats(0.01, 10)
)
def test_problems_never_influence_each_other(B: int, N: int, k: int, soft: bool, seed: int, temperature: float):
    noise = randn(3, B, N, 3, seed=seed)
    centres = randn(B, 1, 3, seed=seed + 1)
    solve: Callable[..., Solution] = (lambda *a, **o: dcem(*a, temperature=temperature, **o)) if soft else cem
    together = solve(lambda x: (x - centres).square().sum(-1), *start(B), N, k, 3, noise=noise)
    for b in range(B):
        alone = solve(lambda x, b=b: (x - centres[b]).square().sum(-1), *start(1), N, k, 3, noise=noise[:, b : b + 1])
        torch.testing.assert_close(together.mean[b], alone.mean[0], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(together.std[b], alone.std[0], rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sets(st.integers(0, 11), min_size=1, max_size=9),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.booleans(),
    st.booleans(),
)
def test_a_candidate_without_finite_cost_is_never_elite(bad: set[int], value: float, soft: bool, normalize: bool):
    def cost(x: Tensor) -> Tensor:
        out = bowl(x).clone()
        out[0, list(bad)] = value
        return out

    noise = randn(2, 2, 12, 3)
    if soft:
        found = dcem(cost, *start(2), 12, 3, 2, normalize=normalize, noise=noise, keep_history=True)
    else:
        found = cem(cost, *start(2), 12, 3, 2, noise=noise, keep_history=True)
    for iteration in found.history:
        assert (iteration.weights[0, list(bad)] == 0).all()
        torch.testing.assert_close(iteration.weights.sum(1), torch.full((2,), 3.0, dtype=torch.float64))
        assert iteration.mean.isfinite().all()
    # the same as though they had not been drawn, and the other problem sees nothing
    good = [i for i in range(12) if i not in bad]
    if len(good) > 3:
        options = {"temperature": 1.0, "normalize": normalize} if soft else {}
        without = (dcem if soft else cem)(bowl, *start(1), len(good), 3, 2, noise=noise[:, :1, good], **options)
        torch.testing.assert_close(found.mean[:1], without.mean, rtol=1e-9, atol=1e-12)


def test_normalised_search_ignores_the_scale_of_the_costs():
    noise = randn(4, 2, 30, 3).float()
    plain = dcem(bowl, *start(2, dtype=torch.float32), 30, 5, 4, noise=noise)
    for scale in (1e-30, 1e30):
        scaled = dcem(lambda x, s=scale: bowl(x) * s, *start(2, dtype=torch.float32), 30, 5, 4, noise=noise)
        torch.testing.assert_close(scaled.mean, plain.mean, rtol=1e-4, atol=1e-5)


def test_bounds():
    def outside(x: Tensor) -> Tensor:
        return -x.sum(-1)  # its optimum is past every upper bound

    low, high = torch.tensor([-1.0, -2.0, 0.0]), torch.tensor([0.5, 2.0, 3.0])
    for solve in (cem, dcem):
        boxed = solve(outside, *start(2), 50, 5, 12, bounds=(-0.5, 0.25), generator=seeded(0), keep_history=True)
        assert all(((i.samples >= -0.5) & (i.samples <= 0.25)).all() for i in boxed.history)
        torch.testing.assert_close(boxed.mean, torch.full_like(boxed.mean, 0.25), rtol=0, atol=0.02)
        each = solve(outside, *start(2), 50, 5, 12, bounds=(low, high), generator=seeded(0), keep_history=True)
        assert all(((i.samples >= low) & (i.samples <= high)).all() for i in each.history)
        mixed = solve(outside, *start(2), 50, 5, 3, bounds=(-5.0, high), generator=seeded(0))
        assert (mixed.mean <= high).all()


def test_generator_repeats_and_noise_is_shared():
    a, b = (dcem(bowl, *start(2), generator=seeded(7)) for _ in range(2))
    assert torch.equal(a.mean, b.mean)
    common = dcem(bowl, *start(3), 20, 4, 3, noise=randn(3, 1, 20, 3))
    assert torch.equal(common.mean[0], common.mean[2])
    # the draws are those of the generator whether or not a gradient is wanted
    with torch.no_grad():
        assert torch.equal(a.mean, dcem(bowl, *start(2), generator=seeded(7)).mean)


# -- gradients


def through(theta: Tensor, **options: object) -> Tensor:
    """A scalar of the answer, for an objective with parameters theta [4]."""

    def cost(x: Tensor) -> Tensor:
        return ((x - theta[:3]).square() + 0.3 * torch.sin(theta[3] * x)).sum(-1)

    settings = {"num_samples": 15, "num_elites": 4, "num_iterations": 4, "noise": randn(4, 2, 15, 3)} | options
    solution = dcem(cost, *start(2), **settings)  # type: ignore[arg-type]
    return (solution.mean * torch.arange(1, 7).reshape(2, 3)).sum() + solution.std.sum()


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("checkpoint", [False, True])
def test_gradient_is_the_finite_difference(normalize: bool, checkpoint: bool):
    theta = torch.tensor([0.5, -0.3, 0.8, 2.0], dtype=torch.float64, requires_grad=True)
    options = {"normalize": normalize, "temperature": 0.8, "checkpoint": checkpoint, "bounds": (-2.0, 2.0)}
    assert torch.autograd.gradcheck(lambda t: through(t, **options), (theta,), atol=1e-6)


def test_gradient_reaches_the_temperature_and_the_start():
    mean, std = (t.requires_grad_() for t in start(2))
    temperature = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    noise = randn(3, 2, 12, 3)

    def answer(mean: Tensor, std: Tensor, temperature: Tensor) -> Tensor:
        return dcem(bowl, mean, std, 12, 3, 3, temperature=temperature, noise=noise).mean

    assert torch.autograd.gradcheck(answer, (mean, std, temperature), atol=1e-6)


def test_checkpointed_gradient_is_the_same():
    grads, values, evaluations = [], [], []
    for checkpoint in (False, True):
        theta = torch.tensor([0.5, -0.3, 0.8, 2.0], dtype=torch.float64, requires_grad=True)
        calls = []

        def cost(x: Tensor, theta: Tensor = theta, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            return ((x - theta[:3]).square() + 0.3 * torch.sin(theta[3] * x)).sum(-1)

        solution = dcem(cost, *start(2), 15, 4, 5, generator=seeded(3), checkpoint=checkpoint)
        solution.mean.sum().backward()
        grads.append(theta.grad)
        values.append(solution.mean)
        evaluations.append(len(calls))
    assert torch.equal(*values)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=0)
    assert evaluations == [5, 10]


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_a_candidate_without_finite_cost_adds_no_gradient(checkpoint: bool, normalize: bool):
    noise = randn(3, 2, 12, 3)
    start_mean, start_std = start(2)

    def solve(root: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        theta = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64, requires_grad=True)
        mean = start_mean.clone().requires_grad_()

        def cost(x: Tensor) -> Tensor:
            return root(x[..., 0] * theta[0] + 0.8) + (x - theta).square().sum(-1)

        found = dcem(cost, mean, start_std, 12, 3, 3, normalize=normalize, noise=noise, checkpoint=checkpoint)
        found.mean.square().sum().backward()
        return found.mean.detach(), theta.grad, mean.grad

    # sqrt is NaN below 0, and so is its derivative: 0 times it would be NaN
    plain = solve(torch.sqrt)
    # the same objective with the derivative made harmless by hand
    by_hand = solve(lambda z: torch.where(z >= 0, z.clamp(min=1e-12).sqrt(), math.nan))
    for a, b in zip(plain, by_hand, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_flat_costs_and_zero_variance_have_a_finite_gradient(normalize: bool):
    theta = torch.tensor(1.0, requires_grad=True)
    mean, std = (t.requires_grad_() for t in start(2, dtype=torch.float32))
    for cost in (lambda x: 0 * x.sum(-1) + theta, lambda x: theta * x.sum(-1)):
        # every candidate is clamped to one corner
        solution = dcem(cost, mean, std, 20, 5, 3, normalize=normalize, bounds=(5.0, 6.0), generator=seeded(0))
        torch.testing.assert_close(solution.mean, torch.full_like(mean, 5.0))
        for grad in torch.autograd.grad((solution.mean + solution.std).sum(), (theta, mean, std)):
            assert grad.isfinite().all()


def test_no_gradient_memory_without_gradient():
    with torch.no_grad():
        solution = dcem(bowl, *start(2), checkpoint=True)
    assert not solution.mean.requires_grad


# -- errors


@pytest.mark.parametrize("solve", [cem, dcem])
def test_too_few_finite_costs_names_the_iteration(solve: Callable[..., Solution]):
    calls = []

    def cost(x: Tensor) -> Tensor:
        calls.append(1)
        out = bowl(x).clone()
        if len(calls) == 3:
            out[1, 4:] = math.nan
        return out

    with pytest.raises(ValueError, match=r"iteration 2 .* only 4 of 20 candidates, fewer than num_elites=5"):
        solve(cost, *start(2), 20, 5, 6, generator=seeded(0))


@pytest.mark.parametrize("solve", [cem, dcem])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_elites": 0}, r"\[1, num_samples\), got 0 with num_samples=100"),
        ({"num_elites": 100}, r"\[1, num_samples\), got 100 with num_samples=100"),
        ({"num_elites": 2.5}, "got 2.5"),
        ({"num_samples": 1}, "num_samples must be an integer of 2 or more, got 1"),
        ({"num_iterations": 0}, "num_iterations must be an integer of 1 or more, got 0"),
        ({"init_mean": torch.zeros(3)}, r"\[B, n\], got shape \(3,\)"),
        ({"init_mean": torch.zeros(2, 3, dtype=torch.int64)}, "int64"),
        ({"init_std": torch.ones(3, 2)}, r"\(2, 3\), got shape \(3, 2\)"),
        ({"init_std": -1.0}, "minimum of -1.0"),
        ({"init_std": math.nan}, "nan"),
        ({"bounds": (1.0, 1.0)}, r"\(1.0, 1.0\)"),
        ({"bounds": 1.0}, "got 1.0"),
        ({"bounds": (torch.zeros(3), torch.tensor([1.0, -1.0, 1.0]))}, "-1.0"),
        ({"bounds": (torch.zeros(2), 1.0)}, r"\(3,\), got shape \(2,\)"),
        ({"noise": torch.zeros(10, 2, 99, 3)}, r"\(10, 2, 99, 3\)"),
        ({"noise": torch.zeros(10, 2, 100, 3, dtype=torch.float64)}, "float64"),
    ],
)
def test_bad_arguments(solve: Callable[..., Solution], options: dict[str, object], message: str):
    arguments: dict[str, object] = {"init_mean": torch.zeros(2, 3), "init_std": torch.ones(2, 3)} | options
    with pytest.raises(ValueError, match=message):
        solve(bowl, **arguments)


@pytest.mark.parametrize("temperature", [-1.0, math.nan, math.inf])
def test_bad_temperature(temperature: float):
    with pytest.raises(ValueError, match=f"got {temperature}"):
        dcem(bowl, *start(1), temperature=temperature)


@pytest.mark.parametrize("solve", [cem, dcem])
def test_objective_of_the_wrong_shape(solve: Callable[..., Solution]):
    with pytest.raises(ValueError, match=r"\(2, 100, 3\).*\(2, 100\), got shape \(2, 100, 1\)"):
        solve(lambda x: x.sum(-1, keepdim=True), *start(2))
    with pytest.raises(ValueError, match=r"got shape \(\)"):
        solve(lambda x: x.sum(), *start(2))
    with pytest.raises(ValueError, match="got float"):
        solve(lambda x: 1.0, *start(2))
