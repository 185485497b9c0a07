"""A small phase on a small task: ten decisions an episode."""

from contextlib import contextmanager

import torch

from parsecrl.algorithms.planet.planet import PlanetConfig
from parsecrl.algorithms.planet.settings import PlanetSettings

PENDULUM = {"id": "Pendulum-v1", "action_repeat": 20}
SMALL_MODEL = {"deterministic_size": 12, "stochastic_size": 4, "hidden_size": 16}
FULL = {"kind": "full", "horizon": 3, "num_samples": 8, "num_elites": 2, "num_iterations": 2}
VALUE = {"hidden_size": 8, "num_policy_candidates": 3, "imagined_beliefs": 6, "imagined_steps": 2}
EMBEDDED = {**FULL, "kind": "embedded", "latent_size": 2}


def small_config(controller=EMBEDDED, resources=None, start_from=None, seed=0, env=PENDULUM, **phase):
    phase = {"world_model": SMALL_MODEL, "controller": controller, "batch_size": 4, "batch_length": 6, **phase}
    phase.setdefault("seed_episodes", 2)
    phase.setdefault("rollout_fragment_length", 5)
    phase.setdefault("train_ratio", 0.01)
    settings = PlanetSettings.checked({"start_from": start_from and str(start_from), **phase})
    return PlanetConfig.from_phase(settings, env, resources or {}, seed, start_from)


@contextmanager
def stopped_at_the_end():
    """Builds algorithms from their configs, and stops them."""
    algorithms = []

    def build(config):
        algorithms.append(config.build_algo())
        return algorithms[-1]

    yield build
    for algorithm in algorithms:
        algorithm.stop()


def weights(algorithm) -> dict[str, torch.Tensor]:
    return algorithm.current_agent().state_dict()


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train(algorithm, iterations=4):
    return [algorithm.train() for _ in range(iterations)][-1]
