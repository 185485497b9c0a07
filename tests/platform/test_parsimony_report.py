"""What both experiments' reports share, on tables whose answers are known."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parsecrl.algorithms.latent_study import map_report
from parsecrl.algorithms.latent_study import report_parts as shared
from parsecrl.algorithms.latent_study.map_measures import map_measures
from parsecrl.algorithms.latent_study.model_factory import make_model
from parsecrl.algorithms.latent_study.tables import labelled, map_row, map_table, model_tables
from parsecrl.algorithms.latent_study.worlds import make_vector_world, world_of
from parsecrl.algorithms.reporting.figures import Plot, render_all
from parsecrl.algorithms.reporting.statistics import mean_interval, probability_of_improvement
from parsecrl.algorithms.reporting.study_report import stacked

GRID, TORUS = "parsecrl/Gridworld-v0", "parsecrl/Torus-v0"


def scores(seeds: int = 3, episodes: int = 20) -> pd.DataFrame:
    """Seed s gains 10 + s an episode, of the others 9 + s; twice as much on the torus, and 100 in the end."""
    rows = []
    for scale, env in enumerate((GRID, TORUS), start=1):
        for model, base in (("encoder_only", 9), ("parsimonious", 10), ("beta_vae, vae_beta=1.0", 9)):
            for seed in range(seeds):
                for episode in range(1, episodes + 1):
                    late = 100.0 if episode > 0.9 * episodes else 0.0
                    rows.append((env, model, seed, episode, scale * (base + seed) + late))
    return pd.DataFrame(rows, columns=["env", "model", "seed", "episode", "score"]).sample(frac=1.0, random_state=0)


def test_the_probability_of_improvement_counts_pairs_and_half_the_ties():
    assert probability_of_improvement([1.0, 2.0], [0.0, 2.0]).probability == (1 + 0 + 1 + 0.5) / 4
    sure = probability_of_improvement([5.0, 6.0, 7.0], [1.0, 2.0])
    assert sure == (1.0, 1.0, 1.0)
    a, b = np.random.default_rng(0).normal(1.0, 1.0, 40), np.random.default_rng(1).normal(0.0, 1.0, 40)
    p = probability_of_improvement(a, b)
    assert p.low < 0.76 < p.high  # of normal variables a standard deviation apart: Phi(1 / sqrt(2))
    assert p == probability_of_improvement(a, b)
    q = probability_of_improvement(b, a)
    assert p.probability + q.probability == pytest.approx(1.0)
    assert np.isnan(probability_of_improvement([1.0], [0.0, 0.5]).low)
    with pytest.raises(ValueError, match="two lists of finite scores"):
        probability_of_improvement([], [1.0])


def test_the_table_of_scores():
    rows = shared.score_rows(scores())
    assert [row[:4] for row in rows[:3]] == [
        ("gridworld", "parsimonious", "3", "20"),
        ("gridworld", "beta-VAE, vae_beta=1.0", "3", "20"),
        ("gridworld", "no representation objective", "3", "20"),
    ]
    mean, low, high = mean_interval([400.0, 420.0, 440.0])  # 20 episodes, of which two have 100 more
    assert rows[0][4] == f"{mean:,.1f} [{low:,.1f}, {high:,.1f}]"
    assert rows[0][5].startswith("111.0 [")
    assert rows[0][6] == "-"
    assert rows[1][6].startswith("0.78 [")  # of nine pairs six are won and two are ties
    assert len(rows) == 6
    alone = shared.score_rows(scores(seeds=1))
    assert alone[0][4] == "400.0"
    assert alone[1][6] == "1.00"


def test_what_was_varied_is_compared_with_parsimonious_varied_alike():
    """Seed s of every model totals base + s; parsimonious beats its baselines with beta 0, not with 1."""
    bases = {"parsimonious, beta=0.0": 9, "beta_vae, beta=0.0": 0, "parsimonious, beta=1.0": 0, "beta_vae, beta=1.0": 9}
    rows = [(GRID, model, seed, 1, base + seed) for model, base in bases.items() for seed in range(3)]
    table = pd.DataFrame(rows, columns=["env", "model", "seed", "episode", "score"])
    found = {row[1]: row[6] for row in shared.score_rows(table)}
    assert found == {
        "parsimonious, beta=0.0": "-",
        "parsimonious, beta=1.0": "-",
        "beta-VAE, beta=0.0": "1.00 [1.00, 1.00]",
        "beta-VAE, beta=1.0": "0.00 [0.00, 0.00]",
    }
    assert shared.VARIATION_NOTE in shared.score_note(table)
    assert shared.score_note(table[:0]) == shared.SCORE_NOTE


def test_a_long_curve_is_averaged_over_groups_of_episodes():
    table = scores(episodes=250)
    x, found = shared.curve(shared.of(table, GRID, "parsimonious"))
    assert len(x) == 84
    assert x[0] == 2.0
    assert found[0, 0] == pytest.approx(11.0)
    assert (found[:, 1] < found[:, 0]).all()
    assert (found[:, 0] < found[:, 2]).all()
    x, found = shared.curve(shared.of(scores(), GRID, "parsimonious"))
    np.testing.assert_array_equal(x, np.arange(1, 21))
    assert found[-1, 0] == pytest.approx(111.0)


def test_the_figures_are_drawn(tmp_path: Path):
    parts = []
    for env in (GRID, TORUS):
        world = world_of(make_vector_world({"id": env, "size": 4, "start": [0, 0], "goal": [3, 3]}, 0))
        for kind in ("parsimonious", "encoder_only"):
            for seed in range(2):
                sizes = {"latent_size": 3, "hidden_size": 8, "code_size": 4}
                model = make_model({"kind": kind, **sizes}, world.observations.shape[1], 5, seed)
                visited = np.arange(16 * 5).reshape(16, 5) % 3
                measured = [{"episodes": n, **map_row(map_measures(model, world))} for n in (5, 10)]
                tables = {**model_tables(model, world, visited), "maps": map_table(measured)}
                parts.append(labelled(tables, env=env, model=kind, seed=seed))
    tables = stacked(parts)
    rows = shared.transformation_rows(tables["transformations"])
    assert [row[:2] + row[-1:] for row in rows] == [
        ("gridworld", "parsimonious", "16"),
        ("torus", "parsimonious", "16"),
    ]
    told = map_report.rows(tables["maps"])
    assert [row[:4] for row in told[:3]] == [
        ("gridworld", "parsimonious", "0", "10"),
        ("gridworld", "parsimonious", "1", "10"),
        ("gridworld", "no representation objective", "0", "10"),
    ]
    assert told[0][6:] == ("-", "-")  # of a torus alone
    assert told[-1][6].startswith("(")
    drawn = {
        "curves": (partial(shared.draw_curves, scores()), shared.panels_size(2)),
        "latents": (partial(shared.draw_latents, tables), shared.latents_size(tables)),
        "predictions": (partial(shared.draw_predictions, tables["predictions"]), shared.panels_size(2, 5.6)),
    }
    plots = {name: Plot(draw, size, name, "") for name, (draw, size) in drawn.items()}
    plots |= map_report.plots(tables)
    assert plots.keys() >= {"map_measures", "maps"}
    assert map_report.plots({}) == {}
    for image in render_all(plots, tmp_path, "it").values():
        assert image.light.stat().st_size > 5000
        assert image.dark.stat().st_size > 5000
