"""Measures against models whose answers are known: the true dynamics, and a translation model set by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor

from parsecrl.algorithms.latent_study.map_measures import map_measures
from parsecrl.algorithms.latent_study.measures import latent_map, prediction_errors, transformations_used
from parsecrl.algorithms.latent_study.model_factory import make_model
from parsecrl.algorithms.latent_study.tables import model_tables
from parsecrl.algorithms.latent_study.units import warn_of_units
from parsecrl.algorithms.latent_study.worlds import make_vector_world, world_of
from parsecrl.algorithms.models import LatentDynamics
from parsecrl.algorithms.models.latent_dynamics import DynamicsLoss

GRID, TORUS = "parsecrl/Gridworld-v0", "parsecrl/Torus-v0"
SMALL = {"latent_size": 4, "hidden_size": 16}


def world(id: str = GRID, **options: object):
    found = world_of(make_vector_world({"id": id, **options}, layout_seed=3))
    assert found is not None
    return found


class Coordinates(LatentDynamics):
    """Knows where each cell lies, and moves as if there were no walls."""

    def __init__(self, world, scale: float = 1.0):
        super().__init__(world.observations.shape[1], 5, 3)
        self.table = torch.from_numpy(world.observations)
        self.places = torch.from_numpy(np.column_stack([world.cells, 0 * world.cells[:, :1]])).float() * scale
        self.scale = scale

    def encode(self, obs: Tensor) -> Tensor:
        return self.places[torch.cdist(obs, self.table).argmin(-1)]

    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        steps = torch.tensor([(0, -1, 0), (0, 1, 0), (-1, 0, 0), (1, 0, 0), (0, 0, 0)]).float()
        return state + self.scale * steps[action]

    def loss(self, batch, generator=None) -> DynamicsLoss:
        raise AssertionError("a model that is true needs no training")


def test_the_layout_is_of_the_seed_given_or_of_the_groups_own():
    drawn = world().observations
    np.testing.assert_array_equal(drawn, world().observations)
    other = world_of(make_vector_world({"id": GRID}, layout_seed=4)).observations
    assert not np.array_equal(drawn, other)
    np.testing.assert_array_equal(world(layout_seed=4).observations, other)
    small = world(size=3, start=[0, 0], goal=[2, 2], observation_size=7)
    assert small.observations.shape == (9, 11)
    assert world_of(make_vector_world({"id": "CartPole-v1"}, 0)) is None
    with pytest.raises(ValueError, match=r"must be one that parsecrl.envs registers, got 'parsecrl/Maze-v0'"):
        make_vector_world({"id": "parsecrl/Maze-v0"}, 0)


def test_the_map_is_the_grid_where_the_latents_are():
    here = world(FOUR := "parsecrl/FourRooms-v0")
    found = latent_map(Coordinates(here), here)
    assert found.explained.sum() == pytest.approx(1.0)
    assert found.explained[0] >= found.explained[1]
    # A rotation of the plane: distances are those of the cells.
    for pair in [(0, 5), (3, 90), (40, 41)]:
        expected = np.linalg.norm(here.cells[pair[0]] - here.cells[pair[1]])
        assert np.linalg.norm(found.positions[pair[0]] - found.positions[pair[1]]) == pytest.approx(expected, rel=1e-5)
    assert len(found.positions) == len(world(FOUR).cells) == 104


class Planes(LatentDynamics):
    """Two planes of a torus that turn as K says: a map, or cells at one another's places."""

    def __init__(self, world, k: list[list[int]]):
        super().__init__(world.observations.shape[1], 5, 4)
        self.table = torch.from_numpy(world.observations)
        side = int(world.cells.max()) + 1
        angles = torch.from_numpy(2 * np.pi / side * (world.cells @ np.array(k).T)).float()
        self.places = torch.stack([angles.cos(), angles.sin()], -1).flatten(1)

    def encode(self, obs: Tensor) -> Tensor:
        return self.places[torch.cdist(obs, self.table).argmin(-1)]

    def predict(self, state: Tensor, action: Tensor) -> Tensor:
        raise AssertionError("measures of maps ask for no predictions")

    def loss(self, batch, generator=None) -> DynamicsLoss:
        raise AssertionError("a model that is true needs no training")


