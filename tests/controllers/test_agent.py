import json
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file

from parsecrl.algorithms.checkpoints.agent import load_agent, load_matching_weights, read_description, save_agent
from parsecrl.algorithms.controllers import EmbeddedController, FullSpaceController, PlanningAgent

OBS, A = 5, 2
MODEL = {"deterministic_size": 16, "stochastic_size": 4, "hidden_size": 24}
FULL = {"kind": "full", "horizon": 4, "num_samples": 20, "num_elites": 5, "num_iterations": 3}
EMBEDDED = {**FULL, "kind": "embedded", "latent_size": 3, "temperature": 0.7}
DECODER = {"hidden_size": 24}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_agent(controller: dict, seed: int = 0, obs_size: int = OBS, **decoder) -> PlanningAgent:
    torch.manual_seed(seed)
    agent = PlanningAgent(obs_size, A, MODEL, controller, {**DECODER, **decoder})
    agent.model.obs_norm.update(torch.randn(30, obs_size, generator=seeded(seed)))
    return agent


def describe(controller: dict, **decoder) -> dict:
    return {
        "algorithm": "planet",
        "env": {"id": "any", "action_repeat": 1},
        "world_model": MODEL,
        "controller": controller,
        "decoder": {**DECODER, **decoder},
        "env_steps": 12,
    }


def test_kind_chooses_the_controller():
    plain, embedded = make_agent(FULL), make_agent(EMBEDDED)
    assert isinstance(plain.controller, FullSpaceController)
    assert plain.decoder is None
    assert isinstance(embedded.controller, EmbeddedController)
    assert embedded.controller.temperature == 0.7
    assert embedded.decoder.latent_size == 3
    with pytest.raises(ValueError, match=r"one of full, icem, mppi, embedded, or module:function, got 'random'"):
        make_agent({"kind": "random"})


@pytest.mark.parametrize("controller", [FULL, EMBEDDED])
def test_initial_state_is_zero(controller):
    agent = make_agent(controller)
    state = agent.initial_state(3)
    assert {name: tuple(x.shape) for name, x in state.items()} == {
        "h": (3, 16),
        "s": (3, 4),
        "action": (3, A),
        "plan": (3, agent.controller.plan_size),
    }
    assert all((x == 0).all() for x in state.values())


@pytest.mark.parametrize("controller", [FULL, EMBEDDED])
def test_act_filters_plans_and_remembers(controller):
    agent = make_agent({**controller, "warm_start": True})
    state = agent.initial_state(3)
    generator = seeded(0)
    for i in range(3):
        obs = torch.randn(3, OBS, generator=seeded(i))
        belief = agent.update_belief(state, obs)
        action, state = agent.act(state, obs, generator)
        assert action.shape == (3, A)
        assert action.abs().max() <= 1
        assert torch.equal(state["action"], action)
        assert torch.equal(state["h"], belief.h)
        assert torch.equal(state["s"], belief.s)
        assert not any(x.requires_grad for x in state.values())


@pytest.mark.parametrize("controller", [FULL, EMBEDDED])
def test_environments_of_a_batch_act_independently(controller):
    agent = make_agent(controller)
    obs = torch.randn(3, OBS, generator=seeded(0))
    noise = torch.randn(3, 3, 20, agent.controller.plan_size, generator=seeded(1))
    together, _ = agent.act(agent.initial_state(3), obs, noise=noise)
    for b in range(3):
        alone, _ = agent.act(agent.initial_state(1), obs[b : b + 1], noise=noise[:, b : b + 1])
        torch.testing.assert_close(together[b : b + 1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("warm_start", [False, True])
def test_warm_start_is_an_option(warm_start):
    agent = make_agent({**FULL, "warm_start": warm_start})
    obs, state = torch.randn(1, OBS, generator=seeded(0)), agent.initial_state(1)
    noise = torch.randn(3, 1, 20, agent.controller.plan_size, generator=seeded(1))
    moved = {**state, "plan": torch.full_like(state["plan"], 0.9)}
    a, _ = agent.act(state, obs, noise=noise)
    b, _ = agent.act(moved, obs, noise=noise)
    assert torch.equal(a, b) != warm_start


@pytest.mark.parametrize(
    ("controller", "decoder"), [(FULL, {}), (EMBEDDED, {}), (EMBEDDED, {"conditioning": "belief"})]
)
def test_save_and_load_give_the_same_agent(tmp_path, controller, decoder):
    agent = make_agent(controller, **decoder)
    agent.trained.fill_(True)
    save_agent(tmp_path, agent, describe(controller, **decoder))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["agent.json", "agent.safetensors"]
    assert json.loads((tmp_path / "agent.json").read_text())["format"] == 2
    assert set(load_file(tmp_path / "agent.safetensors")) == set(agent.state_dict())
    loaded, description = load_agent(tmp_path)
    assert description["env_steps"] == 12
    assert description["obs_size"] == OBS
    assert not loaded.training
    obs = torch.randn(2, OBS, generator=seeded(3))
    expected, _ = agent.act(agent.initial_state(2), obs, seeded(4))
    actual, _ = loaded.act(loaded.initial_state(2), obs, seeded(4))
    assert torch.equal(expected, actual)
    for name, value in agent.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name]), name


