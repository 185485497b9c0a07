import subprocess
import sys

import pytest
from ray import cloudpickle

from parsecrl.algorithms.planet.planet import Planet
from parsecrl.platform.metrics.table import ReportsMetrics
from parsecrl.platform.running import trainables
from parsecrl.platform.running.trainables import trainable_of


@pytest.mark.parametrize("name", ["planet", "parsecrl.algorithms.energy_regression.algorithm:ENERGY_REGRESSION"])
def test_a_trainable_is_pickled_by_reference_and_made_anew_where_it_is_read(name: str, monkeypatch):
    if ":" in name:  # as of a package that registers nothing
        from parsecrl.algorithms.energy_regression.algorithm import ENERGY_REGRESSION

        monkeypatch.setattr(trainables, "algorithm_named", lambda named: ENERGY_REGRESSION)
    made = trainable_of(name)
    pickled = cloudpickle.dumps(made)
    assert len(pickled) < 200
    assert cloudpickle.loads(pickled) is made
    if ":" not in name:
        code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).__mro__)"
        found = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, check=True)
        assert b"planet.planet.Planet" in found.stdout


def test_it_has_the_name_of_the_algorithms_own_class():
    made = trainable_of("planet")
    assert issubclass(made, Planet)
    assert issubclass(made, ReportsMetrics)
    assert made.__name__ == "Planet"


def test_an_attribute_that_is_no_algorithm():
    with pytest.raises(AttributeError, match="did you mean 'planet'"):
        trainables.plane  # noqa: B018
