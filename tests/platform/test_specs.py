import copy

import pytest
import yaml

from parsecrl.platform.errors import UserError
from parsecrl.platform.specs import bundled_specs, chains_of, differences, dump, load_spec, parse_spec, plan_rows

SMALL = """
name: small
env: {id: dm_control/cheetah-run-v0, action_repeat: 4}
phases:
  - name: planet
    algorithm: planet
    controller: {kind: full, horizon: 12}
    world_model: {hidden_size: 20}
    stop: {env_steps: 100}
  - name: embed
    algorithm: planet
    start_from: planet
    controller: {kind: embedded}
    search: {controller.num_iterations: {grid: [3, 5]}, keep_model: {grid: [true, false]}}
    stop: {env_steps: 100, time_s: 60}
  - name: finetune
    algorithm: dcem_ppo
    start_from: embed
    search: {fine_tune: {grid: [[reward], [reward, decoder]]}, learning_rate: {loguniform: [1.0e-5, 1.0e-4]}}
    stop: {ppo_steps: 3}
"""


@pytest.fixture
def spec_file(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(SMALL)
    return file


@pytest.mark.parametrize("name", list(bundled_specs()))
def test_bundled_specs_are_valid_and_say_their_name(name):
    assert load_spec(name).name == name.removeprefix("ablations/")


def test_the_specs_of_the_paper_state_every_setting_of_appendix_d():
    for name, repeat, steps in [("cheetah_run", 4, 2_000_000), ("walker_walk", 2, 4_000_000)]:
        spec = load_spec(name)
        planet, embed, finetune = spec.phases
        assert spec.env.action_repeat == repeat
        assert planet.stop.env_steps == steps
        full, embedded = planet.controller, embed.controller
        assert (full.horizon, full.num_samples, full.num_elites, full.num_iterations) == (12, 1000, 100, 10)
        assert (embedded.horizon, embedded.num_samples, embedded.num_elites, embedded.temperature) == (12, 100, 10, 1.0)
        assert (planet.batch_size, planet.batch_length, planet.seed_episodes) == (50, 50, 5)
        assert (planet.world_model.deterministic_size, planet.world_model.hidden_size) == (200, 200)
        assert (finetune.episodes_per_step, finetune.std.value) == (10, 0.1)
        assert spec.evaluate.episodes == 100


def test_the_grids_of_the_paper():
    sizes = {}
    for name in ("ablations/cheetah_run_phase2", "ablations/walker_walk_phase3"):
        count = 1
        for domain in load_spec(name).phases[-1].search.values():
            count *= len(domain.values)
        sizes[name] = count
    assert list(sizes.values()) == [3 * 2 * 2, 3 * 7 * 2 * 2]


def test_defaults_are_filled_in_and_a_dump_reads_back_the_same(spec_file, tmp_path):
    spec = load_spec(spec_file)
    again = tmp_path / "again.yaml"
    again.write_text(dump(spec))
    assert load_spec(again) == spec
    printed = yaml.safe_load(dump(spec))
    assert printed["phases"][0]["batch_size"] == 50
    assert printed["phases"][0]["start_from"] is None
    assert printed["evaluate"]["phases"] == ["planet", "embed", "finetune"]


def test_a_phase_that_keeps_a_model_has_its_sizes(spec_file):
    planet, embed, _ = load_spec(spec_file).phases
    assert embed.world_model == planet.world_model
    assert embed.world_model.hidden_size == 20


@pytest.mark.parametrize(
    ("override", "get", "value"),
    [
        ("phases.planet.stop.env_steps=7", lambda s: s.phases[0].stop.env_steps, 7),
        ("phases.1.stop.env_steps=7", lambda s: s.phases[1].stop.env_steps, 7),
        ("phases.planet.learning_rate=3e-4", lambda s: s.phases[0].learning_rate, 3e-4),
        ("phases.planet.loss.free_nats=2", lambda s: s.phases[0].loss.free_nats, 2),
        ("evaluate.phases=[embed]", lambda s: s.evaluate.phases, ["embed"]),
        ("phases.embed.keep_replay=no", lambda s: s.phases[1].keep_replay, False),
        (
            "phases.embed.search.controller.num_iterations.grid=[4]",
            lambda s: s.phases[1].search["controller.num_iterations"].values,
            [4],
        ),
        ("phases.finetune.search={}", lambda s: s.phases[2].search, {}),
        ("phases.*.checkpoint_every=7", lambda s: [phase.checkpoint_every for phase in s.phases], [7, 7, 7]),
    ],
)
def test_overrides(spec_file, override, get, value):
    assert get(load_spec(spec_file, [override])) == value


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("phases.planet.controller.horizn=3", ["phases.planet.controller.horizn", "did you mean 'horizon'"]),
        ("phases.planet.horizon=3", ["did you mean 'controller.horizon'"]),
        ("evalute.episodes=3", ["evalute", "did you mean 'evaluate'"]),
        ("resources.num_env_runner=1", ["did you mean 'num_env_runners'"]),
        ("phases.planet.controller.horizon=abc", ["phases.planet.controller.horizon", "integer", "'abc'"]),
        ("phases.embed.batch_length=11", ["at least controller.horizon", "got 11 with horizon=12"]),
        ("phases.planet.controller.horizon=-1", ["greater than or equal to 1", "-1"]),
        ("phases.planet.controller.num_elites=2000", ["num_elites must lie in [1, num_samples)", "2000", "1000"]),
        ("phases.planet.controller.kind=fll", ["must be one of full, icem, mppi, embedded", "fll"]),
        ("phases.planet.algorithm=plant", ["must be one of cartpole_embedding, dcem_ppo", "did you mean 'planet'"]),
        ("phases.planet.learning_rate=.inf", ["learning_rate", "finite"]),
        ("phases.planet.keep_replay=1", ["keep_replay", "boolean"]),
        ("phases.planet.stop={}", ["stop", "env_steps, num_updates, time_s"]),
        ("phases.planet.stop={ppo_steps: 3}", ["ppo_steps is not a known key"]),
        ("phases.embed.start_from=plane", ["start_from must name an earlier phase (planet)", "'plane'"]),
        ("phases.embed.start_from=finetune", ["start_from must name an earlier phase (planet)"]),
        ("phases.embed.start_from=embed", ["start_from must name an earlier phase (planet)"]),
        ("phases.finetune.start_from=planet", ["embedded controller", "'full'"]),
        ("resources.num_learners=2", ["num_learners must be 0 or 1", "phases.finetune", "got 2"]),
        ("phases.embed.name=planet", ["different names", "'planet'"]),
        ("phases.planet.name=random", ["cannot be called 'random'"]),
        ("phases.embed.world_model.hidden_size=30", ["world_model must equal that of 'planet'"]),
        ("phases.planet.decoder_training=offline", ["offline", "start_from"]),
        ("phases.embed.decoder_proposals={}", ["decoder_anchor=0", "above 0"]),
        ("phases.embed.decoder_proposals.num_sample=3", ["decoder_proposals", "did you mean 'num_samples'"]),
        ("phases.finetune.fine_tune=[rewad]", ["did you mean 'reward'"]),
        ("phases.finetune.fine_tune=[reward, reward]", ["twice"]),
        ("phases.embed.search.controller.num_iteration.grid=[3]", ["did you mean 'controller.num_iterations'"]),
        ("phases.embed.search.stop.env_steps.grid=[3]", ["can be searched"]),
        ("phases.embed.search.controller.num_iterations.grid=[3, 0]", ["num_iterations=0", "greater than or equal"]),
        ("phases.embed.search.controller.num_elites.grid=[10, 100]", ["num_elites=100", "num_samples"]),
        ("phases.embed.search.learning_rate.uniform=[2, 1]", ["low < high"]),
        ("phases.embed.search.learning_rate={grid: [1.0], choice: [1.0]}", ["exactly one of", "grid and choice"]),
        ("evaluate.phases=[a]", ["evaluate.phases must name phases", "'a'"]),
        ("evaluate.episodes=0", ["evaluate.episodes", "0"]),
        ("phases.nope.train_ratio=3", ["no phase 'nope'", "planet, embed, finetune"]),
        ("phases.planet=3", ["must name a key of the phase"]),
        ("phases.*=3", ["must name a key of the phase"]),
        ("phases.*.train_ration=0.1", ["phases.planet.train_ration", "did you mean 'train_ratio'"]),
        ("nothing", ["key=value"]),
        ("env.id.x=3", ["env.id is a value"]),
        ("env=3", ["env must be a group of keys"]),
        (
            "phases.embed.controller.temperature=0",
            ["phases.finetune.fine_tune", "[decoder]", "'embed'", "temperature 0"],
        ),
        ("runtime.env_vars={WANDB_API_KEY: x}", ["no secrets", "WANDB_API_KEY"]),
        ("runtime.env_vars={SIGNING_KEY: x}", ["no secrets", "SIGNING_KEY"]),
        ("runtime.env_vars={BASH_ENV: '$(touch pwned)'}", ["run other code", "BASH_ENV"]),
        ("runtime.env_vars={LD_PRELOAD: x.so}", ["run other code", "LD_PRELOAD"]),
        ("runtime.env_vars={PYTHONSTARTUP: x.py}", ["run other code", "PYTHONSTARTUP"]),
        ("runtime.env_vars={MLFLOW_TRACKING_URI: 'https://me:pw@host'}", ["no secrets", "MLFLOW_TRACKING_URI"]),
        ("name=a/b", ["name", "'a/b'"]),
    ],
)
def test_a_mistake_is_one_sentence_with_key_value_and_remedy(spec_file, override, words):
    with pytest.raises(UserError) as caught:
        load_spec(spec_file, [override])
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert "pydantic" not in message


