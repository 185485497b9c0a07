"""Tables and counts of docs/results/parsimony_sac."""

import pandas as pd

world = "gridworld"  # and 'torus', 'four_rooms'
scores, found = (
    pd.read_csv(f"docs/results/parsimony_sac/analysis/{world}/{table}.csv") for table in ("scores", "predictions")
)
print(scores.pivot_table("score", "model", "seed", "sum"))
late = scores[scores.episode > 50]
print((late.score < 0).groupby([late.model, late.seed]).mean().unstack().mul(100).round())
print(scores[scores.episode <= 50].groupby(["model", "seed"]).score.sum().groupby("model").mean())
print(
    found.groupby(["model", "seed", "episodes"]).unvisited.first().unstack().mul(100).round(1)
)  # % of all transitions
print(found[found.step.isin([1, 5])].pivot_table("hits", ["step", "first", "model"], "episodes").mul(100).round())


def goal_found(of_a_seed):
    score = of_a_seed.sort_values("episode").score.to_numpy()
    first = next((i for i in range(len(score) - 4) if score[i : i + 5].sum() > 0), float("nan"))
    if first != first:  # never
        return pd.Series({"found": first, "below 0 after it, %": first, "last below 0": len(score)})
    return pd.Series(
        {
            "found": first + 1,
            "below 0 after it, %": 100 * (score[first + 5 :] < 0).mean(),
            "last below 0": (score < 0).nonzero()[0].max() + 1,
        }
    )


print(scores.groupby(["model", "seed"]).apply(goal_found, include_groups=False).unstack("model").round().to_string())
