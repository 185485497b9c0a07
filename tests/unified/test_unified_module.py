"""Settings, gradient paths and updates of unified; no Ray runtime."""

import gymnasium
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns

from parsecrl.algorithms.planet.planet_rl_module import DECODER_ONLY, INITIAL_OBS
from parsecrl.algorithms.unified.unified_rl_module import UnifiedRLModule, check_reached
from parsecrl.envs import make_env
from tests.planet.small import EMBEDDED, FULL, PENDULUM, VALUE
from tests.planet.test_planet_module import small_batch, update
from tests.planet.test_planet_module import small_module as planet_module
from tests.unified.small import small_config

ALL = ["likelihood", "value", "decoder", "value_gradient"]


def small_module(losses=ALL, **phase) -> UnifiedRLModule:
    """A module; what the settings refuse without start_from is set behind them."""
    config = small_config(**phase)
    with make_env(**PENDULUM) as env:
        config.validate()
        module = config.get_rl_module_spec(env=env).build()
    assert isinstance(module, UnifiedRLModule)
    module.model_config = {**module.model_config, "losses": losses}
    for net in (module.agent.actor_critic.critic, module.agent.actor_critic.actor):
        torch.nn.init.normal_(net[-1].weight)  # new ones let no gradient through
    return module


def reached(module) -> set[str]:
    """Parts with a gradient that is not 0."""
    found = set()
    for name, p in module.agent.named_parameters():
        if p.grad is not None and (p.grad != 0).any():
            found.add(".".join(name.split(".")[:2]))
    return found


MODEL = {"gru", "prior_net", "posterior_net", "obs_net", "reward_net"}
PATHS = {
    "likelihood": {f"model.{name}" for name in MODEL},
    "value": {"actor_critic.critic", "actor_critic.actor"},
    "decoder": {"controller.decoder"},
}


@pytest.mark.parametrize("loss", PATHS)
def test_each_loss_moves_exactly_its_parts(loss):
    module = small_module([loss])
    out = module._forward_train(small_batch())
    out["loss"].backward()
    assert reached(module) == PATHS[loss]
    assert ("model_loss" in out["terms"]) == (loss == "likelihood")
    assert ("critic_loss" in out["terms"]) == (loss == "value")
    assert ("decoder_loss" in out["terms"]) == (loss == "decoder")
    assert "policy_loss" not in out["terms"]


@pytest.mark.parametrize(
    ("part", "moved"),
    [
        ("reward", {"model.reward_net"}),
        ("transition", {"model.gru", "model.prior_net"}),
        ("decoder", {"controller.decoder"}),
    ],
)
def test_the_value_gradient_moves_exactly_its_parts(part, moved):
    module = small_module(["value_gradient"], value_gradient={"beliefs": 3, "parts": [part]})
    out = module._forward_train(small_batch())
    out["loss"].backward()
    assert reached(module) == moved
    assert {"policy_loss", "policy_value"} == out["terms"].keys() - {"reward_explained_variance"}
    assert float(out["loss"].detach()) == pytest.approx(float(out["terms"]["policy_loss"]))


