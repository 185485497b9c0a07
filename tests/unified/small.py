"""A small run on a small task: ten decisions an episode."""

from parsecrl.algorithms.unified.settings import UnifiedSettings
from parsecrl.algorithms.unified.unified import UnifiedConfig
from tests.planet.small import EMBEDDED, PENDULUM, SMALL_MODEL, VALUE

SMALL = {
    **{"world_model": SMALL_MODEL, "controller": EMBEDDED, "value": VALUE, "value_gradient": {"beliefs": 3}},
    "loss": {"free_nats": 0.0},  # a divergence that costs nothing gives the prior no gradient
    **{"batch_size": 4, "batch_length": 6, "seed_episodes": 2, "rollout_fragment_length": 5, "train_ratio": 0.01},
}


def small_config(resources=None, seed=0, start_from=None, env=PENDULUM, **phase):
    settings = UnifiedSettings.checked({**SMALL, "start_from": start_from, **phase})
    config = UnifiedConfig.from_phase(settings, env, resources or {}, seed, start_from)
    config.decisions_per_iteration = 10
    return config
