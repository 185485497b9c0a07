"""Specs with unified: what a phase may start from, and what capacity reckons."""

import pytest
import yaml

from parsecrl.algorithms.registry.workload import Sizes
from parsecrl.platform.errors import UserError
from parsecrl.platform.specs import load_spec

EMBEDDED = {"kind": "embedded", "horizon": 4}
SPEC = {
    "name": "two",
    "env": {"id": "dm_control/cheetah-run-v0", "action_repeat": 4},
    "phases": [
        {"name": "first", "algorithm": "planet", "stop": {"env_steps": 1000}},
        {
            **{"name": "second", "algorithm": "unified", "start_from": "first", "stop": {"env_steps": 1000}},
            "controller": EMBEDDED,
        },
    ],
    "evaluate": {"phases": ["second"]},
}


def load(tmp_path, *overrides):
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(SPEC))
    return load_spec(str(tmp_path / "two.yaml"), list(overrides))


@pytest.mark.parametrize(
    ("missing", "losses"), [("value", "[likelihood, decoder]"), ("decoder", "[likelihood, value]")]
)
def test_what_the_first_phase_has_not_trained_a_loss_must_train(tmp_path, missing, losses):
    with pytest.raises(UserError, match=rf"second.losses must have {missing}, which 'first' has not trained"):
        load(tmp_path, f"phases.second.losses={losses}")
    had = ["phases.first.value={}", f"phases.first.controller={yaml.safe_dump(EMBEDDED, default_flow_style=True)}"]
    load(tmp_path, f"phases.second.losses={losses}", *had)


def test_full_space_cem_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(
        UserError, match=r"controller.kind is full, whose search over actions gives no gradient"
    ) as error:
        load(tmp_path, "phases.second.controller={kind: full}")
    assert "\n" not in str(error.value)


def test_capacity_reckons_the_value_gradient():
    sizes = Sizes(obs_size=17, action_size=6, episode_decisions=250)
    work = []
    for losses in ("[likelihood, value, decoder]", "[likelihood, value, decoder, value_gradient]"):
        phase = load_spec("unified_cheetah_2core", [f"phases.unified.losses={losses}"]).phase("unified")
        work.append(phase.entry.update_flop(phase, sizes))
    assert 1.05 * work[0] < work[1] < 2 * work[0]


def test_a_variant_leaves_out_each_loss():
    spec = load_spec("ablations/unified_cheetah_losses_2core")
    assert {"no_value_gradient", "no_decoder", "no_value", "no_likelihood"} <= spec.variants.keys()