def further_embedding(**changes):
    """SMALL with a fourth phase that starts from the second, whose controller it has but for the changes."""
    data = yaml.safe_load(SMALL)
    again = {"name": "again", "algorithm": "planet", "start_from": "embed", "controller": {"kind": "embedded"}}
    data["phases"].append({**again, "stop": {"env_steps": 100}, **changes})
    return data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"controller": {"kind": "embedded", "latent_size": 8}}, r"again\.controller\.latent_size must .* 8 with 16"),
        ({"controller": {"kind": "embedded", "horizon": 8}}, r"again\.controller\.horizon must .* 8 with 12"),
        ({"decoder": {"num_layers": 3}}, r"again\.decoder\.num_layers must .* 'embed', .* 3 with 2.*keep_model: false"),
        ({"search": {"decoder.hidden_size": {"grid": [200, 100]}}}, r"decoder\.hidden_size must .* 100 with 200"),
    ],
)
def test_a_decoder_that_is_kept_has_the_sizes_that_it_had(changes, message):
    with pytest.raises(UserError, match=message):
        parse_spec(further_embedding(**changes), "here")
    parse_spec(further_embedding(**changes, keep_model=False), "here")


def test_a_hard_selection_leaves_the_decoder_to_fine_tune():
    data = yaml.safe_load(SMALL)
    data["phases"][1]["controller"]["temperature"] = 0
    data["phases"][2]["search"]["fine_tune"]["grid"] = [["decoder"]]
    assert parse_spec(data, "here").phase("embed").controller.temperature == 0
    data["phases"][1]["search"]["controller.temperature"] = {"grid": [0, 1.0]}  # the best trial may have 1
    data["phases"][2]["search"]["fine_tune"]["grid"] = [["reward"]]
    parse_spec(data, "here")


