"""What users' code raises outside of trials: one sentence, and the traceback in a file."""

import errno
from pathlib import Path

import gymnasium
import pytest

from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.errors import RunFailed, StorageUnreachable, UserError
from parsecrl.platform.evaluation.episodes import evaluate
from parsecrl.platform.runs.user_code import causes_told
from tests.envs.case_worlds import Point

quiet_ray()
ID = "parsecrl_tests/Unlicensed-v0"


class Unlicensed(Point):
    def step(self, action):
        raise KeyError("licence")


@pytest.fixture
def unlicensed():
    gymnasium.register(ID, entry_point=Unlicensed)
    yield ID
    del gymnasium.registry[ID]


def test_an_evaluation_stops_with_the_worlds_sentence_and_keeps_the_traceback(unlicensed, tmp_path):
    file = tmp_path / "evaluation_error.txt"
    with pytest.raises(RunFailed) as told, causes_told("evaluation of planet", file):
        evaluate("random", {"id": unlicensed}, episodes=2)
    line = next(
        i
        for i, text in enumerate(Path(__file__).read_text().splitlines(), 1)
        if text.strip() == 'raise KeyError("licence")'
    )
    assert str(told.value) == (
        f"evaluation of planet stopped: KeyError: 'licence' ({__file__}:{line}); the traceback is in {file}; "
        f"the same command continues"
    )
    assert "in run_batch" in file.read_text()


@pytest.mark.parametrize(
    "error",
    [
        UserError("a mistake"),
        RunFailed("an end"),
        OSError(errno.ENOSPC, "No space left on device"),
        StorageUnreachable("the store is silent"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_is_told_otherwise_passes_through(error, tmp_path):
    with pytest.raises(type(error)) as told, causes_told("evaluation", tmp_path / "error.txt"):
        raise error
    assert told.value is error
    assert not list(tmp_path.iterdir())


def test_an_error_of_the_system_that_code_made_itself_is_told():
    words = r"^evaluation stopped: OSError: the serial port is gone \(.*test_user_code\.py:\d"
    with pytest.raises(RunFailed, match=words), causes_told("evaluation"):
        raise OSError("the serial port is gone")
