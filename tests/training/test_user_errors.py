"""What was raised, in a sentence: with objects of this process, and with the texts that Ray hands over."""

import pickle
import re
from pathlib import Path

import pytest
import torch

from parsecrl.algorithms.training import user_errors
from parsecrl.algorithms.training.finite_checks import check_finite
from parsecrl.algorithms.training.user_errors import Failed, FailedForNow, Failure, causes_kept, is_lasting, sentence_of
from parsecrl.platform.cluster.connection import quiet_ray
from parsecrl.platform.errors import StorageUnreachable
from tests.envs.case_worlds import Point

quiet_ray()
from ray.air._internal.util import skip_exceptions  # noqa: E402
from ray.exceptions import ActorDiedError, ObjectLostError, RayTaskError  # noqa: E402

WORLDS = Path(__file__).parents[1] / "envs" / "case_worlds.py"


class LicenceError(Exception):
    """Its pickle cannot be read: args holds one value, and the constructor asks for two."""

    def __init__(self, code, text):
        super().__init__(f"{text} ({code})")


def raised(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError


def step_to_the_fault():
    world = Point(fault="raises")
    for _ in range(3):
        world.reset(seed=0)
    for _ in range(7):
        world.step([0.0])


def line_of(text, file=Path(__file__)):
    return next(i for i, line in enumerate(file.read_text().splitlines(), 1) if text in line)


def test_the_place_is_the_innermost_frame_of_the_users_own_code():
    found = sentence_of(raised(step_to_the_fault))
    raising = line_of('raise RuntimeError("simulator lost its licence")', WORLDS)
    assert found == f"RuntimeError: simulator lost its licence ({WORLDS}:{raising})"

    linear = torch.nn.Linear(2, 2)
    assert sentence_of(raised(lambda: linear(torch.zeros(3)))).endswith(
        f"({__file__}:{line_of('raised(lambda: linear')})"
    )


def test_without_a_users_frame_the_innermost_one_is_named_from_its_package_on():
    error = raised(torch.nn.Linear(2, 2), torch.zeros(3))
    while error.__traceback__.tb_frame.f_code.co_filename == __file__:
        error.__traceback__ = error.__traceback__.tb_next
    assert re.search(r"^RuntimeError: .* \(torch/nn/\S+\.py:\d+\)$", sentence_of(error))
    error = raised(check_finite, {"reward": torch.tensor(float("nan"))}, 7, "lower learning_rate")
    error.__traceback__ = error.__traceback__.tb_next
    assert sentence_of(error).startswith("FloatingPointError: the loss term 'reward' became nan at update 7; lower")
    assert re.search(r" \(parsecrl/algorithms/training/finite_checks\.py:\d+\)$", sentence_of(error))


def test_the_first_line_of_a_message_and_the_cause_of_a_silent_error():
    def silent():
        try:
            raise LicenceError(7, "first\nsecond")
        except LicenceError as error:
            raise RuntimeError from error  # as RLlib does with what an environment's step raises

    assert sentence_of(raised(silent)) == f"LicenceError: first ({__file__}:{line_of('raise LicenceError(7')})"
    assert sentence_of(ValueError()) == "ValueError"


@pytest.mark.parametrize(
    ("error", "lasting"),
    [
        (RuntimeError("x"), True),
        (FloatingPointError("x"), True),
        (FileNotFoundError(2, "No such file"), True),
        (ConnectionResetError("x"), False),
        (OSError(5, "Input/output error"), False),
        (TimeoutError("no rollout arrived"), False),
        (MemoryError(), False),
        (torch.OutOfMemoryError("CUDA"), False),
        (ObjectLostError("00" * 28, None, ""), False),
        (ActorDiedError(), False),
        (torch.AcceleratorError("CUDA error: uncorrectable ECC error"), False),
        (torch.distributed.DistBackendError("NCCL"), False),
        (StorageUnreachable("x"), False),
        (Failed("x"), True),
        (FailedForNow("x"), False),
    ],
)
def test_what_would_fail_the_same_way_again(error, lasting):
    assert is_lasting(error) is lasting
    text = f'ray::A.f()\n  File "/a/b.py", line 3, in f\n{type(error).__module__}.{type(error).__qualname__}: x'
    text = text.replace("builtins.", "")
    task = RayTaskError("f", text, error, proctitle="ray::A.f", pid=1, ip="127.0.0.1")
    assert is_lasting(task) is lasting
    assert is_lasting(task.as_instanceof_cause()) is lasting
    # Of an actor whose constructor failed, Ray keeps the text alone.
    assert is_lasting(ActorDiedError(task)) is lasting


def test_a_learner_whose_peer_is_gone_may_go_on():
    assert not is_lasting(RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed"))


def test_what_is_kept_survives_the_way_to_another_process():
    with pytest.raises(Failed) as told, causes_kept():
        raise LicenceError(7, "no licence")
    assert str(pickle.loads(pickle.dumps(told.value))) == sentence_of(told.value)
    assert str(told.value).startswith(f"LicenceError: no licence (7) ({__file__}:")
    assert "LicenceError: no licence (7)" in str(skip_exceptions(told.value).__cause__)  # the copy that Tune makes
    with pytest.raises(ConnectionResetError), causes_kept():
        raise ConnectionResetError("the simulator's process is gone")
    with pytest.raises(Failed, match="as it is"), causes_kept():
        raise Failed("as it is")


def test_a_runners_failure_is_raised_here_with_its_traceback():
    failure = pickle.loads(pickle.dumps(Failure.of(raised(step_to_the_fault))))
    with pytest.raises(Failed, match="simulator lost its licence") as told:
        failure.reraise()
    assert "in step_to_the_fault" in str(told.value.__cause__)
    with pytest.raises(FailedForNow, match=r"ConnectionError: gone \("):
        Failure.of(raised(lambda: (_ for _ in ()).throw(ConnectionError("gone")))).reraise()


def test_texts_that_ray_hands_over():
    text = (
        'ray::A.__init__() (pid=1)\n  File "/home/me/worlds.py", line 12, in make\n    load()\n'
        '  File "/opt/v/lib/python3.11/site-packages/numpy/io.py", line 3, in load\n    open()\n'
        "FileNotFoundError: [Errno 2] No such file: 'robot.urdf'\nsecond line"
    )
    error = ActorDiedError(RayTaskError("__init__", text, ValueError("x"), "ray::A", 1, "127.0.0.1"))
    assert sentence_of(error) == "FileNotFoundError: [Errno 2] No such file: 'robot.urdf' (/home/me/worlds.py:12)"
    kept = (
        text
        + f"\n\nray::A.train()\n  File \"/x.py\", line 1, in f\n{Failed.__module__}.Failed: KeyError: 'a' (/w.py:3)"
    )
    assert user_errors.sentence_in(kept) == "KeyError: 'a' (/w.py:3)"
    assert user_errors.sentence_in("the actor died") == "the actor died"
    assert user_errors.sentence_in("") == ""
