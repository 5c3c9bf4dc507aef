"""LPIPS as a loss: from a weights file, or from the package lpips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import MissingExtra, UsageError
from .lpips import LPIPS

NETWORKS = ("alex", "vgg", "squeeze")


def perceptual_loss(source: str, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS of two RGB batches (B, 3, H, W) in [-1, 1], (B,), differentiable.

    Args:
        source: a safetensors file, see `priorpaint.metrics.lpips`; or one of ``NETWORKS``, for the package lpips, which
            fetches the network's weights through torchvision at its first use.
        device: where it is computed.

    Raises:
        PriorError: the file cannot be read.
        MissingExtra: lpips, or the torchvision that it needs, is not installed or does not fit the installed torch.
        UsageError: neither a file nor a network.
    """
    if Path(source).suffix == ".safetensors":
        return LPIPS(source, device=device)
    if source not in NETWORKS:
        raise UsageError(f"perceptual is a .safetensors file or one of {', '.join(NETWORKS)}, not {source!r}")
    try:
        import lpips  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except (ImportError, RuntimeError) as error:  # torchvision says RuntimeError beside another build of torch
        raise MissingExtra(
            f"LPIPS with {source!r} needs the packages lpips and torchvision ({error}); install them with pip install "
            "lpips torchvision, or give a safetensors file with LPIPS weights"
        ) from None
    model = lpips.LPIPS(net=source, verbose=False).requires_grad_(False).to(device)
    return lambda a, b: model(a, b).flatten()
