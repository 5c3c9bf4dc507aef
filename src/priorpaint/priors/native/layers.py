"""Pieces of priorpaint's own networks: residual blocks without normalisation, and weights drawn from a given seed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from priorpaint.errors import UsageError

# More levels than a side of 65536 pixels can be halved, and more blocks than anybody trains, are not built.
MOST_LEVELS, MOST_BLOCKS = 16, 1000
_FREQUENCIES = 16
_MAX_LOG_FREQUENCY = 4.0
# Blocks start close to the identity; without normalisation this keeps activations of order one at any depth.
_BRANCH_GAIN = 0.1


class ToldNetwork(nn.Module):
    """A network that is told the noise level and, where it knows classes, one of them or the null class.

    Args:
        embedding: width of the embedding of both.
        classes: number of classes; 0 for none.
    """

    frequencies: Tensor

    def __init__(self, embedding: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.linspace(0, _MAX_LOG_FREQUENCY, _FREQUENCIES).exp(), persistent=False)
        self.embed = nn.Sequential(
            new(nn.Linear, 2 * _FREQUENCIES, embedding), nn.SiLU(), new(nn.Linear, embedding, embedding), nn.SiLU()
        )
        if classes:
            self.classes = new(nn.Embedding, classes + 1, embedding)

    def told(self, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        """The embedding (N, width) of noise levels (N,) and classes (N,); None is the null class for every row.

        Raises:
            UsageError: labels for a network without classes.
        """
        angles = c_noise[:, None] * self.frequencies
        embedding = self.embed[:2](torch.cat([angles.sin(), angles.cos()], dim=1))
        if hasattr(self, "classes"):
            if labels is None:
                labels = torch.full((len(embedding),), self.classes.num_embeddings - 1, device=embedding.device)
            embedding = embedding + self.classes(labels)
        elif labels is not None:
            raise UsageError("This network knows no classes; leave the labels out.")
        told: Tensor = self.embed[2:](embedding)
        return told

    def initialise_told(self, generator: torch.Generator) -> None:
        """Draw new weights of the embeddings from ``generator``."""
        for layer in (self.embed[0], self.embed[2]):
            kaiming(layer, generator)
        if hasattr(self, "classes"):
            with torch.no_grad():
                self.classes.weight.normal_(0, 1, generator=generator)


class ResidualBlock(nn.Module):
    """x + conv(relu(film(conv(x), embedding))); without ``film`` where there is no embedding to tell it of.

    Args:
        channels: of x.
        embedding: width of the embedding; 0 for none.
        hidden: channels between the convolutions; None is ``channels``.
        taps: side of the filters, odd. With 1, on a picture of one pixel, the block is a dense one.
    """

    def __init__(self, channels: int, embedding: int = 0, *, hidden: int | None = None, taps: int = 3) -> None:
        super().__init__()
        hidden = channels if hidden is None else hidden
        self.first = new(nn.Conv2d, channels, hidden, taps, padding=taps // 2)
        self.second = new(nn.Conv2d, hidden, channels, taps, padding=taps // 2)
        self.film = new(nn.Linear, embedding, 2 * hidden) if embedding else None

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.first(x)
        if self.film is not None:
            scale, shift = self.film(embedding)[:, :, None, None].chunk(2, dim=1)
            h = torch.addcmul(shift, h, 1 + scale)
        out: Tensor = x + self.second(F.relu(h))
        return out

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights from ``generator``."""
        kaiming(self.first, generator)
        kaiming(self.second, generator, gain=_BRANCH_GAIN)
        if self.film is not None:
            zero(self.film)


def new(kind: type[nn.Module], *args: int, **options: int) -> Any:
    """A layer whose weights are not drawn yet: torch would draw them from its global generator."""
    return skip_init(kind, *args, **options)  # type: ignore[no-untyped-call]


def kaiming(layer: Any, generator: torch.Generator, gain: float = 1.0) -> None:
    """Draw the weights of a convolution or linear layer that keeps the size of its input; the bias is 0."""
    # A stride-2 transposed convolution feeds each output pixel from one tap, so its fan-in is the channel count alone.
    taps = 1 if isinstance(layer, nn.ConvTranspose2d) else layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
    inputs = layer.weight.shape[0] if isinstance(layer, nn.ConvTranspose2d) else layer.weight.shape[1]
    with torch.no_grad():
        layer.weight.normal_(0, gain * (2 / (inputs * taps)) ** 0.5, generator=generator)
        layer.bias.zero_()


def zero(layer: Any) -> None:
    """Set weights and bias to 0."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()


def residual_weights(channels: Iterable[int], blocks: Iterable[int]) -> int:
    """Weights in the residual blocks of a network, without biases and embeddings: ``blocks`` at each width."""
    return sum(18 * width**2 * count for width, count in zip(channels, blocks, strict=True))


def check_depth(levels: int, blocks: int) -> None:
    """Raise UsageError where a network is deeper than any that is of use, before time is taken to build it."""
    if levels > MOST_LEVELS or blocks > MOST_BLOCKS:
        raise UsageError(
            f"A network has at most {MOST_LEVELS} levels and {MOST_BLOCKS} blocks; got {levels} and {blocks}."
        )