def test_searched_values_are_checked_together():
    data = yaml.safe_load(SMALL)
    data["phases"][1]["search"] = {
        "controller.num_samples": {"grid": [50, 500]},
        "controller.num_elites": {"grid": [10, 60]},
    }
    with pytest.raises(UserError, match=r"num_samples=50, controller\.num_elites=60"):
        parse_spec(data, "here")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "is not YAML: line 1"),
        ("a: b: c", "is not YAML: line 1, column 5"),
        ("- 1\n- 2\n", "must be a YAML mapping"),
        ("", "must be a YAML mapping"),
        ("name: a\nname: b\n", "'name' is given twice"),
        ("name: x\n", "is missing"),
        ("name: x\nphases: &all [*all]\n", "contains itself"),
    ],
)
def test_files_that_are_no_specs(tmp_path, text, words):
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_spec(file)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_phases_that_share_their_values_by_yaml_are_changed_one_at_a_time():
    phases = {phase.name: phase for phase in load_spec("parsimony_sac", ["phases.torus.model.beta=0.5"]).phases}
    assert {name: phase.model.beta for name, phase in phases.items()} == {
        "gridworld": 1.0, "torus": 0.5, "four_rooms": 0.0
    }  # fmt: skip
    assert {name: (phase.stop.episodes, phase.batch_size) for name, phase in phases.items()} == {
        "gridworld": (200, 150), "torus": (250, 150), "four_rooms": (500, 350)
    }  # fmt: skip


