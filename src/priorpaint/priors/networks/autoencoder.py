"""The autoencoders of latent diffusion (Esser et al. 2021; Rombach et al. 2022): with a KL term, or with a codebook.

As a prior needs them: `encode` gives latents in the denoiser's scale, `decode` takes them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import GroupNorm, Positive, Positives, Truth, attend, upsample


@dataclass(frozen=True)
class AutoencoderConfig:
    """Shape of encoder and decoder: the ``ddconfig`` of the published program.

    Attributes:
        in_channels, out_ch: channels of the picture.
        ch: width of the finest level.
        num_res_blocks: residual blocks of a level in the encoder (the decoder has one more).
        z_channels: between encoder and latent.
        resolution: side of the pictures that it was trained on.
        ch_mult: width of each level over ``ch``, the finest first.
        attn_resolutions: sides of the levels with attention.
        attn_type: ``none``: there is no attention, not even in the middle.
        double_z: whether the encoder gives mean and log variance (KL).
        resamp_with_conv: whether the resolution is changed by convolutions, or by means and repetition alone.
        tanh_out: whether the decoder ends in tanh.
    """

    __pydantic_config__ = {"strict": False}

    in_channels: Positive
    out_ch: Positive
    ch: Positive
    num_res_blocks: Positive
    z_channels: Positive
    resolution: Positive
    ch_mult: Positives = (1, 2, 4, 8)
    attn_resolutions: Positives = ()
    attn_type: Literal["vanilla", "none"] = "vanilla"
    double_z: Truth = True
    resamp_with_conv: Truth = True
    tanh_out: Truth = False
    give_pre_end: Literal[False] = False
    use_linear_attn: Literal[False] = False

    @property
    def levels(self) -> list[tuple[int, bool]]:
        """(channels, whether it attends) of each level."""
        sides = [self.resolution // 2**level for level in range(len(self.ch_mult))]
        attends = [self.attn_type == "vanilla" and side in self.attn_resolutions for side in sides]
        return [(self.ch * times, attend) for times, attend in zip(self.ch_mult, attends, strict=True)]


class LatentAutoencoder(nn.Module):
    """Encoder and decoder with the scale of the denoiser's latents.

    Args:
        config: the shape.
        embed_dim: channels of the latent.
        codes: rows of the codebook; 0: none.
        scale: a latent is ``scale`` times what the encoder gives.
    """

    def __init__(self, config: AutoencoderConfig, embed_dim: int, codes: int, scale: float) -> None:
        super().__init__()
        self.config, self.scale = config, scale
        self.factor = 2 ** (len(config.ch_mult) - 1)
        self.channels, self.image_channels = embed_dim, config.in_channels
        times = 2 if config.double_z else 1
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(times * config.z_channels, times * embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(embed_dim, config.z_channels, 1)
        self.quantize = Codebook(codes, embed_dim) if codes else None

    def encode(self, image: Tensor) -> Tensor:
        """Image (N, C, H, W) in [-1, 1] -> latent (N, c, H / factor, W / factor): the mean, or what comes before the
        codebook, times ``scale``.
        """
        code = self.quant_conv(self.encoder(self._own(image)))
        mean = code.chunk(2, dim=1)[0] if self.config.double_z else code
        latent: Tensor = self.scale * mean
        return latent.to(image.dtype)

    def decode(self, latent: Tensor) -> Tensor:
        """Latent (N, c, h, w) -> image (N, C, factor h, factor w); with a codebook, by its nearest codes, the gradient
        passing straight through.
        """
        z = self._own(latent) / self.scale
        if self.quantize is not None:
            z = self.quantize(z)
        image: Tensor = self.decoder(self.post_quant_conv(z))
        return image.to(latent.dtype)

    def forward(self, image: Tensor) -> Tensor:
        """The picture through both."""
        return self.decode(self.encode(image))

    def _own(self, x: Tensor) -> Tensor:
        return x.to(self.post_quant_conv.weight.dtype)


class Codebook(nn.Module):
    """Each cell becomes its nearest code."""

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        # With its weight given: torch draws the first weights of an embedding even on the meta device.
        self.embedding = nn.Embedding(codes, channels, _weight=torch.empty(codes, channels))

    def forward(self, z: Tensor) -> Tensor:
        codes = self.embedding.weight
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        with torch.no_grad():
            distances = flat.square().sum(1, keepdim=True) - 2 * flat @ codes.T + codes.square().sum(1)
            nearest = codes[distances.argmin(1)]
        nearest = nearest.reshape(len(z), *z.shape[2:], z.shape[1]).permute(0, 3, 1, 2)
        return z + (nearest - z).detach() if z.requires_grad else nearest


class Encoder(nn.Module):
    """Picture -> (N, z_channels or twice as many, H / factor, W / factor)."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        channels = config.ch
        self.conv_in = nn.Conv2d(config.in_channels, channels, 3, padding=1)
        self.down = nn.ModuleList()
        for level, (width, attends) in enumerate(config.levels, start=1):
            change = None if level == len(config.levels) else _downsample(width, config.resamp_with_conv)
            self.down.append(Level(channels, width, config.num_res_blocks, attends, "downsample", change))
            channels = width
        self.mid = Middle(channels, config.attn_type == "vanilla")
        self.norm_out = _norm(channels)
        out = config.z_channels * (2 if config.double_z else 1)
        self.conv_out = nn.Conv2d(channels, out, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(self.mid(h))))
        return out


