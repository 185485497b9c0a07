"""Shared by all tests: quiet programs, and one Ray runtime for the session."""

import logging
import os
import tempfile
from collections import Counter
from collections.abc import Iterator

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads only wait for each other
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("PARSEC_PRODUCTS", "torch")  # runs that are compared to the bit shall not measure
os.environ.setdefault("PARSEC_KEY_FILE", os.path.join(tempfile.gettempdir(), "parsecrl-tests", "key"))  # not the user's

import pytest
import torch

from parsecrl.algorithms.training.lasting_imports import lasting_imports
from parsecrl.envs import choose_rendering_backend

choose_rendering_backend()  # ray.rllib imports dm_control


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with most Ray tests first: they take longest, and short ones fill what time is left on either worker."""
    starts = Counter(item.path for item in items if item.get_closest_marker("ray"))
    items.sort(key=lambda item: -starts[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Garbage is collected thousands of times while tests run; what was imported for them is never looked through."""
    with lasting_imports():
        return (yield)


@pytest.fixture(scope="session")
def ray_runtime() -> Iterator[None]:
    """A local Ray runtime with two CPUs, started once and shared; nothing outside this process is joined or stopped."""
    import ray

    logging.getLogger("ray._common.deprecation").setLevel(logging.ERROR)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=512 * 1024**2,
    )
    yield
    ray.shutdown()


@pytest.fixture(autouse=True)
def _denormal_numbers() -> Iterator[None]:
    """A trial that a test runs in its own process has them taken for 0, which hypothesis cannot have in other tests."""
    yield
    torch.set_flush_denormal(False)
