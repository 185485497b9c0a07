"""Totals of the runs none_float32 and none_bfloat16, and how likely they differ by chance."""

import pandas as pd
from scipy.stats import ttest_ind, ttest_rel

a, b = (pd.read_csv(f"runs/none_{precision}/analysis/gridworld/scores.csv") for precision in ("float32", "bfloat16"))
for t in (a, b):
    print(t[t.episode > 50].groupby("seed").score.apply(lambda score: 100 * (score < 0).mean()).round().to_dict())
a, b = (t.groupby("seed")["score"].sum() / 1e3 for t in (a, b))
print(
    a.round(1).to_dict(),
    a.mean(),
    b.round(1).to_dict(),
    b.mean(),
    a.corr(b),
    ttest_ind(a, b, equal_var=False).pvalue,
    ttest_rel(a, b).pvalue,
)
