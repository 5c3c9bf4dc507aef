"""``priorpaint train``: the network that the options ask for, beside what a checkpoint has."""

from __future__ import annotations

from dataclasses import dataclass, replace

from priorpaint.errors import UsageError
from priorpaint.priors.native.autoencoder import AutoencoderConfig
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.native.unet import UNetConfig, parse_counts
from priorpaint.priors.native.weights_file import Config
from priorpaint.training.machine import Defaults, autoencoder_defaults, defaults, latent_defaults


@dataclass(frozen=True)
class NetworkOptions:
    """The options about the network, as given; None is what a checkpoint has, or the usual."""

    network: str | None
    channels: str | None
    blocks: str | None
    dense: str | None
    width: int | None
    cell: int | None
    factor: int | None
    latent_channels: int | None

    def is_mlp(self, stored: Config | None) -> bool:
        """Whether an MLP is asked for; UsageError for options that do not go together."""
        convolutions = not (self.channels is None and self.blocks is None)
        chosen = self.network == "mlp" or (self.network is None and isinstance(stored, MLPConfig) and not convolutions)
        if chosen and convolutions:
            raise UsageError("--channels and --blocks are for convolutions; --network mlp has --width and --dense.")
        if not chosen and not (self.width is None and self.cell is None):
            raise UsageError("--width and --cell are for --network mlp.")
        return chosen

    def mlp(self, stored: Config | None, side: int, planes: int) -> MLPConfig:
        """A dense network for pictures of ``side`` pixels and ``planes`` channels."""
        shape = stored if isinstance(stored, MLPConfig) else MLPConfig(side)
        if self.dense is not None:
            shape = replace(shape, hidden=parse_counts(self.dense, "--dense"))
        width = shape.width if self.width is None else self.width
        cell = shape.cell if self.cell is None else self.cell
        return replace(shape, side=side, width=width, cell=cell, in_channels=planes, classes=0)

    def unet(self, stored: Config | None, usual: Defaults, side: int, planes: int) -> UNetConfig:
        """Convolutions, for crops, pictures or latents of ``side`` pixels or cells."""
        known = isinstance(stored, UNetConfig) and self.channels is None and self.blocks is None
        shape = stored if known and isinstance(stored, UNetConfig) else UNetConfig(*self._levels(usual))
        shape = replace(shape, in_channels=planes, classes=0)
        return shape if self.dense is None else replace(shape, dense=parse_counts(self.dense, "--dense"), side=side)

    def autoencoder(self, stored: Config | None, usual: Defaults, planes: int) -> AutoencoderConfig:
        """An autoencoder of pictures with ``planes`` channels."""
        known = isinstance(stored, AutoencoderConfig) and self.channels is None and self.blocks is None
        shape = (
            stored if known and isinstance(stored, AutoencoderConfig) else AutoencoderConfig(8, 8, *self._levels(usual))
        )
        factor = shape.factor if self.factor is None else self.factor
        latent_channels = shape.latent_channels if self.latent_channels is None else self.latent_channels
        return replace(shape, factor=factor, latent_channels=latent_channels, in_channels=planes)

    def _levels(self, usual: Defaults) -> tuple[tuple[int, ...], tuple[int, ...]]:
        channels = usual.channels if self.channels is None else parse_counts(self.channels, "--channels")
        return channels, usual.blocks if self.blocks is None else parse_counts(self.blocks, "--blocks")


def usual(size: int, autoencoder: bool, factor: int | None) -> Defaults:
    """What is taken for crops of ``size`` pixels where nothing is asked for; ``factor`` is that of a latent prior."""
    if autoencoder:
        return autoencoder_defaults()
    return defaults(size) if factor is None else latent_defaults(size // factor)
