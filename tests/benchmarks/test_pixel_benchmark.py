"""A gradient step of both models of image sequences at the paper's size (Saanum and Schulz 2022, A.3 and A.4).

50 sequences of 50 images of 80 x 80, plain and with the layout and the precision that the specs may choose. One thread,
processor time.
"""

import time

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from parsecrl.algorithms.models import ImageSequence
from parsecrl.algorithms.open_loop.experiment import OpenLoopExperiment
from parsecrl.algorithms.open_loop.settings import OpenLoopSettings

VARIANTS = {
    "float32": {},
    "float32, channels-last": {"channels_last": True},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16, channels-last": {"precision": "bfloat16", "channels_last": True},
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["parsimonious", "rssm"])
def test_a_gradient_step_at_the_papers_size(benchmark: BenchmarkFixture, kind: str, variant: str) -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 50, 80, 80, 3), dtype=torch.uint8, generator=g).permute(0, 1, 4, 2, 3)
    batch = ImageSequence(images, torch.randint(6, (50, 49), generator=g))  # in memory as the dataset gives them
    experiment = OpenLoopExperiment(OpenLoopSettings(model={"kind": kind, **VARIANTS[variant]}), 6, 80, seed=0)
    begin = time.process_time()
    benchmark.pedantic(lambda: experiment.train(iter([batch]), 1), rounds=1, warmup_rounds=1)
    print(f"\n{kind}, {variant}: {(time.process_time() - begin) / 2:.2f} s of processor time a step")
