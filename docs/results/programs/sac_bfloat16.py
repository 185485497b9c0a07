"""Totals of the gridworld's seeds in bfloat16, and how likely they differ from those in float32 by chance."""

import pandas as pd
from scipy.stats import ttest_ind, ttest_rel

a, b = (
    pd.read_csv(f"docs/results/{run}/analysis/gridworld/scores.csv")
    for run in ("parsimony_sac", "parsimony_sac_bfloat16")
)
a, b = (t.groupby(["model", "seed"])["score"].sum().unstack() / 1e3 for t in (a, b))
print(b.round(1).to_string())
for m in a.index:
    print(
        m, ttest_ind(a.loc[m], b.loc[m], equal_var=False).pvalue.round(2), ttest_rel(a.loc[m], b.loc[m]).pvalue.round(2)
    )