def test_all_components_that_hold_variance_are_kept_and_so_are_the_distances():
    here = world(TORUS)
    planes = Planes(here, [[1, 0], [0, 1]])
    found = latent_map(planes, here)
    assert found.positions.shape == (169, 4)
    np.testing.assert_allclose(found.explained, 0.25, atol=1e-6)
    apart = np.linalg.norm(found.positions[0] - found.positions[20])
    assert apart == pytest.approx(float((planes.places[0] - planes.places[20]).norm()), rel=1e-5)


@pytest.mark.parametrize(
    ("k", "ratio", "correlation", "mode"),
    [
        ([[1, 0], [0, 1]], 0.25, 0.99, {(1, 0), (0, 1)}),
        ([[0, -1], [1, 0]], 0.25, 0.99, {(1, 0), (0, 1)}),  # mirrored
        ([[2, 1], [1, -2]], 0.54, -0.11, {(2, 1), (1, -2)}),
    ],
)
def test_measures_of_known_maps_of_the_torus(k, ratio, correlation, mode):
    here = world(TORUS)
    found = map_measures(Planes(here, k), here)
    assert found.neighbour_ratio == pytest.approx(ratio, abs=0.01)
    assert found.correlation == pytest.approx(correlation, abs=0.006)
    assert (found.mode.rows, found.mode.columns) in mode
    assert found.mode.share == pytest.approx(0.5, abs=1e-6)


def test_measures_of_known_maps_of_a_grid():
    here = world(size=5, start=[0, 0], goal=[4, 4])
    found = map_measures(Coordinates(here), here)
    apart = np.linalg.norm(here.cells[:, None] - here.cells[None], axis=-1)
    assert found.neighbour_ratio == pytest.approx(1 / (apart.sum() / (25 * 24)), rel=1e-5)
    assert found.correlation > 0.9
    assert found.mode is None
    scrambled = Coordinates(here)
    scrambled.places = scrambled.places[torch.randperm(25, generator=torch.Generator().manual_seed(0))]
    found = map_measures(scrambled, here)
    assert found.neighbour_ratio == pytest.approx(1.0, abs=0.15)
    assert abs(found.correlation) < 0.2
    assert np.isnan(map_measures(Coordinates(here, scale=0.0), here).correlation)


def test_the_strongest_mode_is_a_waves_own():
    """One plane that turns twice down the rows and three times back along the columns, beside a weaker one."""
    here = world(TORUS, size=8, start=[0, 0], goal=[3, 3])
    planes = Planes(here, [[-2, 3], [1, 0]])
    planes.places[:, 2:] *= 0.5
    found = map_measures(planes, here).mode
    assert (found.rows, found.columns) == (2, -3)
    assert found.share == pytest.approx(0.8, abs=1e-6)


def test_the_true_dynamics_never_err():
    here = world(size=4, start=[0, 0], goal=[3, 3])
    model = make_model({"kind": "true_dynamics"}, 54, 5, seed=0, world=here)
    visited = np.zeros((16, 5), dtype=int)
    visited[:, :3] = 1
    for new in (True, False):
        found = prediction_errors(model, here, visited, new, steps=4, walks=100)
        np.testing.assert_array_equal(found.hits, 1.0)
        np.testing.assert_array_equal(found.relative, 0.0)
        np.testing.assert_array_equal(found.walks, 100)


def test_errors_of_a_model_that_knows_no_walls_are_those_counted_by_hand():
    here = world(size=3, start=[0, 0], goal=[2, 2])
    model = Coordinates(here)
    visited = np.ones((9, 5), dtype=int)
    visited[:, 0] = 0  # LEFT is new: of its nine transitions three run into a wall
    found = prediction_errors(model, here, visited, new=True, steps=1, walks=9)
    assert found.walks[0] == 9
    assert found.hits[0] == 1.0  # a step beyond the wall, the nearest cell is still the right one
    apart = np.linalg.norm(here.cells[:, None] - here.cells[None], axis=-1)
    assert found.relative[0] == pytest.approx((3 / 9) / (apart.sum() / 72), rel=1e-5)
    scaled = prediction_errors(Coordinates(here, scale=7.0), here, visited, new=True, steps=1, walks=9)
    assert scaled.relative[0] == pytest.approx(found.relative[0], rel=1e-5)  # of no unit