def test_names_that_are_no_specs(tmp_path):
    with pytest.raises(UserError, match="did you mean 'cheetah_run'"):
        load_spec("cheeta_run")
    with pytest.raises(UserError, match="is a folder"):
        load_spec(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not YAML"):
        load_spec(binary)


def test_differences_name_phases():
    old = yaml.safe_load(SMALL)
    new = copy.deepcopy(old)
    new["phases"][1]["stop"]["env_steps"] = 200
    new["seed"] = 3
    assert differences(old, new) == [("phases.embed.stop.env_steps", 100, 200), ("seed", None, 3)]
    assert differences(old, old) == []
    del new["phases"][2]
    assert differences(old, new)[0][0] == "phases"


def _extending(tmp_path, text, file="child.yaml"):
    (tmp_path / file).write_text(text)
    return tmp_path / file


def test_a_spec_extends_another_key_by_key_and_phase_by_phase(spec_file, tmp_path):
    file = _extending(
        tmp_path,
        "extends: small.yaml\nname: child\nenv: {action_repeat: 2}\n"
        "phases: {planet: {world_model: {deterministic_size: 30}}, embed: {search: null}, finetune: null}\n",
    )
    base, child = load_spec(spec_file), load_spec(file)
    changed = {path: (old, new) for path, old, new in differences(base.model_dump(), child.model_dump())}
    assert (child.env.id, child.env.action_repeat) == (base.env.id, 2)
    assert [phase.name for phase in child.phases] == ["planet", "embed"]
    assert child.phases[0].world_model.deterministic_size == 30
    assert child.phases[0].world_model.hidden_size == 20
    assert child.phases[1].world_model.deterministic_size == 30  # a phase that keeps the model has its sizes
    assert child.phases[1].search == {}
    assert child.phases[1].controller.kind == "embedded"
    assert set(changed) == {"name", "env.action_repeat", "phases", "evaluate.phases"}


def test_a_chain_of_extensions_with_a_list_of_phases_and_overrides(spec_file, tmp_path):
    _extending(tmp_path, "extends: small.yaml\nname: middle\nseed: 3\n", "middle.yaml")
    file = _extending(
        tmp_path, "extends: middle.yaml\nname: last\nphases: [{name: finetune, std: {learned: true}}]\n", "last.yaml"
    )
    spec = load_spec(file, ["phases.finetune.std.value=0.3"])
    assert (spec.name, spec.seed, spec.phase("finetune").std.learned, spec.phase("finetune").std.value) == (
        "last",
        3,
        True,
        0.3,
    )
    assert load_spec(spec_file).model_dump() | {"name": "", "seed": 3} == load_spec(
        tmp_path / "middle.yaml"
    ).model_dump() | {"name": ""}


def test_a_group_whose_kind_changes_keeps_none_of_its_keys(tmp_path):
    file = _extending(
        tmp_path,
        "extends: cheetah_run\nname: other\nphases: {planet: {controller: {kind: embedded}}, embed: null, "
        "finetune: null}\nevaluate: {phases: [planet]}\n",
    )
    assert load_spec(file).phases[0].controller.num_samples == 100  # the embedded controller's default, not 1000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: nowhere\nname: a\n", "no spec 'nowhere'"),
        ("extends: cheetah_rum\nname: a\n", "did you mean 'cheetah_run'?"),
        ("extends: child.yaml\nname: a\n", "extends leads back to"),
        ("extends: [cheetah_run]\nname: a\n", "extends must name a bundled spec or a file, got ['cheetah_run']"),
        ("extends: cheetah_run\nname: a\nphases: {embod: null}\n", "phases.embod is taken away and is not there"),
        ("extends: cheetah_run\nname: a\nphases: [1]\n", "are groups by name"),
        ("extends: cheetah_run\nname: a\nphases: {planet: {train_ration: 1}}\n", "train_ration"),
    ],
)
def test_what_cannot_be_extended_is_said(text, said, tmp_path):
    with pytest.raises(UserError) as error:
        load_spec(_extending(tmp_path, text))
    assert said in str(error.value)


