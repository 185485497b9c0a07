"""The settings in Python: names and ranges are checked by training(), rules between them by validate()."""

import pytest
from ray import tune

from parsecrl.algorithms.dcem_ppo.dcem_ppo import DCEMPPOConfig
from parsecrl.algorithms.latent_sac.latent_sac import LatentSACConfig
from parsecrl.algorithms.planet.planet import PlanetConfig

CONFIGS = (PlanetConfig, DCEMPPOConfig, LatentSACConfig)


@pytest.mark.parametrize("config", CONFIGS)
def test_defaults_are_those_of_the_settings(config):
    made = config()
    for name, default in config.settings.defaults().items():
        if name not in config.elsewhere:
            assert getattr(made, config.attributes.get(name, name)) == default


def test_training_sets_what_it_is_given():
    config = PlanetConfig().training(train_ratio=0.2, controller={"kind": "embedded", "horizon": 5}, grad_clip=1.0)
    assert (config.train_ratio, config.grad_clip) == (0.2, 1.0)
    assert (config.controller["horizon"], config.controller["temperature"]) == (5, 1.0)
    assert LatentSACConfig().training(model={"beta": 0.5}).latent_model["beta"] == 0.5
    assert DCEMPPOConfig().training(std={"learned": True}).std == {"value": 0.1, "learned": True}


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (PlanetConfig, {"train_ration": 0.2}, "train_ration is not a known key; did you mean 'train_ratio'"),
        (PlanetConfig, {"controller": {"kind": "full", "horizn": 3}}, r"controller\.horizn .* 'horizon'"),
        (PlanetConfig, {"train_ratio": -1.0}, r"train_ratio must be greater than 0, got -1\.0"),
        (PlanetConfig, {"batch_size": 2.5}, "batch_size must be a valid integer"),
        (PlanetConfig, {"controller": {"kind": "full", "num_elites": 9999}}, "num_elites must lie in"),
        (PlanetConfig, {"lr": 1e-3}, "no effect on Planet; set learning_rate or decoder_learning_rate"),
        (PlanetConfig, {"gamma": 0.9}, "gamma is RLlib's, .*; leave it out"),
        (DCEMPPOConfig, {"clip_param": 0.1}, "clip_param is RLlib's, and has no effect on DCEMPPO; set clip$"),
        (DCEMPPOConfig, {"gamma": 0.9}, "set discount$"),
        (DCEMPPOConfig, {"fine_tune": ["rewad"]}, "did you mean 'reward'"),
        (DCEMPPOConfig, {"fine_tune": ["reward", "reward"]}, "names one twice: reward, reward; name each once"),
        (LatentSACConfig, {"alpha": 0.0}, "alpha must be greater than 0"),
        (LatentSACConfig, {"lr": 0.1}, "set policy_learning_rate or dynamics_learning_rate or alpha_learning_rate"),
        (LatentSACConfig, {"seed": 3}, r"use debugging\(seed=...\)"),
        (LatentSACConfig, {"world": {}}, r"use environment\(\)"),
    ],
)
def test_mistakes_are_named(config, settings, message):
    with pytest.raises(ValueError, match=message):
        config().training(**settings)


@pytest.mark.parametrize("config", [PlanetConfig, LatentSACConfig])
def test_a_misspelt_attribute_is_refused(config):
    made = config()
    made.batch_sise = 3
    with pytest.raises(ValueError, match="has no setting 'batch_sise'; did you mean 'batch_size'"):
        made.validate()


def test_rules_between_settings_wait_for_validate():
    config = PlanetConfig().training(decoder_training="offline")
    with pytest.raises(ValueError, match=r"set start_from and keep_replay: true"):
        config.validate()
    config = PlanetConfig()
    config.train_ratio = -1.0
    with pytest.raises(ValueError, match="train_ratio must be greater than 0"):
        config.validate()


def test_tune_may_draw_a_setting():
    config = PlanetConfig().training(
        learning_rate=tune.grid_search([1e-3, 1e-4]),
        controller={"kind": "full", "horizon": tune.choice([3, 5])},
        batch_size=4,
    )
    assert config.learning_rate == {"grid_search": [1e-3, 1e-4]}
    assert config.batch_size == 4
    with pytest.raises(ValueError, match="must be a valid"):
        config.validate()


def test_a_subclass_may_have_attributes_of_its_own():
    class Mine(PlanetConfig):
        def __init__(self, algo_class=None):
            super().__init__(algo_class)
            self.mine = 3

    Mine().validate()


@pytest.mark.parametrize("config", CONFIGS)
def test_a_config_comes_back_from_the_dict_that_tune_has(config):
    made = config().training(batch_size=7) if hasattr(config(), "batch_size") else config()
    again = config().update_from_dict(made.to_dict() | {"__stdout_file__": None, "__stderr_file__": None})
    own = [config.attributes.get(name, name) for name in config.settings.model_fields if name not in config.elsewhere]
    assert {name: getattr(again, name) for name in own} == {name: getattr(made, name) for name in own}
    assert again.model == made.model
    state = config.from_state(made.get_state())  # as RLlib makes the config of an algorithm
    assert {name: getattr(state, name) for name in own} == {name: getattr(made, name) for name in own}
    if config is not DCEMPPOConfig:  # which needs an agent
        again.validate()
        state.validate()
