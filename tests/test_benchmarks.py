"""Benchmarks run by hand, and so would break unseen: here each is at least made."""

import importlib
from pathlib import Path

import pytest

FILES = sorted(Path(__file__).with_name("benchmarks").glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_benchmark_can_be_collected(file: Path):
    module = importlib.import_module(f"tests.benchmarks.{file.stem}")
    assert any(name.startswith("test_") for name in vars(module))
