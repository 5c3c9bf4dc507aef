"""The networks of diffusers, called as ``NetworkPrior`` calls one: (x, what it is told of t, **condition) -> output."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FLUX_PATCH = 2  # latents are packed 2 x 2 into the channels of one token


class _Wrapper(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


class PixelUNet(nn.Module):
    """UNet2DModel; condition: ``labels`` (N,) int64 where it knows classes."""

    def __init__(self, network: nn.Module, *, whole_steps: bool = False) -> None:
        super().__init__()
        self.network, self.whole_steps = network, whole_steps

    def forward(self, x: Tensor, step: Tensor, labels: Tensor | None = None) -> Tensor:
        told = step.round().long() if self.whole_steps else step
        out: Tensor = self.network(x, told, class_labels=labels).sample
        return out


class ScoreUNet(_Wrapper):
    """A UNet2DModel of Song et al. 2021: pictures in [0, 1], told sigma on that scale, predicts the score there.

    On [-1, 1] the noise is twice as large and eps, which is -sigma score, the same.
    """

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        out: Tensor = self.network((x + 1) / 2, sigma).sample
        return -sigma.to(out.dtype).reshape(-1, 1, 1, 1) * out


class TextUNet(nn.Module):
    """UNet2DConditionModel of Stable Diffusion; SDXL is also told ``pooled`` and the picture's size.

    Args:
        factor: pixels of the picture per latent, for the size.
    """

    def __init__(self, network: nn.Module, factor: int) -> None:
        super().__init__()
        self.network, self.factor = network, factor

    def forward(self, x: Tensor, step: Tensor, states: Tensor, pooled: Tensor | None = None) -> Tensor:
        added = None
        if pooled is not None:
            height, width = x.shape[2] * self.factor, x.shape[3] * self.factor
            # Original size, top left corner of the crop, size: a picture as it is, not cropped.
            sizes = torch.tensor([[height, width, 0, 0, height, width]], dtype=pooled.dtype, device=x.device)
            added = {"text_embeds": pooled, "time_ids": sizes.expand(len(x), -1)}
        out: Tensor = self.network(x, step, encoder_hidden_states=states, added_cond_kwargs=added).sample
        return out


class SD3Transformer(_Wrapper):
    """SD3Transformer2DModel."""

    def forward(self, x: Tensor, step: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        out: Tensor = self.network(
            hidden_states=x, timestep=step, encoder_hidden_states=states, pooled_projections=pooled
        ).sample
        return out


class FluxTransformer(nn.Module):
    """FluxTransformer2DModel on latents (N, C, H, W), packed into tokens and back.

    Args:
        guidance: the guidance scale that a distilled model is told (its own, not classifier-free); None for none.
    """

    def __init__(self, network: nn.Module, guidance: float | None) -> None:
        super().__init__()
        self.network, self.guidance = network, guidance

    def forward(self, x: Tensor, step: Tensor, states: Tensor, pooled: Tensor) -> Tensor:
        rows, channels, height, width = x.shape
        down, across = height // FLUX_PATCH, width // FLUX_PATCH
        tokens = x.reshape(rows, channels, down, FLUX_PATCH, across, FLUX_PATCH)
        tokens = tokens.permute(0, 2, 4, 1, 3, 5).reshape(rows, down * across, -1)
        positions = torch.zeros(down, across, 3, device=x.device, dtype=x.dtype)
        positions[..., 1] = torch.arange(down, device=x.device)[:, None]
        positions[..., 2] = torch.arange(across, device=x.device)[None]
        told = None if self.guidance is None else torch.full((rows,), self.guidance, device=x.device)
        out: Tensor = self.network(
            hidden_states=tokens,
            timestep=step / 1000,
            guidance=told,
            pooled_projections=pooled,
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=positions.reshape(-1, 3),
        ).sample
        out = out.reshape(rows, down, across, channels, FLUX_PATCH, FLUX_PATCH)
        return out.permute(0, 3, 1, 4, 2, 5).reshape(rows, channels, height, width)


class DiT(_Wrapper):
    """DiTTransformer2DModel; condition: ``labels`` (N,) int64."""

    def forward(self, x: Tensor, step: Tensor, labels: Tensor) -> Tensor:
        out: Tensor = self.network(x, timestep=step, class_labels=labels).sample
        return out


class Negated(_Wrapper):
    """A network whose prediction has the other sign."""

    def forward(self, x: Tensor, step: Tensor, **condition: Tensor) -> Tensor:
        out: Tensor = self.network(x, step, **condition)
        return -out
