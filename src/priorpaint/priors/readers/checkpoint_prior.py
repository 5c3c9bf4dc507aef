"""A network read from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from ..network import NetworkPrior


class CheckpointPrior(NetworkPrior):
    """A network from a checkpoint; its weights can be asked for."""

    network: nn.Module

    def parameters(self) -> Iterator[Tensor]:
        """The network's weights."""
        return iter(self.network.parameters())
