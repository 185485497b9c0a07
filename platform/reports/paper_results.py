"""What the DCEM paper printed for its own final models: facts read off its figures, none of them ours.

Source: Amos and Yarats, "The Differentiable Cross-Entropy Method", ICML 2020. Box plot: figure 4 (100 evaluation
episodes a model). Curves: the evaluation return during training, appendix (one run each, mean over about 50k steps).
Returns are sums of rewards over one episode, in [0, 1000]. Tasks and "kinds" of controller are the keys:
full (CEM over actions), embedded (DCEM over the decoder's latents), ppo (embedded DCEM after PPO).
"""

from __future__ import annotations

from typing import NamedTuple

SOURCE = "Amos and Yarats, The Differentiable Cross-Entropy Method, ICML 2020"
LABEL = "read off the paper's figure 4"
CURVE_LABEL = "paper, evaluation return read off its appendix figures (one run)"
EPISODES = 100
KINDS = {
    "full": "CEM, full action space",
    "icem": "iCEM, full action space",
    "mppi": "MPPI, full action space",
    "embedded": "embedded DCEM",
    "ppo": "embedded DCEM + PPO",
}


class PaperResult(NamedTuple):
    """One box of figure 4: quartiles of the return, and trajectories sampled for one decision."""

    median: float
    q25: float
    q75: float
    trajectories: int


RESULTS: dict[str, dict[str, PaperResult]] = {
    "cheetah.run": {
        "full": PaperResult(701, 683, 714, 10_000),
        "embedded": PaperResult(652, 592, 681, 1_000),
        "ppo": PaperResult(685, 597, 716, 1_000),
    },
    "walker.walk": {
        "full": PaperResult(953, 920, 972, 10_000),
        "embedded": PaperResult(861, 761, 915, 1_000),
        "ppo": PaperResult(892, 843, 928, 1_000),
    },
}

# (steps on the figure's axis, return). The axis says "1k steps"; the action repeat behind it is not stated.
CURVES: dict[tuple[str, str], tuple[tuple[int, float], ...]] = {
    ("cheetah.run", "full"): ((100_000, 505), (200_000, 542), (500_000, 641), (1_000_000, 673), (2_000_000, 672)),
    ("walker.walk", "full"): (
        (100_000, 166),
        (200_000, 255),
        (500_000, 448),
        (1_000_000, 688),
        (2_000_000, 774),
        (3_000_000, 935),
        (4_000_000, 918),
    ),
    ("cheetah.run", "embedded"): ((100_000, 44), (200_000, 97), (500_000, 529), (874_000, 526)),
    ("walker.walk", "embedded"): ((100_000, 444), (200_000, 534), (500_000, 844), (748_000, 622)),
}

# What the paper spent before it measured figure 4, as far as its curves show.
BUDGETS: dict[str, dict[str, str]] = {
    "cheetah.run": {"full": "2M steps", "embedded": "874k steps", "ppo": "2,920 PPO steps of 10 episodes"},
    "walker.walk": {"full": "4M steps", "embedded": "748k steps", "ppo": "1,420 PPO steps of 10 episodes"},
}


def task_of(env_id: str) -> str:
    """A task as the paper's figures are listed.

    Args:
        env_id: "dm_control/cheetah-run-v0", say.

    Returns:
        dm_control's spelling, "cheetah.run"; of others the id without namespace and version.
    """
    name = env_id.rsplit("/", 1)[-1]
    head, _, version = name.rpartition("-v")
    if head and version.isdigit():
        name = head
    return name.replace("-", ".", 1) if env_id.startswith("dm_control/") else name


def result_for(task: str, kind: str) -> PaperResult | None:
    """What the paper reports (DCEM paper, figure 4).

    Args:
        task: As `task_of` names it.
        kind: full, icem, mppi, embedded or ppo.

    Returns:
        Quartiles of the return; None where the paper has none.
    """
    return RESULTS.get(task, {}).get(kind)


def note(task: str) -> str:
    """Where the paper's figures come from and why they do not compare directly.

    Args:
        task: As `task_of` names it.

    Returns:
        A sentence or two.
    """
    if task not in RESULTS:
        return f"The paper has no figures for {task}; it reports {' and '.join(RESULTS)}."
    spent = ", ".join(f"{KINDS[kind]} {budget}" for kind, budget in BUDGETS[task].items())
    return (
        f"Paper: {SOURCE}; {LABEL}, {EPISODES} episodes a model. Its numbers are for its own budgets "
        f"({spent}; action repeat not stated), not for this run's."
    )
