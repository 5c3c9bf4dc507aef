"""A dense residual network that predicts the picture itself, for small aligned pictures.

Convolutions look for the same things everywhere. In faces, letters or sprites that stand at the same place in every
picture, what a place shows says most of what there is to know about it; a layer that joins all places learns that at
once. Such pictures also lie near a set of few dimensions, which noise does not: the network therefore predicts x_0 and
not the noise, which no layer narrower than the picture could copy through (Li and He 2025, "Back to Basics: Let
Denoising Generative Models Denoise").
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priorpaint.errors import UsageError
from priorpaint.priors.native.layers import ToldNetwork, check_depth, kaiming, new, zero

_BRANCH_GAIN = 0.2
_EPSILON = 1e-4


@dataclass(frozen=True)
class MLPConfig:
    """The shape of an `MLP`.

    Args:
        side: height and width of the pictures in pixels; it knows no other.
        width: numbers that are handed from block to block.
        hidden: hidden width of each block.
        cell: pixels along a side of a cell. In pixel art drawn larger, where every cell has one colour, the means of
            the cells say all there is to say about it; 1 for other pictures.
        embedding: width of the embedding of the noise level.
        in_channels: channels of the picture (3 = RGB, 1 = grey).
        classes: number of classes that it can be told; 0 for none. Beside them stands the null class, number
            ``classes``: any picture.

    Raises:
        UsageError: a width is not positive, there is no block, or the cells do not fill the picture.
    """

    __pydantic_config__ = {"extra": "forbid"}

    side: int
    width: int = 768
    hidden: tuple[int, ...] = (512,) * 6
    cell: int = 1
    embedding: int = 64
    in_channels: int = 3
    classes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(int(count) for count in self.hidden))
        if not self.hidden or min(self.side, self.width, *self.hidden, self.embedding, self.in_channels) < 1:
            raise UsageError("A dense network needs at least one block, and its side and widths must be positive.")
        check_depth(1, len(self.hidden))
        if self.cell < 1 or self.side % self.cell:
            raise UsageError(f"Cells of {self.cell} pixels do not fill pictures of {self.side}x{self.side}.")
        if self.classes < 0:
            raise UsageError(f"A network cannot have {self.classes} classes; use 0 for none.")

    @property
    def learned_variance(self) -> bool:
        """It predicts no variance."""
        return False

    @property
    def multiple(self) -> int:
        """Height and width of the input are this."""
        return self.side

    @property
    def numbers(self) -> int:
        """Numbers in a picture, one for each cell and channel."""
        return self.in_channels * (self.side // self.cell) ** 2

    @property
    def fewest_weights(self) -> int:
        """What such a network has at least, known without building it."""
        told = self.embedding * (self.embedding + self.classes)
        return 2 * self.width * (self.numbers + sum(self.hidden)) + told

    def __str__(self) -> str:
        return (
            f"width {self.width}, dense blocks {self.hidden} for {self.side} x {self.side} in cells of {self.cell}, "
            f"{self.in_channels} input channels and {self.classes} classes"
        )


class MLP(ToldNetwork):
    """D(x, c_noise) = E[x_0 | x] itself; see `MLPConfig` for its shape.

    Args:
        config: widths and depths.
        seed: seed of the initial weights; the output layer starts at zero, so an untrained D is 0 everywhere.
    """

    def __init__(self, config: MLPConfig, *, seed: int = 0) -> None:
        super().__init__(config.embedding, config.classes)
        self.config = config
        self.head = new(nn.Linear, config.numbers, config.width)
        self.blocks = nn.ModuleList(_Block(config.width, hidden, config.embedding) for hidden in config.hidden)
        self.tail = new(nn.Linear, config.width, config.numbers)
        self.initialise(seed)

    @property
    def ends(self) -> tuple[nn.Module, ...]:
        """The layers that read the input and write the output."""
        return self.head, self.tail

    def initialise(self, seed: int) -> None:
        """Draw new weights from ``seed``; torch's global generator is neither read nor moved."""
        generator = torch.Generator().manual_seed(seed)
        kaiming(self.head, generator)
        for block in self.blocks:
            block.initialise(generator)  # type: ignore[operator]
        zero(self.tail)
        self.initialise_told(generator)

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: noisy pictures x_0 + sigma n, shape (N, C, side, side), not scaled.
            c_noise: ln(sigma) / 4, shape (N,).
            labels: classes, int64, shape (N,); ``config.classes`` is the null class, and None is that for every row.

        Returns:
            The denoised pictures, shape (N, C, side, side).

        Raises:
            UsageError: pictures of another shape, or labels for a network without classes.
        """
        config = self.config
        if tuple(x.shape[1:]) != (config.in_channels, config.side, config.side):
            raise UsageError(
                f"This network knows pictures of shape (N, {config.in_channels}, {config.side}, {config.side}) only; "
                f"got {tuple(x.shape)}."
            )
        embedding = self.told(c_noise, labels)
        cells = F.avg_pool2d(x, config.cell) if config.cell > 1 else x
        sigma = (4 * c_noise).exp() / config.cell
        h = self.head(cells.flatten(1) * (1 + sigma**2).rsqrt()[:, None].to(x.dtype))
        for block in self.blocks:
            h = block(h, embedding)
        out: Tensor = self.tail(_unit(h)).reshape(cells.shape)
        return out.repeat_interleave(config.cell, 2).repeat_interleave(config.cell, 3)


class _Block(nn.Module):
    """x + linear(silu(film(linear(x / rms(x)), embedding)))."""

    def __init__(self, width: int, hidden: int, embedding: int) -> None:
        super().__init__()
        self.first = new(nn.Linear, width, hidden)
        self.second = new(nn.Linear, hidden, width)
        self.film = new(nn.Linear, embedding, 2 * hidden)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding).chunk(2, dim=1)
        h = torch.addcmul(shift, self.first(_unit(x)), 1 + scale)
        out: Tensor = x + self.second(F.silu(h))
        return out

    def initialise(self, generator: torch.Generator) -> None:
        """Draw new weights from ``generator``."""
        kaiming(self.first, generator)
        kaiming(self.second, generator, gain=_BRANCH_GAIN)
        zero(self.film)


def _unit(x: Tensor) -> Tensor:
    """Rows (N, width) brought to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + _EPSILON).rsqrt()
