"""The two U-Nets of EDM: that of score-based models (DDPM++, NCSN++) and that of ADM, as EDM rewrote them.

Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models"; Song et al. 2021;
Dhariwal and Nichol 2021. Names of weights are the published ones; layers are called by their resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .edm_layers import Block, BlockStyle, Conv, Fourier, List, Pyramid, Taps, Whole, norm, positional
from .layers import Positive

_HEAD = 64  # channels of an attention head in the ADM variant


@dataclass(frozen=True)
class EDMConfig:
    """Shape of either network; the fields are the published constructors' arguments.

    Attributes:
        heads: heads of a block by its name, where the file says so; else one, or a head for each 64 channels.
    """

    __pydantic_config__ = {"extra": "forbid"}

    img_resolution: Positive
    in_channels: Positive
    out_channels: Positive
    label_dim: Whole = 0
    augment_dim: Whole = 0
    model_channels: Positive = 128
    channel_mult: List = (1, 2, 2, 2)
    channel_mult_emb: Whole = 4
    num_blocks: Positive = 4
    attn_resolutions: tuple[Whole, ...] = (16,)
    embedding_type: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: Whole = 1
    encoder_type: Literal["standard", "skip", "residual"] = "standard"
    decoder_type: Literal["standard", "skip"] = "standard"
    resample_filter: Taps = (1, 1)
    heads: Mapping[str, int] = field(default_factory=dict)


class _UNet(Pyramid):
    """What both have in common: one residual block, in a style of their own."""

    config: EDMConfig

    def __init__(self, config: EDMConfig, style: BlockStyle) -> None:
        super().__init__(config)
        self._style = style

    def _block(self, name: str, channels: int, out: int, change: str, attends: bool) -> Block:
        heads = self.config.heads.get(name, self._heads(out) if attends else 0)
        return Block(channels, out, self._style, change, heads)

    def _heads(self, channels: int) -> int:
        return 1


class SongUNet(_UNet):
    """DDPM++ and NCSN++: call with x (N, C, H, W), noise condition (N,) and one-hot classes (N, classes) or None."""

    def __init__(self, config: EDMConfig) -> None:
        noise = config.model_channels * config.channel_mult_noise
        embedding = config.model_channels * config.channel_mult_emb
        super().__init__(config, BlockStyle(embedding, sqrt(0.5), 1e-6, config.resample_filter, True, False))
        self.map_noise = Fourier(noise) if config.embedding_type == "fourier" else None
        self._noise = noise
        if config.label_dim:
            self.map_label = nn.Linear(config.label_dim, noise)
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, noise, bias=False)
        self.map_layer0, self.map_layer1 = nn.Linear(noise, embedding), nn.Linear(embedding, embedding)
        self._beside = config.in_channels
        self._build(Conv(config.in_channels, config.model_channels, 3), config.model_channels)

    def _decoder_attends(self, index: int) -> bool:
        return index == self.config.num_blocks

    def _beside_encoder(self, side: int, channels: int) -> None:
        taps = self.config.resample_filter
        if self.config.encoder_type == "skip":
            self.enc[f"{side}x{side}_aux_down"] = Conv(self._beside, self._beside, 0, "down", taps)
            self.enc[f"{side}x{side}_aux_skip"] = Conv(self._beside, channels, 1)
        elif self.config.encoder_type == "residual":
            self.enc[f"{side}x{side}_aux_residual"] = Conv(self._beside, channels, 3, "down", taps, fused=True)
            self._beside = channels

    def _beside_decoder(self, level: int, side: int, channels: int) -> None:
        config = self.config
        if config.decoder_type == "skip" or level == 0:
            if config.decoder_type == "skip" and level < len(config.channel_mult) - 1:
                taps = config.resample_filter
                self.dec[f"{side}x{side}_aux_up"] = Conv(config.out_channels, config.out_channels, 0, "up", taps)
            self.dec[f"{side}x{side}_aux_norm"] = norm(channels, 1e-6)
            self.dec[f"{side}x{side}_aux_conv"] = Conv(channels, config.out_channels, 3)

    def forward(self, x: Tensor, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        embedding = self._embedding(x, noise, classes)
        skips: list[Tensor] = []
        beside = x
        for name, layer in self.enc.items():
            if "aux_down" in name:
                beside = layer(beside)
            elif "aux_skip" in name:
                x = skips[-1] = x + layer(beside)
            elif "aux_residual" in name:
                x = skips[-1] = beside = (x + layer(beside)) / sqrt(2)
            else:
                x = layer(x, embedding) if isinstance(layer, Block) else layer(x)
                skips.append(x)
        out: Tensor | None = None
        normed = x
        for name, layer in self.dec.items():
            if "aux_up" in name:
                out = layer(out)
            elif "aux_norm" in name:
                normed = layer(x)
            elif "aux_conv" in name:
                added = layer(F.silu(normed))
                out = added if out is None else added + out
            else:
                x = layer(torch.cat([x, skips.pop()], dim=1) if "block" in name else x, embedding)
        assert out is not None
        return out

    def _embedding(self, x: Tensor, noise: Tensor, classes: Tensor | None) -> Tensor:
        fourier = self.map_noise
        embedding = positional(noise, self._noise, endpoint=True) if fourier is None else fourier(noise)
        # These networks were trained with (sin, cos).
        embedding = embedding.unflatten(1, (2, -1)).flip(1).flatten(1).to(x.dtype)
        if self.config.label_dim:
            embedding = embedding + self.map_label(_rows(classes, x, self.config) * sqrt(self.config.label_dim))
        return F.silu(self.map_layer1(F.silu(self.map_layer0(embedding))))


class DhariwalUNet(_UNet):
    """The ADM network: call with x (N, C, H, W), the noise condition (N,) and one-hot classes (N, classes) or None."""

    def __init__(self, config: EDMConfig) -> None:
        width, embedding = config.model_channels, config.model_channels * config.channel_mult_emb
        super().__init__(config, BlockStyle(embedding, 1.0, 1e-5, (1, 1), False, True))
        if config.augment_dim:
            self.map_augment = nn.Linear(config.augment_dim, width, bias=False)
        self.map_layer0, self.map_layer1 = nn.Linear(width, embedding), nn.Linear(embedding, embedding)
        if config.label_dim:
            self.map_label = nn.Linear(config.label_dim, embedding, bias=False)
        channels = self._build(Conv(config.in_channels, self.levels[0][1], 3), self.levels[0][1])
        self.out_norm = norm(channels)
        self.out_conv = Conv(channels, config.out_channels, 3)

    def _heads(self, channels: int) -> int:
        return channels // _HEAD

    def forward(self, x: Tensor, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        embedding = positional(noise, self.config.model_channels, endpoint=False).to(x.dtype)
        embedding = self.map_layer1(F.silu(self.map_layer0(embedding)))
        if self.config.label_dim:
            embedding = embedding + self.map_label(_rows(classes, x, self.config))
        x = self._through(x, F.silu(embedding), lambda a, b: torch.cat([a, b], dim=1))
        out: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return out


def _rows(classes: Tensor | None, x: Tensor, config: EDMConfig) -> Tensor:
    return x.new_zeros(len(x), config.label_dim) if classes is None else classes.to(x.dtype)


class Labelled(nn.Module):
    """A network of one-hot classes, called with ``labels`` (N,) int64; a negative label, or None, is no class.

    Args:
        network: called as network(x, condition, one_hot or None).
        classes: number of classes.
        sign: multiplies the output.
    """

    def __init__(self, network: nn.Module, classes: int, sign: float = 1.0) -> None:
        super().__init__()
        self.network, self.classes, self.sign = network, classes, sign

    def forward(self, x: Tensor, condition: Tensor, labels: Tensor | None = None) -> Tensor:
        out: Tensor = self.network(x, condition, None if labels is None else self._one_hot(labels, x))
        return out if self.sign == 1 else self.sign * out

    def _one_hot(self, labels: Tensor, x: Tensor) -> Tensor:
        known = F.one_hot(labels.clamp(min=0), self.classes).to(x.dtype)
        return known * (labels >= 0).to(x.dtype)[:, None]


NETWORKS: dict[str, Callable[[EDMConfig], _UNet]] = {"SongUNet": SongUNet, "DhariwalUNet": DhariwalUNet}
