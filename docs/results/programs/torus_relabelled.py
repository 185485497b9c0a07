"""All relabellings of a torus of 13 x 13 cells: what tells them apart, and a picture of three.

python docs/results/programs/torus_relabelled.py; writes docs/images/torus_maps.png.
"""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from scipy.stats import spearmanr

SIDE = 13
MOVES = np.array([(0, -1), (0, 1), (-1, 0), (1, 0), (0, 0)])
cells = np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij"), -1).reshape(-1, 2)
entries = np.stack(np.meshgrid(*[np.arange(SIDE)] * 4, indexing="ij"), -1).reshape(-1, 2, 2)
all_k = entries[(entries[:, 0, 0] * entries[:, 1, 1] - entries[:, 0, 1] * entries[:, 1, 0]) % SIDE != 0]


def chord(turns: np.ndarray) -> np.ndarray:
    """Latent distance [...] of points whose two planes differ by these turns of 2 pi / 13, [..., 2]."""
    return np.linalg.norm(2 * np.sin(np.pi * turns / SIDE), axis=-1)


pairs = chord(cells[1:]).mean()  # of a cell with all others: the same for each cell and each K
ratio = chord(np.einsum("kij,aj->kai", all_k, MOVES[1:4:2])).mean(1) / pairs
ways = np.minimum(cells, SIDE - cells).sum(1)[1:]  # moves from cell 0 to each other
latent = chord(np.einsum("kij,sj->ksi", all_k, cells[1:]) % SIDE)
correlation = np.array([spearmanr(row, ways).statistic for row in latent])
back = np.einsum("kij,aj->kai", all_k, MOVES) % SIDE
movement = (2 * np.pi / SIDE * np.minimum(back, SIDE - back)) ** 2
movement = movement.sum((1, 2)) / len(MOVES)
print(len(all_k), "relabellings")
for name, found in (("neighbour ratio", ratio), ("correlation", correlation), ("movement, rad^2", movement)):
    print(f"{name:16}", *(f"{q:g}: {np.quantile(found, q):.2f}" for q in (0, 0.05, 0.5, 0.95, 1)), sep="   ")
print("as smooth as the map", f"{np.mean(np.isclose(ratio, ratio.min())):.2%}")
print("neighbour ratio 0.40 or less", f"{np.mean(ratio <= 0.4):.2%}")
shown = {
    "K = (1, 0; 0, 1), the map": [[1, 0], [0, 1]],
    "K = (2, 1; 1, -2)": [[2, 1], [1, -2]],
    "K = (5, 3; 2, 6)": [[5, 3], [2, 6]],
}
figure = Figure(figsize=(10.5, 3.9), dpi=110, layout="constrained")
FigureCanvasAgg(figure)
colors = hsv_to_rgb(
    np.column_stack([0.02 + 0.75 * cells[:, 1] / 12, np.full(len(cells), 0.75), 0.45 + 0.5 * cells[:, 0] / 12])
)
for axes, (name, k) in zip(figure.subplots(1, 3), shown.items(), strict=True):
    at = cells @ np.array(k).T % SIDE
    i = int(np.flatnonzero((all_k == np.array(k) % SIDE).all((1, 2)))[0])
    print(f"{name}: neighbour ratio {ratio[i]:.2f}, correlation {correlation[i]:.2f}, movement {movement[i]:.2f} rad^2")
    inside = [(s, int((c + m) @ (SIDE, 1))) for m in MOVES[1:4:2] for s, c in enumerate(cells) if (c + m < SIDE).all()]
    axes.add_collection(LineCollection([[at[a], at[b]] for a, b in inside], colors="#6b7280", lw=0.5, alpha=0.5))
    axes.scatter(at[:, 0], at[:, 1], s=30, c=colors, zorder=3)
    axes.set(
        title=name, xlabel=f"neighbour ratio {ratio[i]:.2f}, correlation {correlation[i]:.2f}", xticks=[], yticks=[]
    )
    axes.title.set_fontsize(10)
figure.savefig("docs/images/torus_maps.png")
