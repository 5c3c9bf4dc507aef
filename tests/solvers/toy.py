"""Toy G and Toy M of the literature checks, and chains for them written down again, independently, in numpy.

Toy G: x_0 ~ N(0, [[1, .9], [.9, 1]]), coordinate 1 known to be 1. Truth: x_2 ~ N(0.9, 0.19).
Toy M: three isotropic Gaussians, std 0.2, weights .3/.2/.5 at (1,1), (1,-1), (-1,0); x_1 = 1 known. Truth: x_2 near
+1, -1, 0 with weights .6/.4/0.
Levels: 1000 betas from 1e-4 to 0.02, respaced to N; level 0 is clean.
"""

from __future__ import annotations

import numpy as np
import torch

from priorpaint import Inpainting
from priorpaint.diffusion.schedules import Schedule
from priorpaint.priors.analytic import Gaussian, GaussianMixture

COV = np.array([[1.0, 0.9], [0.9, 1.0]])
KNOWN = Inpainting(torch.tensor([[1.0, 0.0]]))
Y = torch.tensor([[[[1.0, 0.0]]]])


def toy_g(schedule: Schedule | None = None) -> Gaussian:
    return Gaussian([0.0, 0.0], COV.tolist(), schedule=schedule)


def toy_m(schedule: Schedule | None = None) -> GaussianMixture:
    means, cov = [[1.0, 1.0], [1.0, -1.0], [-1.0, 0.0]], [[0.04, 0.0], [0.0, 0.04]]
    return GaussianMixture([0.3, 0.2, 0.5], means, cov, schedule=schedule)  # type: ignore[arg-type]


def mode_weights(x: torch.Tensor) -> list[float]:
    """Shares of x_2 near +1, -1 and 0."""
    x_2 = x.reshape(-1, 2)[:, 1]
    return [
        (x_2 > 0.5).double().mean().item(),
        (x_2 < -0.5).double().mean().item(),
        (x_2.abs() <= 0.5).double().mean().item(),
    ]


def levels(count: int) -> np.ndarray:
    """abar at levels 0 (clean) to ``count``, respaced from 1000."""
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    return np.concatenate([[1.0], abar[np.round(np.arange(count) * 999 / (count - 1)).astype(int)]])


def jump_path(count: int, length: int, passes: int) -> list[int]:
    """RePaint's levels, from the sheet's words: anchors at 0, j, 2j ... < T - j, each with passes - 1 jumps up."""
    left = {i: passes - 1 for i in range(count) if i % length == 0 and i < count - length}
    path, i = [count - 1], count - 1
    while i >= 0:
        if left.get(i, 0) > 0 and len(path) > 1:
            left[i] -= 1
            path += range(i + 1, i + length + 1)
            i += length
        else:
            i -= 1
            path.append(i)
    return [i + 1 for i in path]


def propagate(path: list[int], abar: np.ndarray, eta: float = 1.0) -> tuple[float, float]:
    """Mean and variance of x_2 after replacement along ``path``, by the algebra of Gaussians."""
    mean, cov = np.zeros(2), np.eye(2)
    for before, after in zip(path[:-1], path[1:], strict=True):
        a_t, a_s = abar[before], abar[after]
        if after > before:  # UP
            mean, cov = np.sqrt(a_s / a_t) * mean, a_s / a_t * cov + (1 - a_s / a_t) * np.eye(2)
            continue
        denoise = np.sqrt(a_t) * COV @ np.linalg.inv(a_t * COV + (1 - a_t) * np.eye(2))
        v = (1 - a_s) * (1 - a_t / a_s) / (1 - a_t)
        eps = (np.eye(2) - np.sqrt(a_t) * denoise) / np.sqrt(1 - a_t)
        move = np.sqrt(a_s) * denoise + np.sqrt(max(1 - a_s - eta**2 * v, 0)) * eps
        mean, cov = move @ mean, move @ cov @ move.T + eta**2 * v * np.eye(2)
        mean[0], cov[0, :], cov[:, 0], cov[0, 0] = np.sqrt(a_s), 0.0, 0.0, 1 - a_s
    return mean[1], cov[1, 1]