class Decoder(nn.Module):
    """(N, z_channels, h, w) -> picture."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.tanh = config.tanh_out
        channels = config.levels[-1][0]
        self.conv_in = nn.Conv2d(config.z_channels, channels, 3, padding=1)
        self.mid = Middle(channels, config.attn_type == "vanilla")
        levels: list[nn.Module] = []
        for level, (width, attends) in reversed(list(enumerate(config.levels))):
            change = upsample(width, config.resamp_with_conv) if level else None
            levels.insert(0, Level(channels, width, config.num_res_blocks + 1, attends, "upsample", change))
            channels = width
        self.up = nn.ModuleList(levels)
        self.norm_out = _norm(channels)
        self.conv_out = nn.Conv2d(channels, config.out_ch, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return torch.tanh(out) if self.tanh else out


class Level(nn.Module):
    """Residual blocks of one resolution, each with attention or none, then the change to the next."""

    def __init__(
        self, channels: int, out: int, blocks: int, attends: bool, change_name: str, change: nn.Module | None
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(Residual(channels if i == 0 else out, out) for i in range(blocks))
        self.attn = nn.ModuleList(PixelAttention(out) for _ in range(blocks if attends else 0))
        self._change = change_name
        if change is not None:
            self.add_module(change_name, change)

    def forward(self, h: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            h = block(h)
            if len(self.attn):
                h = self.attn[index](h)
        change = getattr(self, self._change, None)
        return h if change is None else change(h)


class Middle(nn.Module):
    """Two residual blocks with attention between them, or none."""

    def __init__(self, channels: int, attends: bool) -> None:
        super().__init__()
        self.block_1 = Residual(channels, channels)
        self.attn_1: nn.Module = PixelAttention(channels) if attends else nn.Identity()
        self.block_2 = Residual(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.block_2(self.attn_1(self.block_1(h)))
        return out


class Residual(nn.Module):
    """Two convolutions, added to the input."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(channels), nn.Conv2d(channels, out, 3, padding=1)
        self.norm2, self.conv2 = _norm(out), nn.Conv2d(out, out, 3, padding=1)
        if channels != out:
            self.nin_shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        out: Tensor = h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)
        return out


class PixelAttention(nn.Module):
    """Attention of all pixels to all pixels, one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2)[:, None] for part in (self.q, self.k, self.v))
        out: Tensor = x + self.proj_out(attend(q, k, v).reshape(x.shape))
        return out


def _downsample(channels: int, with_conv: bool) -> nn.Module:
    """Half the resolution; the convolution pads on the right and below only."""
    if not with_conv:
        return nn.AvgPool2d(2)
    return nn.Sequential(OrderedDict(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=nn.Conv2d(channels, channels, 3, 2)))


def _norm(channels: int) -> GroupNorm:
    return GroupNorm(32, channels, eps=1e-6)