@pytest.mark.parametrize(("obs_unit", "reward_unit"), [(1e4, 1.0), (1e-4, 1.0), (1.0, 1e4), (1.0, 1e-3)])
def test_no_gradient_depends_on_the_units_of_the_task(obs_unit, reward_unit):
    gradients = []
    for units in ((1.0, 1.0), (obs_unit, reward_unit)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            module = small_module()
        batch = small_batch()
        for name, unit in ((Columns.OBS, units[0]), (INITIAL_OBS, units[0]), (Columns.REWARDS, units[1])):
            batch[name] *= unit
        module._forward_train(batch)["loss"].backward()
        gradients.append({name: p.grad for name, p in module.agent.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0.01, atol=1e-4 * float(gradient.abs().max()))


def test_the_losses_add_up_and_the_weight_counts():
    """What comes before draws the same numbers, so that the value gradient's share can be taken off."""
    batch, losses = small_batch(), {}
    for name, weight in {"none": None, "one": 1.0, "three": 3.0}.items():
        module = small_module(ALL if weight else ALL[:3], value_gradient={"beliefs": 3, "weight": weight or 1.0})
        torch.manual_seed(0)
        for net in (module.agent.actor_critic.critic, module.agent.actor_critic.actor):
            torch.nn.init.normal_(net[-1].weight)
        out = module._forward_train(batch)
        losses[name] = float(out["loss"].detach()), out["terms"].get("policy_loss")
    assert losses["one"][0] - losses["none"][0] == pytest.approx(float(losses["one"][1]), rel=1e-3)
    assert losses["three"][0] - losses["none"][0] == pytest.approx(3 * float(losses["one"][1]), rel=1e-3)


def test_an_update_of_the_decoder_alone_is_planets():
    module, batch = small_module(), small_batch()
    batch[DECODER_ONLY][:] = True
    module._forward_train(batch)["loss"].backward()
    assert reached(module) == {"controller.decoder"}


def test_several_learners_need_not_use_every_part_in_every_batch(tmp_path):
    """As RLlib wraps the module of each of them."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        module = small_module()
        wrapped = torch.nn.parallel.DistributedDataParallel(module)
        for _ in range(2):
            module.zero_grad()
            wrapped(small_batch())["loss"].backward()
            assert all(p.grad is not None for p in module.parameters() if p.requires_grad)
        # Before the group ends: what holds it last waits for its threads, and they for the interpreter's lock.
        del wrapped
    finally:
        torch.distributed.destroy_process_group()


def test_an_update_moves_every_part_at_once():
    config = small_config()
    env = gymnasium.make("parsecrl.envs:parsecrl/Control-v0", env_id="Pendulum-v1", action_repeat=20)
    learner = config.build_learner(env=env)
    env.close()
    agent = learner.module[DEFAULT_MODULE_ID].unwrapped().agent
    before = {name: p.detach().clone() for name, p in agent.named_parameters()}
    for _ in range(2):  # the first moves the last layers of critic and actor alone, which begin at 0
        update(learner)
    still = {name for name, p in agent.named_parameters() if torch.equal(p, before[name])}
    assert {".".join(name.split(".")[:2]) for name in still} == {"model.continuation_net"}
    assert agent.trained


def test_without_the_value_gradient_it_is_planet_to_the_bit():
    module = small_module(ALL[:3])
    theirs = planet_module(value=VALUE, loss={"free_nats": 0.0})
    theirs.agent.load_state_dict(module.agent.state_dict())
    out, expected = module._forward_train(small_batch()), theirs._forward_train(small_batch())
    assert out["terms"].keys() == expected["terms"].keys()
    assert torch.equal(out["loss"], expected["loss"])


REFUSED = {
    "losses must leave out decoder and value_gradient where controller.kind is full": {"controller": FULL},
    "losses must leave out decoder where controller.kind is full": {
        "controller": FULL,
        "losses": ["likelihood", "decoder"],
        "value": "none",
    },
    "value_gradient.parts must be \\[decoder\\] where controller.temperature is 0": {
        "controller": {**EMBEDDED, "temperature": 0}
    },
    "losses must leave out value where value is none": {"value": "none"},
    "losses must leave out value_gradient where value is none": {
        "value": "none",
        "losses": ["likelihood", "decoder", "value_gradient"],
    },
    "losses must have likelihood unless start_from": {"losses": ["value", "decoder"]},
    "losses must have value unless start_from": {"losses": ["likelihood", "decoder"]},
    "losses must have decoder unless start_from": {"losses": ["likelihood", "value"]},
    "names one twice": {"losses": ["likelihood", "likelihood"]},
    "decoder_training must not be offline": {"decoder_training": "offline", "start_from": "planet"},
    "losses must have decoder with decoder_warmup_updates": {
        "losses": ["likelihood", "value", "value_gradient"],
        "decoder_anchor": 1.0,
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_go_together_is_refused_in_a_sentence(message):
    with pytest.raises(ValueError, match=message) as error:
        small_config(**REFUSED[message])
    assert ";" in str(error.value)


def test_each_loss_can_be_left_out():
    for left_out in ALL:
        losses = [loss for loss in ALL if loss != left_out]
        small_config(losses=losses, start_from="earlier")
    small_config(losses=["likelihood", "value", "value_gradient"])  # the value gradient trains the decoder
    small_config(losses=["likelihood", "value"], controller=FULL)
    small_config(losses=["likelihood", "decoder"], value="none")


def test_a_controller_that_lets_no_gradient_through_is_refused():
    module = small_module()
    agent = module.agent
    check_reached(agent, ALL, ["reward", "decoder"])
    agent.controller.temperature = 0.0
    check_reached(agent, ALL, ["decoder"])
    with pytest.raises(ValueError, match=r"value_gradient.parts must name what .* got \['reward'\].* has decoder;"):
        check_reached(agent, ALL, ["reward"])
