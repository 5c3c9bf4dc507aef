"""Autoencoders of diffusers as the two maps of a latent prior, in the scale that its denoiser works in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import CheckpointError


class DiffusersAutoencoder(nn.Module):
    """AutoencoderKL, AutoencoderTiny or VQModel.

    Latents z of the autoencoder become (z - mean) / std * scaling_factor for the denoiser; a plain ``shift_factor`` is
    a mean for all channels. Encoding takes the mean of KL's distribution, and VQ's latents before they are quantised;
    VQ's decoder quantises first, with a straight-through gradient.

    Args:
        network: diffusers' module.
        config: its configuration.
        path: of the folder, for messages.

    Attributes:
        factor: pixels per latent, along one side.
        channels: of the latent.
        image_channels: of the picture.
    """

    def __init__(self, network: nn.Module, config: Mapping[str, Any], path: Path) -> None:
        super().__init__()
        self.network = network
        self.factor: int = 2 ** (len(config["block_out_channels"]) - 1)
        self.channels: int = config.get("vq_embed_dim") or config["latent_channels"]
        self.image_channels: int = config["in_channels"]
        scale = config.get("scaling_factor", 1.0)
        if not isinstance(scale, (int, float)) or isinstance(scale, bool) or not 0 < scale < float("inf"):
            raise CheckpointError(f"{path}: scaling_factor is {scale!r}; expected a positive number.")
        self.register_buffer("_scale", self._per_channel(config, "latents_std", 1.0, path).reciprocal() * scale)
        shift = config.get("shift_factor") or 0.0
        self.register_buffer("_shift", self._per_channel(config, "latents_mean", shift, path))
        self._scale: Tensor
        self._shift: Tensor

    def encode(self, image: Tensor) -> Tensor:
        """Image (N, C, H, W) in [-1, 1] to the denoiser's latent (N, c, H/f, W/f), in the image's dtype."""
        out = self.network.encode(image.to(self._dtype))  # type: ignore[operator]
        latent = out.latent_dist.mode() if hasattr(out, "latent_dist") else out.latents
        scaled: Tensor = (latent.to(image.dtype) - self._shift.to(image)) * self._scale.to(image)
        return scaled

    def decode(self, latent: Tensor) -> Tensor:
        """The denoiser's latent (N, c, h, w) to an image (N, C, f h, f w), in the latent's dtype."""
        own = latent / self._scale.to(latent) + self._shift.to(latent)
        image: Tensor = self.network.decode(own.to(self._dtype)).sample.to(latent.dtype)  # type: ignore[operator]
        return image

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    def _per_channel(self, config: Mapping[str, Any], key: str, usual: float, path: Path) -> Tensor:
        value = config.get(key)
        numbers = [usual] * self.channels if value is None else value
        try:
            row = torch.tensor(numbers, dtype=torch.float32).reshape(1, self.channels, 1, 1)
        except (TypeError, ValueError, RuntimeError):
            raise CheckpointError(f"{path}: {key} is {value!r}; expected {self.channels} numbers.") from None
        if not bool(row.isfinite().all()) or (key == "latents_std" and not bool((row > 0).all())):
            raise CheckpointError(f"{path}: {key} is {value!r}; expected finite numbers, and positive deviations.")
        return row