def test_only_cells_that_were_seen_count_and_nothing_new_is_nan():
    here = world(size=3, start=[0, 0], goal=[2, 2])
    model = make_model({"kind": "true_dynamics"}, 54, 5, seed=0, world=here)
    nothing_new = prediction_errors(model, here, np.ones((9, 5), dtype=int), new=True, steps=3)
    assert np.isnan(nothing_new.hits).all()
    assert (nothing_new.walks == 0).all()
    visited = np.zeros((9, 5), dtype=int)
    visited[0, 1] = 1  # from (0, 0) to (0, 1): two cells
    found = prediction_errors(model, here, visited, new=True, steps=3, walks=50)
    assert (found.walks == 50).all()  # both cells can be stayed in
    assert (found.hits == 1.0).all()
    with pytest.raises(ValueError, match="a model that predicts"):
        prediction_errors(make_model({"kind": "encoder_only", **SMALL}, 54, 5, 0), here, visited, new=True)


def test_latents_that_fell_together_are_no_hit():
    here = world(size=3, start=[0, 0], goal=[2, 2])
    found = prediction_errors(Coordinates(here, scale=0.0), here, np.ones((9, 5), dtype=int), new=False, steps=1)
    assert found.hits[0] == 0.0


@pytest.mark.parametrize("kind", ["parsimonious", "beta_vae", "encoder_only", "rnn", "ssm"])
def test_every_model_has_tables(kind: str):
    here = world(size=3, start=[0, 0], goal=[2, 2])
    model = make_model({"kind": kind, **SMALL, "beta": 1.0, "vae_beta": 0.1, "code_size": 5}, 54, 5, seed=1)
    visited = np.ones((9, 5), dtype=int)
    visited[:, 4] = 0
    tables = model_tables(model, here, visited)
    assert len(tables["latents"]) == 9
    assert len(tables["edges"]) == 12
    used = transformations_used(model, here)
    if kind == "parsimonious":
        assert ((used >= 1) & (used <= 9)).all()
        model.posterior_net[-1].weight.data.zero_()  # which no longer depends on the latent
        np.testing.assert_array_equal(transformations_used(model, here), 1.0)
    assert len(tables["transformations"]) == (5 if kind in ("parsimonious", "beta_vae", "ssm") else 0)
    expected = 0 if kind == "encoder_only" else 10
    assert len(tables["predictions"]) == expected


def test_models_are_their_seeds_and_take_what_is_theirs():
    def weights(**settings: object) -> Tensor:
        model = make_model({"kind": "beta_vae", **SMALL, **settings}, 6, 5, seed=2)
        return torch.cat([p.flatten() for p in model.parameters()])

    torch.manual_seed(9)
    assert torch.equal(weights(), weights(beta=3.0, constraint="kl"))  # others' settings
    assert make_model({"kind": "beta_vae", "vae_beta": 0.7, **SMALL}, 6, 5, 0).beta == 0.7
    both = {"transformation": "translation", "baseline_transformation": "rotation", **SMALL}
    kinds = ("parsimonious", "beta_vae", "rnn", "ssm")
    found = {kind: make_model({"kind": kind, **both}, 6, 5, 0).transformation for kind in kinds}
    assert found == {"parsimonious": "translation", "beta_vae": "rotation", "rnn": "rotation", "ssm": "rotation"}
    assert make_model({"kind": "parsimonious", "beta": 0.7, **SMALL}, 6, 5, 0).objective.beta == 0.7
    for chosen in ({"kind": "parsimonious", "stochastic": True}, {"kind": "parsimonious_stochastic"}):
        stochastic = make_model({**chosen, **SMALL}, 6, 5, 0)
        assert stochastic.stochastic
        assert stochastic.objective.diversity == "reconstruction"
    with pytest.raises(ValueError, match=r"model\.kind must be one of .*, got 'gru'"):
        make_model({"kind": "gru"}, 6, 5, 0)
    with pytest.raises(ValueError, match="needs a grid world"):
        make_model({"kind": "true_dynamics"}, 6, 5, 0)


@pytest.mark.parametrize(("unit", "warned"), [(1.0, False), (1e-4, True), (1e4, True)])
def test_observations_in_an_unsuitable_unit_are_warned_of(unit, warned, caplog):
    observations = world().observations * unit
    assert warn_of_units(observations, GRID) == warned
    assert caplog.text.count("Gridworld-v0 have a root mean square of") == warned
