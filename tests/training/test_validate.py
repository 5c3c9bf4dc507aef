"""The sheet of samples that a training run leaves."""

from __future__ import annotations

import torch

from priorpaint.training.validate import unconditional


def test_samples_of_the_sheet_follow_the_law_of_the_denoiser() -> None:
    """Pixels N(-0.6, 0.2^2) and their exact denoiser: 6 x 1024 of them, where 20 Heun steps widen by 1.9 %.

    Begun at N(0, sigma_max^2) the mean would be off by 0.6 x 0.2 / 8 = 0.015."""
    mean, std = -0.6, 0.2

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        share = (std**2 / (std**2 + sigma**2))[:, None, None, None]
        return mean + share * (x - mean)

    noise = torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    x = unconditional(denoise, noise, (0.01, 8.0), 0.5)
    assert abs(float(x.mean()) - mean) < 0.01 and abs(float(x.std()) / std - 1) < 0.03
