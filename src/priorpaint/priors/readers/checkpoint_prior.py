"""Priors that say which file they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..latent import LatentPrior
from ..network import NetworkPrior


class _Origin:
    """What every prior from one file knows about it.

    Attributes:
        source: the file.
        hash: its SHA-256, in hexadecimal.
        facts: what ``priors info`` shows and run.json records; JSON values.
    """

    source: Path
    hash: str
    facts: dict[str, Any]


class CheckpointPrior(_Origin, NetworkPrior):
    """A network from a checkpoint of one file."""

    network: nn.Module

    def parameters(self) -> Iterator[Tensor]:
        """The network's weights."""
        return iter(self.network.parameters())


class CheckpointLatentPrior(_Origin, LatentPrior):
    """A denoiser of latents and its autoencoder from a checkpoint of one file."""
