"""Of the committed sweep: paired differences of totals, and the strongest plane wave of each torus."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr, t

root = "docs/results/parsimony_sac/analysis"
for world in ("gridworld", "torus", "four_rooms"):
    totals = pd.read_csv(f"{root}/{world}/scores.csv").groupby(["model", "seed"]).score.sum().unstack("model")
    for other in ("beta_vae", "encoder_only"):
        d = totals["parsimonious"] - totals[other]
        half = t.ppf(0.975, len(d) - 1) * d.sem()
        seen = (t.ppf(0.975, len(d) - 1) + t.ppf(0.8, len(d) - 1)) * d.sem()
        print(
            f"{world:10} less {other:12} {d.mean():9,.0f} [{d.mean() - half:9,.0f}, {d.mean() + half:9,.0f}]  "
            f"wins {(d > 0).sum()} of {len(d)}  seen with a power of 0.8: {seen:7,.0f}"
        )
latents = pd.read_csv(f"{root}/torus/latents.csv")
for (model, seed), part in latents.groupby(["model", "seed"]):
    z = part.sort_values("state")[["pc_1", "pc_2"]].to_numpy().reshape(13, 13, 2)
    power = (np.abs(np.fft.fft2(z, axes=(0, 1))) ** 2).sum(-1)
    both = power + np.roll(power[::-1, ::-1], 1, (0, 1))
    mode = tuple(int(k) - 13 * int(k > 6) for k in np.unravel_index(both.argmax(), both.shape))
    cells = part.sort_values("state")[["row", "column"]].to_numpy()
    i, j = np.triu_indices(169, 1)
    apart = np.abs(cells[i] - cells[j])
    moves = np.minimum(apart, 13 - apart).sum(1)
    flat = z.reshape(-1, 2)
    rho = spearmanr(np.linalg.norm(flat[i] - flat[j], axis=1), moves).statistic
    held = part.explained_1.iloc[0] + part.explained_2.iloc[0]
    print(
        f"{model:12} {seed} mode {max(mode, (-mode[0], -mode[1]))!s:>8} {both.max() / power.sum():.2f} of the plane, "
        f"which holds {held:.2f}; correlation {rho:.2f}"
    )
