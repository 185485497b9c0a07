"""A device without numbers, which tells what a GPU would wait for, or refuse.

Tensors on "meta" have shapes alone. An operation on one of them and one of the CPU is an error there, as on a GPU. What
reads a number has the host wait for the device, and raises here unless `HostReads` answers in its place.
"""

from __future__ import annotations

import traceback
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

META = torch.device("meta")
COPY = torch.ops.aten._to_copy.default
READS = {torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default}


class HostReads(TorchDispatchMode):
    """Count the reads of numbers from the device, and answer each with a number that no check minds.

    `reads` has the file and line of each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        copies = func is COPY and args[0].is_meta and str(kwargs.get("device", META)) == "cpu"
        if not copies and not (func in READS and args[0].is_meta):
            return func(*args, **kwargs)
        frames = [frame for frame in traceback.extract_stack() if "/algorithms/" in frame.filename]
        self.reads.append(f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "elsewhere")
        dtype = kwargs.get("dtype") or args[0].dtype
        answer = True if dtype == torch.bool else 1e6 if dtype.is_floating_point else 10**6
        return torch.full(args[0].shape, answer, dtype=dtype) if copies else answer