VARIANTS = "variants={wide: {phases.embed.batch_length: 60}, brief: {phases.finetune.learning_rate: 1.0e-3}}"


def _chains(spec_file, *overrides):
    plain = ["phases.embed.search={}", "phases.finetune.search={}"]
    return chains_of(load_spec(spec_file, [*plain, *overrides]))


def test_chains_of_seeds_and_variants_share_what_is_the_same(spec_file):
    chains = _chains(spec_file, "seed=5", "seeds=2", VARIANTS)
    assert [(chain.name, chain.variant, chain.seed) for chain in chains] == [
        ("reference-seed5", "reference", 5),
        ("reference-seed6", "reference", 6),
        ("wide-seed5", "wide", 5),
        ("wide-seed6", "wide", 6),
        ("brief-seed5", "brief", 5),
        ("brief-seed6", "brief", 6),
    ]
    shared = {chain.name: chain.shared for chain in chains}
    assert shared["reference-seed5"] == shared["reference-seed6"] == {}
    assert shared["wide-seed6"] == {"planet": "reference-seed6"}
    assert shared["brief-seed5"] == {"planet": "reference-seed5", "embed": "reference-seed5"}
    brief = chains[-2].spec
    assert (brief.seed, brief.seeds, brief.variants) == (5, None, {})
    assert brief.phase("finetune").learning_rate == 1e-3
    assert plan_rows(chains)[-1] == (
        "brief-seed6",
        "shared with reference-seed6",
        "shared with reference-seed6",
        "trained",
    )


def test_variants_that_come_later_leave_the_names_of_chains(spec_file):
    alone = [chain.name for chain in _chains(spec_file, "seeds=2")]
    assert alone == [chain.name for chain in _chains(spec_file, "seeds=2", VARIANTS)][:2]


def test_a_phase_is_shared_by_content_not_by_name(spec_file):
    for change, shared in [
        ("{env.action_repeat: 2}", {}),
        ("{phases.planet.checkpoint_every: 2, phases.finetune.clip: 0.1}", {"planet", "embed"}),
        ("{phases.planet.stop.env_steps: 50}", {}),
        ("{phases.finetune.std.learned: true}", {"planet", "embed"}),
    ]:
        assert set(_chains(spec_file, f"variants={{a: {change}}}")[-1].shared) == set(shared)


def test_variants_shape_what_phases_inherit(spec_file):
    *_, chain = _chains(spec_file, "variants={a: {phases.planet.world_model.hidden_size: 30}}")
    assert chain.spec.phase("embed").world_model.hidden_size == 30


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seeds=[1, 1]", "seeds must be how many, 1 or more, or a list of different whole numbers of 0 or more"),
        ("seeds=[-1]", "got [-1]"),
        ("seeds=0", "got 0"),
        ("seeds=[]", "got []"),
        ("seeds=two", "got two"),
        ("seeds=true", "got True"),
        ("variants={a: {phases.planet.train_ratio: 0.1}}", "variants.a must change something"),
        ("variants={a: {}}", "variants.a must change something"),
        ("variants={a: {phases.planet.train_ration: 0.2}}", "phases.planet.train_ration is not a known key"),
        ("variants={a: {phases.planets.train_ratio: 0.2}}", "no phase 'planets'"),
        ("variants={a: {seed: 3}}", "variants.a must change env or phases, got 'seed'"),
        ("variants={reference: {env.action_repeat: 3}}", "reference is the spec as it is"),
        ("variants={a-b: {env.action_repeat: 3}}", "variants need names of letters, digits and _"),
        (
            "variants={a: {phases.embed.controller.num_iterations: 3}}",
            "variants.a.phases.embed.controller.num_iterations has no effect, because the phase searches over",
        ),
    ],
)
def test_seeds_and_variants_that_make_no_sense(spec_file, override, said):
    with pytest.raises(UserError) as error:
        chains_of(load_spec(spec_file, [override]))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
