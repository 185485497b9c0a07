"""A small RSSM with statistics, and made-up sequences for it."""

import torch

from parsecrl.algorithms.models import RSSM, Belief, ReplaySequence

OBS, A = 5, 2


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_model(**options) -> RSSM:
    torch.manual_seed(0)
    model = RSSM(OBS, A, **{"deterministic_size": 16, "stochastic_size": 4, "hidden_size": 24, **options})
    model.obs_norm.update(3 * torch.randn(100, OBS, generator=seeded(9)) + 1)
    model.reward_norm.update(5 * torch.randn(100, 1, generator=seeded(10)) + 2)
    return model


def replay(
    B: int = 3, T: int = 8, first: tuple[int, ...] = (), seed: int = 0, terminal: tuple[int, ...] = ()
) -> ReplaySequence:
    g = seeded(seed)
    is_first, terminated = torch.zeros(2, B, T, dtype=torch.bool)
    is_first[:, list(first)] = True
    terminated[:, list(terminal)] = True
    return ReplaySequence(
        obs=torch.randn(B, T, OBS, generator=g),
        action=2 * torch.rand(B, T, A, generator=g) - 1,
        reward=torch.randn(B, T, generator=g),
        is_first=is_first,
        terminated=terminated,
    )


def random_belief(model: RSSM, B: int, seed: int = 0) -> Belief:
    g = seeded(seed)
    h = torch.randn(B, model.deterministic_size, generator=g).tanh()
    return Belief(h, torch.randn(B, model.stochastic_size, generator=g))
