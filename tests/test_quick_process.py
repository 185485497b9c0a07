import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
if sys.argv[1] == "keep":
    from parsecrl.algorithms.training.process_tuning import make_process_quick
    if not make_process_quick():
        sys.exit(3)
def use():
    held = [torch.ones(25_000) for _ in range(100)] + [torch.ones(400_000) for _ in range(10)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    result = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True)
    if result.returncode == 3:
        pytest.skip("no glibc")
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


def test_freed_memory_is_used_again_without_page_faults():
    assert page_faults("keep") < 0.1 * page_faults("leave")


def test_fresh_memory_is_left_as_it_is_under_deterministic_algorithms():
    code = """
import torch
from parsecrl.algorithms.training.process_tuning import make_process_quick
torch.use_deterministic_algorithms(True)
filled = bool(torch.empty(1000).isnan().all())
make_process_quick()
print(filled, bool(torch.full((1000,), 2.0).new_empty(1000).isnan().all()))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_denormal_numbers_are_0_in_the_thread_that_calls():
    code = """
import torch
from parsecrl.algorithms.training.process_tuning import make_process_quick
halved = lambda: bool((torch.full((8,), 1.5e-38) / 4 > 0).all())
before = halved()
make_process_quick()
print(before, halved())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_what_was_imported_is_never_looked_through_again():
    code = """
import gc
from parsecrl.algorithms.training.lasting_imports import lasting_imports
with lasting_imports():
    import decimal
    print(gc.isenabled())
frozen = gc.get_freeze_count()
with lasting_imports():
    garbage = []
    garbage.append(garbage)  # nothing is imported: what there is can become garbage
print(gc.isenabled(), frozen > 1000, gc.get_freeze_count() == frozen)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True", "True", "True"]
