"""LPIPS as a loss: from a weights file, or from the package lpips."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..errors import MissingExtra, PriorError, UsageError
from .lpips import LPIPS

NETWORKS = ("alex", "vgg", "squeeze")
_LEAST = 32  # pixels along a side, below which the features of the last layers vanish


def perceptual_loss(source: str, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """LPIPS of two RGB batches (B, 3, H, W) in [-1, 1], (B,), differentiable.

    Args:
        source: a safetensors file, see `priorpaint.metrics.lpips`; or one of ``NETWORKS``, for the package lpips, which
            fetches the network's weights through torchvision at its first use.
        device: where it is computed.

    Raises:
        PriorError: the file cannot be read, or the network's weights cannot be fetched.
        MissingExtra: lpips, or the torchvision that it needs, is not installed or does not fit the installed torch.
        UsageError: neither a file nor a network.
    """
    if Path(source).suffix == ".safetensors":
        return LPIPS(source, device=device)
    if source not in NETWORKS:
        raise UsageError(f"perceptual is a .safetensors file or one of {', '.join(NETWORKS)}, not {source!r}")
    return _from_package(source, device)


def _from_package(network: str, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's words about how lpips calls it
        try:
            import lpips  # type: ignore[import-untyped, import-not-found, unused-ignore]
        except (ImportError, RuntimeError, AttributeError, OSError) as error:
            # What is not ImportError is torchvision beside a torch that it was not built for.
            reason = " ".join(str(error).split())
            raise MissingExtra(
                f"LPIPS with {network!r} needs the packages lpips and torchvision, which cannot be imported "
                f"({reason}); run: pip install 'priorpaint[perceptual]', with the torchvision of the installed torch, "
                "or give a safetensors file with LPIPS weights, or leave perceptual out"
            ) from None
        try:
            model = lpips.LPIPS(net=network, verbose=False)
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise PriorError(
                f"the weights of {network!r} for LPIPS cannot be had from torchvision ({reason}); connect once, give a "
                "safetensors file with LPIPS weights, or leave perceptual out"
            ) from None
    model = model.requires_grad_(False).to(device)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        height, width = a.shape[-2:]
        if min(height, width) < _LEAST:
            raise UsageError(
                f"LPIPS needs pictures of at least {_LEAST} x {_LEAST} pixels, not {height} x {width}; leave "
                "perceptual out"
            )
        found: Tensor = model(a, b)
        return found.flatten()

    return distance
