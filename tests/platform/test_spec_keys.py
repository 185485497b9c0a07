from pathlib import Path

from pydantic import BaseModel

from parsecrl.algorithms.registry.lookup import algorithm_named
from parsecrl.platform.cli import main
from parsecrl.platform.specs import keys

ROOT = Path(__file__).parents[2]


def test_the_page_of_the_docs_is_current():
    assert (ROOT / keys.DOCS).read_text(encoding="utf-8") == keys.page(), "run `make keys`"


def test_every_key_has_a_type_and_a_meaning():
    for title, _, found in keys.tables():
        assert not [key.key for key in found if not key.type or "[" in key.type or not key.meaning], title
        assert "Undefined" not in str(found)
    assert "controller.kind" in {key.key for _, _, found in keys.tables("planet") for key in found}


def test_keys_are_those_of_the_settings(capsys):
    assert main(["specs", "--keys", "dcem_ppo"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line for line in printed.splitlines() if line}
    assert {*algorithm_named("dcem_ppo").settings.model_fields, "stop.ppo_steps", "std.value"} <= lines.keys()
    assert "0 or more and 1 or less" in lines["gae_lambda"]
    assert "list of one of reward, transition, decoder" in lines["fine_tune"]
    assert "required" in lines["start_from"]


def test_a_list_of_a_group_and_a_group_by_name():
    class Inner(BaseModel):
        x: int = 3

    class Outer(BaseModel):
        by_name: dict[str, Inner] = {}

    assert [key.key for key in keys.keys_of(Outer)] == ["by_name", "by_name.NAME.x"]


def test_mistakes_of_the_option(capsys):
    assert main(["specs", "--keys", "plane"]) == 2
    assert "did you mean 'planet'" in capsys.readouterr().err
    assert main(["specs", "cheetah_run", "--keys", "planet"]) == 2
    assert "give one of both" in capsys.readouterr().err
