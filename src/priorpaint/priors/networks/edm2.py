"""The magnitude-preserving U-Net of EDM2 (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of
Diffusion Models", Figure 21). Equations by their numbers there.

Weights are stored raw; `settle` turns them, once, into those that the layers apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .edm_layers import List, Pyramid, Share, Taps, Whole, resampled
from .layers import Positive, attend

_EPS = 1e-4
_SILU_GAIN = 0.596


@dataclass(frozen=True)
class EDM2Config:
    """Shape of the network; the fields are the published constructor's arguments.

    Attributes:
        channel_mult_noise, channel_mult_emb: None: the first, and the largest, of the levels' widths.
        heads: heads of a block by its name, where the file says so.
    """

    __pydantic_config__ = {"extra": "forbid"}

    img_resolution: Positive
    img_channels: Positive
    label_dim: Whole
    model_channels: Positive = 192
    channel_mult: List = (1, 2, 3, 4)
    channel_mult_noise: Whole | None = None
    channel_mult_emb: Whole | None = None
    num_blocks: Positive = 3
    attn_resolutions: tuple[Whole, ...] = (16, 8)
    label_balance: Share = 0.5
    concat_balance: Share = 0.5
    resample_filter: Taps = (1, 1)
    channels_per_head: Positive = 64
    res_balance: Share = 0.3
    attn_balance: Share = 0.3
    clip_act: float | None = 256
    heads: Mapping[str, int] = field(default_factory=dict)

    @property
    def in_channels(self) -> int:
        """Channels of the picture."""
        return self.img_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output, which are those of the picture."""
        return self.img_channels


class UNet(Pyramid):
    """Call with x (N, C, H, W), ln(sigma) / 4 (N,), and one-hot classes (N, label_dim) or None."""

    config: EDM2Config

    def __init__(self, config: EDM2Config) -> None:
        super().__init__(config)
        widths = [width for _, width in self.levels]
        noise = config.model_channels * (config.channel_mult_noise or 0) or widths[0]
        self._embedding = config.model_channels * (config.channel_mult_emb or 0) or max(widths)
        self.out_gain = nn.Parameter(torch.empty(()))
        self.emb_fourier = Fourier(noise)
        self.emb_noise = Weighted(noise, self._embedding)
        self.emb_label = Weighted(config.label_dim, self._embedding) if config.label_dim else None
        out = self._build(Weighted(config.img_channels + 1, widths[0], 3), widths[0])
        self.out_conv = Weighted(out, config.img_channels, 3)

    def _block(self, name: str, channels: int, out: int, change: str, attends: bool) -> Block:
        heads = self.config.heads.get(name, out // self.config.channels_per_head if attends else 0)
        return Block(channels, out, self._embedding, self.config, name.startswith("enc"), change, heads)

    def settle(self) -> None:
        """Turn the stored weights into those that the layers apply (Eq. 47); to be called once, in float32."""
        for module in self.modules():
            if isinstance(module, Weighted):
                module.settle()

    def forward(self, x: Tensor, noise: Tensor, classes: Tensor | None = None) -> Tensor:
        config = self.config
        embedding = self.emb_noise(self.emb_fourier(noise).to(x.dtype))
        if self.emb_label is not None:
            one_hot = x.new_zeros(len(x), config.label_dim) if classes is None else classes.to(x.dtype)
            embedding = blend(embedding, self.emb_label(one_hot * sqrt(config.label_dim)), config.label_balance)
        embedding = silu(embedding)
        x = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
        x = self._through(x, embedding, lambda a, b: join(a, b, config.concat_balance))
        out: Tensor = self.out_conv(x) * self.out_gain
        return out


class Block(nn.Module):
    """A residual block of the encoder or decoder, with self-attention where ``heads`` > 0."""

    def __init__(
        self, channels: int, out: int, embedding: int, config: EDM2Config, encodes: bool, change: str, heads: int
    ) -> None:
        super().__init__()
        self.config, self.encodes, self.change, self.heads = config, encodes, change, heads
        self.emb_gain = nn.Parameter(torch.empty(()))
        self.conv_res0 = Weighted(out if self.encodes else channels, out, 3)
        self.emb_linear = Weighted(embedding, out)
        self.conv_res1 = Weighted(out, out, 3)
        self.conv_skip = Weighted(channels, out, 1) if channels != out else None
        if heads:
            self.attn_qkv, self.attn_proj = Weighted(out, 3 * out, 1), Weighted(out, out, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        if self.change:
            line = torch.tensor(self.config.resample_filter, dtype=x.dtype, device=x.device)
            line = line / line.sum()
            x = resampled(x, torch.outer(line, line), self.change, (len(line) - 1) // 2)
        skipped = x if self.conv_skip is None else self.conv_skip(x)
        if self.encodes:
            x = skipped = unit(skipped, 1)
        h = self.conv_res0(silu(x))
        scale = self.emb_linear(embedding) * self.emb_gain + 1
        h = self.conv_res1(silu(h * scale[:, :, None, None]))
        x = blend(skipped, h, self.config.res_balance)
        if self.heads:
            x = blend(x, self._attention(x), self.config.attn_balance)
        limit = self.config.clip_act
        return x if limit is None else x.clamp(-limit, limit)

    def _attention(self, x: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        mixed = self.attn_qkv(x).reshape(rows, self.heads, channels // self.heads, 3, height * width)
        out: Tensor = self.attn_proj(attend(*unit(mixed, 2).unbind(3)).reshape(x.shape))
        return out


class Weighted(nn.Module):
    """A convolution, or a linear map where ``kernel`` is 0, without bias; each output has a weight of unit length."""

    def __init__(self, channels: int, out: int, kernel: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty((out, channels, kernel, kernel) if kernel else (out, channels)))

    @torch.no_grad()
    def settle(self) -> None:
        """Normalise, and divide by the square root of the number of inputs."""
        size = self.weight[0].numel()
        self.weight.copy_(unit(self.weight, tuple(range(1, self.weight.ndim))) / sqrt(size))

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.ndim == 2:
            return F.linear(x, self.weight)
        return F.conv2d(x, self.weight, padding=self.weight.shape[-1] // 2)


class Fourier(nn.Module):
    """sqrt(2) cos(f t + p) (Eq. 75): (N,) -> (N, channels), float32."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.empty(channels))
        self.register_buffer("phases", torch.empty(channels))

    def forward(self, t: Tensor) -> Tensor:
        return sqrt(2) * torch.cos(t.float()[:, None] * self.freqs.float() + self.phases.float())


def unit(x: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """x with root mean square 1 along ``dim``."""
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True, dtype=torch.float32)
    scaled: Tensor = x / (_EPS + length * sqrt(length.numel() / x.numel())).to(x.dtype)
    return scaled


def silu(x: Tensor) -> Tensor:
    """SiLU that keeps the magnitude of standard normal numbers (Eq. 81)."""
    return F.silu(x) / _SILU_GAIN


def blend(a: Tensor, b: Tensor, share: float) -> Tensor:
    """(1 - share) a + share b at the magnitude of one (Eq. 88)."""
    return a.lerp(b, share) / sqrt((1 - share) ** 2 + share**2)


def join(a: Tensor, b: Tensor, share: float) -> Tensor:
    """a and b side by side, b with a ``share`` of the magnitude (Eq. 103)."""
    first, second = a.shape[1], b.shape[1]
    gain = sqrt((first + second) / ((1 - share) ** 2 + share**2))
    return torch.cat([gain * (1 - share) / sqrt(first) * a, gain * share / sqrt(second) * b], dim=1)
