"""Which processes do the work of ``priorpaint batch`` and ``bench``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from typer import Option

if TYPE_CHECKING:
    from priorpaint.batch import Processes
    from priorpaint.batch.runner import Work

Workers = Annotated[
    int | None,
    Option("--workers", metavar="N", min=1, max=1024, help="Processes; default: one a GPU, or CPU cores / --threads."),
]


def processes(make: Callable[[str], Work], workers: int | None, device: str | None, threads: int | None) -> Processes:
    """A process for each GPU, or on the CPU one for each ``threads`` cores, and one on a device that has a number;
    ``workers`` says another number."""
    import torch

    from priorpaint.batch import Processes

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda":
        gpus = max(1, torch.cuda.device_count())
        devices = [f"cuda:{i % gpus}" for i in range(workers or gpus)]
    else:
        own = max(1, cores // (threads or cores)) if device.startswith("cpu") else 1  # such as cuda:1
        devices = [device] * (workers or own)
    if threads is None and len(devices) > 1:
        threads = max(1, cores // len(devices))
    return Processes(make, devices, threads)
