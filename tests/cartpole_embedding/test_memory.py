import subprocess
import sys

import pytest

CODE = """
import resource, sys, torch
if sys.argv[1] == "keep":
    from parsecrl.algorithms.process_memory import use_memory_freely
    if not use_memory_freely():
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