def test_loading_unpickles_nothing(tmp_path, monkeypatch):
    save_agent(tmp_path, make_agent(EMBEDDED), describe(EMBEDDED))

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    monkeypatch.setattr("pickle.load", refuse)
    monkeypatch.setattr("pickle.loads", refuse)
    monkeypatch.setattr("pickle.Unpickler", refuse)
    monkeypatch.setattr("torch.load", refuse)
    load_agent(tmp_path)


def test_saving_over_an_older_checkpoint_replaces_it(tmp_path):
    save_agent(tmp_path, make_agent(FULL, seed=0), describe(FULL))
    newer = make_agent(FULL, seed=1)
    save_agent(tmp_path, newer, describe(FULL))
    loaded, _ = load_agent(tmp_path)
    assert torch.equal(loaded.model.gru.weight_hh, newer.model.gru.weight_hh)


def test_a_folder_without_an_agent_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"agent\.json"):
        read_description(tmp_path)
    with pytest.raises(ValueError, match=r"agent\.json"):
        load_agent(tmp_path / "missing")
    with pytest.raises(ValueError, match=r"agent\.safetensors"):
        load_matching_weights(make_agent(FULL), tmp_path)


def test_another_format_is_an_error_that_names_the_version_that_reads_it(tmp_path):
    save_agent(tmp_path, make_agent(FULL), describe(FULL))
    description = read_description(tmp_path)
    assert description["version"] == version("parsec-rl")
    for change, wrote in (({"version": "0.0.9"}, r"0\.0\.9"), ({}, r"before 0\.1\.0")):
        del description["version"]
        description |= {"format": 7, **change}
        (tmp_path / "agent.json").write_text(json.dumps(description))
        with pytest.raises(ValueError, match=rf"format 7, .* the version that wrote it, parsec-rl {wrote}$"):
            load_agent(tmp_path)


@pytest.mark.parametrize("change", [{"controller": {**FULL, "wings": 2}}, {"world_model": {"legs": 4}}])
def test_settings_of_another_version_are_an_error(tmp_path, change):
    save_agent(tmp_path, make_agent(FULL), {**describe(FULL), **change})
    with pytest.raises(ValueError, match=r"agent\.json describes no agent of this version .*(wings|legs)"):
        load_agent(tmp_path)


def test_damaged_files_are_errors(tmp_path):
    save_agent(tmp_path, make_agent(FULL), describe(FULL))
    (tmp_path / "agent.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"agent\.safetensors"):
        load_agent(tmp_path)
    (tmp_path / "agent.json").write_text("{")
    with pytest.raises(ValueError, match=r"agent\.json"):
        load_agent(tmp_path)


def test_weights_that_contradict_the_description_are_an_error(tmp_path):
    save_agent(tmp_path, make_agent(FULL), describe(EMBEDDED))
    with pytest.raises(ValueError, match=r"decoder.*agent\.json"):
        load_agent(tmp_path)


def test_matching_weights_of_a_full_space_agent_leave_the_decoder(tmp_path):
    source, target = make_agent(FULL, seed=0), make_agent(EMBEDDED, seed=1)
    save_agent(tmp_path, source, describe(FULL))
    decoder = {name: value.clone() for name, value in target.decoder.state_dict().items()}
    kept = load_matching_weights(target, tmp_path)
    assert set(kept) == {f"controller.decoder.{name}" for name in decoder}
    for name, value in source.model.state_dict().items():
        assert torch.equal(value, target.model.state_dict()[name]), name
    for name, value in decoder.items():
        assert torch.equal(value, target.decoder.state_dict()[name]), name


def test_matching_weights_of_an_embedded_agent_include_the_decoder(tmp_path):
    source, target = make_agent(EMBEDDED, seed=0), make_agent(EMBEDDED, seed=1)
    save_agent(tmp_path, source, describe(EMBEDDED))
    assert load_matching_weights(target, tmp_path) == []
    for name, value in source.state_dict().items():
        assert torch.equal(value, target.state_dict()[name]), name


def test_weights_of_another_shape_are_refused_and_nothing_is_copied(tmp_path):
    save_agent(tmp_path, make_agent(FULL, obs_size=OBS + 1), describe(FULL))
    target = make_agent(FULL, seed=1)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"shape \[6\].*\[5\]"):
        load_matching_weights(target, tmp_path)
    for name, value in target.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("part", ["weight", "running statistics"])
def test_nothing_that_is_not_finite_is_stored(tmp_path, part):
    agent = PlanningAgent(3, 1, {"deterministic_size": 8, "stochastic_size": 2, "hidden_size": 8}, {}, {})
    values = dict(agent.named_parameters() if part == "weight" else agent.named_buffers())
    name = next(name for name, value in values.items() if value.is_floating_point() and value.numel() > 1)
    with torch.no_grad():
        values[name].view(-1)[1] = float("nan")
    with pytest.raises(FloatingPointError, match=f"an agent with {name} that is not finite is not stored"):
        save_agent(tmp_path, agent, {})
    assert not list(tmp_path.iterdir())
