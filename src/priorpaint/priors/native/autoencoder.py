"""A small convolutional autoencoder for pictures of any size, with latents of mean 0 and standard deviation 1.

As in `unet`, the picture is first cut into blocks (space to depth), so that no convolution runs at its full resolution;
there is no attention and no normalisation over the picture, so that a latent cell depends on its neighbourhood only.

The latent is a code without a distribution. In training it is standardised, channel by channel, and gets noise of a
fixed size before it is decoded: so the decoder is smooth at that scale, no channel is left unused, and neither can be
evaded by larger latents. This is a variational autoencoder with encoder noise of constant relative size (Ghosh et al.
2020, "From variational to deterministic autoencoders", Section 3, on noise as the regulariser of the decoder).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from priorpaint.errors import UsageError
from priorpaint.priors.native.layers import ResidualBlock, check_depth, kaiming, new, residual_weights

_SMALLEST = 1e-4  # standard deviation of a channel that says something
_TAIL_GAIN = 0.1  # first pictures are nearly grey


@dataclass(frozen=True)
class AutoencoderConfig:
    """The shape of a `ConvAutoencoder`.

    Args:
        factor: pixels along each side of a latent cell, a power of two.
        latent_channels: channels of a latent.
        channels: width of each level, from the finest; each further level halves height and width, so that the finest
            one works on blocks of ``factor / 2**(levels - 1)`` pixels.
        blocks: residual blocks of each level, in the encoder and again in the decoder.
        in_channels: channels of the picture (3 = RGB, 1 = grey).

    Raises:
        UsageError: a width or count is not positive, the two lists differ in length, or ``factor`` is not a power of
            two that these levels can reach.
    """

    __pydantic_config__ = {"extra": "forbid"}

    factor: int = 8
    latent_channels: int = 8
    channels: tuple[int, ...] = (64, 128)
    blocks: tuple[int, ...] = (2, 2)
    in_channels: int = 3

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", tuple(int(c) for c in self.channels))
        object.__setattr__(self, "blocks", tuple(int(b) for b in self.blocks))
        if not self.channels or len(self.channels) != len(self.blocks):
            raise UsageError(
                f"The autoencoder has {len(self.channels)} channel counts and {len(self.blocks)} block counts; "
                "give one of each per level."
            )
        check_depth(len(self.channels), sum(self.blocks))
        if min(*self.channels, *self.blocks, self.latent_channels, self.in_channels) < 1:
            raise UsageError("Channel counts and block counts of an autoencoder must be positive.")
        if self.factor < 2 or self.factor & (self.factor - 1) or self.factor < 2 ** (len(self.channels) - 1):
            raise UsageError(
                f"The factor of an autoencoder is a power of two, from 2 on and at least "
                f"{2 ** (len(self.channels) - 1)} for {len(self.channels)} levels; got {self.factor}."
            )

    @property
    def cut(self) -> int:
        """Side of the blocks that the picture is cut into."""
        return int(self.factor // 2 ** (len(self.channels) - 1))

    @property
    def multiple(self) -> int:
        """Height and width of a picture must be a multiple of this."""
        return self.factor

    @property
    def fewest_weights(self) -> int:
        """What such a network has at least, known without building it."""
        ends = 18 * (self.in_channels * self.cut**2 * self.channels[0] + self.latent_channels * self.channels[-1])
        return 2 * residual_weights(self.channels, self.blocks) + ends

    def __str__(self) -> str:
        return (
            f"factor {self.factor}, {self.latent_channels} latent channels, channels {self.channels}, blocks "
            f"{self.blocks} and {self.in_channels} input channels"
        )


class ConvAutoencoder(nn.Module):
    """Encoder and decoder; see `AutoencoderConfig` for the shape, and ``latent.Autoencoder`` for the protocol.

    Args:
        config: widths and depths.
        seed: seed of the initial weights.

    Attributes:
        factor, channels, image_channels: as in the protocol.
        shift, scale: (latent channels,); a latent is (code - shift) * scale. Those of a new network are 0 and 1 until
            `standardise` has seen pictures.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, config: AutoencoderConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config = config or AutoencoderConfig()
        self.factor, self.channels, self.image_channels = config.factor, config.latent_channels, config.in_channels
        planes, widths, blocks = config.in_channels * config.cut**2, config.channels, config.blocks
        pairs = list(zip(widths[:-1], widths[1:], strict=True))
        self.register_buffer("shift", torch.zeros(config.latent_channels))
        self.register_buffer("scale", torch.ones(config.latent_channels))
        shrink = [new(nn.Conv2d, a, b, 2, stride=2) for a, b in pairs]
        grow = [new(nn.ConvTranspose2d, b, a, 2, stride=2) for a, b in pairs]
        levels = [[ResidualBlock(c) for _ in range(n)] for c, n in zip(widths, blocks, strict=True)]
        back = [[ResidualBlock(c) for _ in range(n)] for c, n in zip(widths, blocks, strict=True)]
        self.encoder = nn.Sequential(
            new(nn.Conv2d, planes, widths[0], 3, padding=1),
            *levels[0],
            *(layer for step, level in zip(shrink, levels[1:], strict=True) for layer in (step, *level)),
            new(nn.Conv2d, widths[-1], config.latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            new(nn.Conv2d, config.latent_channels, widths[-1], 3, padding=1),
            *back[-1],
            *(layer for step, level in zip(grow[::-1], back[-2::-1], strict=True) for layer in (step, *level)),
            new(nn.Conv2d, widths[0], planes, 3, padding=1),
        )
        self.initialise(seed)

    @property
    def ends(self) -> tuple[nn.Module, ...]:
        """The convolutions that read or write pictures and latents."""
        return self.encoder[0], self.encoder[-1], self.decoder[0], self.decoder[-1]

    def initialise(self, seed: int) -> None:
        """Draw new weights from ``seed``; torch's global generator is neither read nor moved."""
        generator = torch.Generator().manual_seed(seed)
        for part in (self.encoder, self.decoder):
            for layer in part:
                if isinstance(layer, ResidualBlock):
                    layer.initialise(generator)
                else:
                    kaiming(layer, generator, gain=_TAIL_GAIN if layer is self.decoder[-1] else 1.0)

    def encode(self, image: Tensor) -> Tensor:
        """Pictures (N, C, H, W) in [-1, 1] -> latents (N, latent channels, H / factor, W / factor).

        Raises:
            UsageError: wrong number of channels, or a height or width that is not a multiple of the factor.
        """
        return (self._code(image) - _rows(self.shift)) * _rows(self.scale)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents -> pictures in about [-1, 1]."""
        return F.pixel_shuffle(self.decoder(latent.contiguous(memory_format=torch.channels_last)), self.config.cut)

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """Pictures, through latents with noise, in training: latents are standardised with the numbers of this batch.

        Args:
            image: (N, C, H, W) in [-1, 1].
            noise: what is added to the latents, (N, latent channels, H / factor, W / factor).
        """
        code = self._code(image).float()
        mean, std = _moments(code)
        return self.decode((code - _rows(mean)) / _rows(std) + noise)

    @torch.no_grad()
    def standardise(self, pictures: list[Tensor]) -> None:
        """Set ``shift`` and ``scale`` so that the latents of these pictures (batches) have mean 0 and deviation 1."""
        codes = torch.cat([self._code(batch).float().transpose(0, 1).flatten(1) for batch in pictures], dim=1)
        mean, std = _moments(codes[None])
        self.shift.copy_(mean)
        self.scale.copy_(1 / std)

    def _code(self, image: Tensor) -> Tensor:
        channels, factor = self.config.in_channels, self.config.factor
        if image.ndim != 4 or image.shape[1] != channels:
            raise UsageError(f"The autoencoder reads pictures (N, {channels}, H, W); got {tuple(image.shape)}.")
        if image.shape[2] % factor or image.shape[3] % factor:
            raise UsageError(
                f"Height and width must be multiples of {factor} for this autoencoder; pad the picture of "
                f"{image.shape[2]}x{image.shape[3]} pixels."
            )
        blocks = F.pixel_unshuffle(image, self.config.cut)
        code: Tensor = self.encoder(blocks.contiguous(memory_format=torch.channels_last))
        return code


def _moments(code: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel (axis 1)."""
    flat: Any = code.transpose(0, 1).flatten(1)
    variance, mean = torch.var_mean(flat, dim=1, correction=0)
    return mean, (variance + _SMALLEST**2).sqrt()


def _rows(values: Tensor) -> Tensor:
    return values[:, None, None]
