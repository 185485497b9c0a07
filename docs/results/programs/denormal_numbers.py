"""A fused Adam step while the weights' moments become denormal; with `quick` they are taken for 0."""

import sys
import time

import torch

from parsecrl.algorithms.training.process_tuning import make_process_quick

torch.set_num_threads(1)
if "quick" in sys.argv:
    make_process_quick()
p = torch.randn(2000, 1000, requires_grad=True)
adam = torch.optim.Adam([p], lr=1e-3, fused=True)
p.grad = torch.full_like(p, 1e-3)
for n in range(1001):
    began = time.perf_counter()
    adam.step()
    if n in (5, 500, 700, 800, 1000):
        print(n, round(1e3 * (time.perf_counter() - began), 2), "ms")
    p.grad = torch.zeros_like(p)
