"""A norm-free residual U-Net for denoising pictures of any size.

The picture is cut into 2x2 blocks (space to depth), so that the costly convolutions run at half resolution. The noise
level enters twice: as a constant input plane, which lets every filter scale with it, and as a per-channel scale and
shift inside every block (FiLM, Perez et al. 2018). There is no attention and no normalisation over the picture: what a
pixel becomes depends on its neighbourhood and never on the size of the picture around it.

In aligned pictures (faces, sprites, letters) the place of a pixel says what it is. For these the network can have dense
blocks at its bottom, which join every place with every other at a small part of the cost of convolutions; it then knows
one size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priorpaint.errors import UsageError
from priorpaint.priors.native.layers import (
    ResidualBlock,
    ToldNetwork,
    check_depth,
    kaiming,
    new,
    residual_weights,
    zero,
)


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a `UNet`.

    Args:
        channels: width of each level, from half resolution downwards; each level halves height and width.
        blocks: residual blocks of each level (on the way down, and again on the way up except for the last level).
        embedding: width of the embedding of the noise level.
        in_channels: channels of the picture (3 = RGB, 1 = grey).
        classes: number of classes that it can be told; 0 for none. Beside them stands the null class, number
            ``classes``: any picture.
        learned_variance: the output has a second set of channels, for the variance (improved DDPM).
        dense: hidden width of each dense block; () for none.
        side: height and width of the pictures, for dense blocks; 0 for any.

    Raises:
        UsageError: a width or count is not positive, the two lists differ in length, or ``side`` does not fit.
    """

    __pydantic_config__ = {"extra": "forbid"}

    channels: tuple[int, ...] = (48, 80, 128, 192)
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    embedding: int = 64
    in_channels: int = 3
    classes: int = 0
    learned_variance: bool = False
    dense: tuple[int, ...] = ()
    side: int = 0

    def __post_init__(self) -> None:
        for name in ("channels", "blocks", "dense"):
            object.__setattr__(self, name, tuple(int(count) for count in getattr(self, name)))
        if not self.channels or len(self.channels) != len(self.blocks):
            raise UsageError(
                f"The network has {len(self.channels)} channel counts and {len(self.blocks)} block counts; "
                "give one of each per level."
            )
        check_depth(len(self.channels), sum(self.blocks) + len(self.dense))
        if min(*self.channels, *self.blocks, *self.dense, self.embedding, self.in_channels) < 1:
            raise UsageError("Channel counts, block counts and the other widths of a network must be positive.")
        if self.side < 0 or self.side % self.multiple or bool(self.side) != bool(self.dense):
            raise UsageError(
                f"Dense blocks, and they alone, need the side of the pictures, a multiple of {self.multiple} for "
                f"{len(self.channels)} levels; got {self.side} and {len(self.dense)} blocks."
            )
        if self.classes < 0:
            raise UsageError(f"A network cannot have {self.classes} classes; use 0 for none.")

    @property
    def out_channels(self) -> int:
        """Channels of the raw output."""
        return self.in_channels * (2 if self.learned_variance else 1)

    @property
    def multiple(self) -> int:
        """Height and width of the input must be a multiple of this."""
        return int(2 ** len(self.channels))

    @property
    def joined(self) -> int:
        """Numbers that a dense block sees."""
        return self.channels[-1] * (self.side // self.multiple) ** 2

    @property
    def fewest_weights(self) -> int:
        """What such a network has at least, known without building it."""
        ends = 36 * self.channels[0] * (self.in_channels + self.out_channels)
        told = self.embedding * (self.embedding + self.classes)
        return residual_weights(self.channels, self.blocks) + 2 * self.joined * sum(self.dense) + ends + told

    def __str__(self) -> str:
        dense = f", dense blocks {self.dense} for {self.side} x {self.side}" if self.dense else ""
        return (
            f"channels {self.channels}, blocks {self.blocks}{dense}, {self.in_channels} input channels and "
            f"{self.classes} classes"
        )


class UNet(ToldNetwork):
    """The raw network F(x, c_noise); see `UNetConfig` for its shape.

    Args:
        config: widths and depths.
        seed: seed of the initial weights; the output layer starts at zero, so an untrained F is 0 everywhere.
    """

    def __init__(self, config: UNetConfig | None = None, *, seed: int = 0) -> None:
        config = config or UNetConfig()
        super().__init__(config.embedding, config.classes)
        self.config = config
        widths, width = config.channels, config.embedding
        planes = 4 * config.in_channels
        self.head = new(nn.Conv2d, planes + 1, widths[0], 3, padding=1)
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.encoder = nn.ModuleList(_level(c, n, width) for c, n in zip(widths[:-1], config.blocks[:-1], strict=True))
        self.shrink = nn.ModuleList(new(nn.Conv2d, a, b, 2, stride=2) for a, b in pairs)
        self.bottom = _level(widths[-1], config.blocks[-1], width)
        self.dense = nn.ModuleList(
            ResidualBlock(config.joined, width, hidden=hidden, taps=1) for hidden in config.dense
        )
        self.grow = nn.ModuleList(new(nn.ConvTranspose2d, b, a, 2, stride=2) for a, b in pairs)
        self.decoder = nn.ModuleList(_level(c, n, width) for c, n in zip(widths[:-1], config.blocks[:-1], strict=True))
        self.tail = new(nn.Conv2d, widths[0], 4 * config.out_channels, 3, padding=1)
        self.initialise(seed)

    @property
    def ends(self) -> tuple[nn.Module, ...]:
        """The convolutions that read the input and write the output."""
        return self.head, self.tail

    def initialise(self, seed: int) -> None:
        """Draw new weights from ``seed``; torch's global generator is neither read nor moved."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.initialise(generator)
        for layer in (self.head, *self.shrink, *self.grow):
            kaiming(layer, generator)
        zero(self.tail)
        self.initialise_told(generator)  # last, so that all other weights are those of a network without classes

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Evaluate the network.

        Args:
            x: scaled noisy pictures, shape (N, C, H, W), H and W multiples of ``config.multiple``.
            c_noise: ln(sigma / alpha) / 4, shape (N,).
            labels: classes, int64, shape (N,); ``config.classes`` is the null class, and None is that for every row.

        Returns:
            Raw output, shape (N, C, H, W), or (N, 2 C, H, W) with a learned variance.

        Raises:
            UsageError: wrong number of channels, a height or width that the network cannot halve often enough, or
                labels for a network without classes.
        """
        self._check(x)
        embedding = self.told(c_noise, labels)
        h = F.pixel_unshuffle(x, 2)
        plane = c_noise[:, None, None, None].to(h.dtype).expand(-1, 1, *h.shape[2:])
        h = self.head(torch.cat([h, plane], dim=1).contiguous(memory_format=torch.channels_last))
        skips = []
        for level, shrink in zip(self.encoder, self.shrink, strict=True):
            h = _run(level, h, embedding)
            skips.append(h)
            h = shrink(h)
        h = _run(self.bottom, h, embedding)
        if self.config.dense:
            joined = _run(self.dense, h.reshape(len(h), -1, 1, 1), embedding)
            h = joined.reshape(h.shape).contiguous(memory_format=torch.channels_last)
        for level, grow, skip in zip(reversed(self.decoder), reversed(self.grow), reversed(skips), strict=True):
            h = _run(level, grow(h) + skip, embedding)
        return F.pixel_shuffle(self.tail(h), 2)

    def _check(self, x: Tensor) -> None:
        if x.ndim != 4 or x.shape[1] != self.config.in_channels:
            raise UsageError(
                f"The network reads pictures of shape (N, {self.config.in_channels}, H, W); got {tuple(x.shape)}."
            )
        if x.shape[2] % self.config.multiple or x.shape[3] % self.config.multiple:
            raise UsageError(
                f"Height and width must be multiples of {self.config.multiple} for this network; pad the picture of "
                f"{x.shape[2]}x{x.shape[3]} pixels."
            )
        if self.config.side and tuple(x.shape[2:]) != (self.config.side, self.config.side):
            raise UsageError(
                f"This network knows pictures of {self.config.side}x{self.config.side} only; got "
                f"{x.shape[2]}x{x.shape[3]}."
            )


def _level(channels: int, count: int, embedding: int) -> nn.ModuleList:
    return nn.ModuleList(ResidualBlock(channels, embedding) for _ in range(count))


def _run(blocks: Any, h: Tensor, embedding: Tensor) -> Tensor:
    for block in blocks:
        h = block(h, embedding)
    return h


def parse_counts(text: str | Sequence[int], name: str) -> tuple[int, ...]:
    """``"48,80,128"`` -> (48, 80, 128); raises `UsageError` naming ``name`` where it is not a list of whole numbers."""
    if not isinstance(text, str):
        return tuple(text)
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{name} must be whole numbers between commas, such as 48,80,128; got {text!r}.") from None
