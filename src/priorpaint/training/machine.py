"""What the machine offers a training run."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import distributed

from priorpaint.errors import MissingExtra

if TYPE_CHECKING:
    from accelerate import Accelerator


# Crops in a batch of a dense network, which is so quick that smaller batches would leave the machine to its optimizer.
MLP_BATCH = 256


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


def latent_defaults(cells: int) -> Defaults:
    """As `defaults`, for crops whose latents have ``cells`` cells along a side: few cells, so wider levels."""
    levels = next((count for count in (3, 2) if cells % 2**count == 0 and cells > 2**count), 1)
    if torch.cuda.is_available():
        return Defaults((256, 384, 512)[:levels], (3,) * levels, 256, 4.0)
    return Defaults((192, 256, 320)[:levels], (2,) * levels, 64, 8.0)


def autoencoder_defaults() -> Defaults:
    """As `defaults`, for autoencoders, whose decoder alone is what a picture of a latent prior can be."""
    if torch.cuda.is_available():
        return Defaults((128, 256), (3, 3), 64, 2.0)
    return Defaults((64, 128), (2, 2), 32, 2.0)


def accelerator(precision: str) -> Accelerator:
    """accelerate's view of this machine; ``precision`` is "auto", "bf16" or "float32".

    Raises:
        MissingExtra: accelerate is not installed.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError:
        raise MissingExtra("Training needs accelerate; install it with: pip install 'priorpaint[train]'") from None
    chosen = ("bf16" if computes_bf16() else "float32") if precision == "auto" else precision
    AcceleratorState._reset_state()  # or a second run in this process could not take another precision
    return Accelerator(mixed_precision="bf16" if chosen == "bf16" else "no")


def computes_bf16() -> bool:
    """Whether this machine multiplies bfloat16 in hardware (elsewhere it is emulated, and slower than float32)."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in names)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch says that memory ran out; on the CPU, torch says so in words only."""
    words = ("not enough memory", "can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(each in str(error).lower() for each in words)
    )


def end_process(code: int) -> None:
    """End one of several processes at once, with this exit code; a process that is alone goes on.

    A network that was wrapped for several processes keeps gloo's threads alive, also after `destroy_process_group`
    (torch 2.13), and now and then they abort the interpreter while it ends.
    """
    if distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
