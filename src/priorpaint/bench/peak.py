"""The most memory that a piece of work takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """Filled when the work is over: bytes of the GPU's allocator, else of the whole process; None where unknown."""

    bytes: int | None = None


@contextmanager
def peak_memory(device: torch.device) -> Iterator[Peak]:
    """The peak while the block runs. On a CPU it takes Linux, which lets a process reset the peak of its own."""
    peak = Peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    known = _reset()
    yield peak
    if known:
        status = (_PROCESS / "status").read_text(encoding="ascii", errors="replace")
        kilobytes = next((line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")), None)
        peak.bytes = None if kilobytes is None else int(kilobytes) * 1024


def _reset() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True
