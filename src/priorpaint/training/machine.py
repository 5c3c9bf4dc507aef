"""What the machine offers a training run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from priorpaint.errors import MissingExtra

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Defaults:
    """What a run takes where the user names nothing: network, crops in a batch, hours."""

    channels: tuple[int, ...]
    blocks: tuple[int, ...]
    batch: int
    hours: float


def defaults(size: int) -> Defaults:
    """Sane choices for crops of ``size`` pixels on this machine: what a CPU learns overnight, a GPU in an afternoon.

    The network has as many levels, of at most four, as the size can be halved.
    """
    levels = next((count for count in (4, 3, 2) if size % 2**count == 0), 1)
    if torch.cuda.is_available():
        return Defaults((96, 160, 256, 384)[:levels], (3,) * levels, 128, 4.0)
    return Defaults((48, 80, 128, 192)[:levels], (2,) * levels, 32, 8.0)


def accelerator(precision: str) -> Accelerator:
    """accelerate's view of this machine; ``precision`` is "auto", "bf16" or "float32".

    Raises:
        MissingExtra: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator
    except ImportError:
        raise MissingExtra("Training needs accelerate; install it with: pip install 'priorpaint[train]'") from None
    chosen = ("bf16" if computes_bf16() else "float32") if precision == "auto" else precision
    return Accelerator(mixed_precision="bf16" if chosen == "bf16" else "no")


def computes_bf16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware (elsewhere it is emulated, and slower than float32)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in names)
