"""Random problems, drawn as the literature checks drew theirs: A is Q of a Gaussian matrix, the mask random."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from priorpaint.lab.theory import LinearModel


def named(d: int, k: int, known: int, seed: int) -> LinearModel:
    """The problem that the reported rates are of."""
    generator = np.random.default_rng(seed)
    A = np.linalg.qr(generator.standard_normal((d, k)))[0]
    mask = np.zeros(d, dtype=bool)
    mask[generator.permutation(d)[:known]] = True
    return LinearModel(torch.from_numpy(A), torch.from_numpy(mask))


def varied(seed: int, largest_d: int = 64, largest_k: int = 16) -> LinearModel:
    """A problem of random size with at least k known and one hidden coordinate."""
    generator = np.random.default_rng(10_000 + seed)
    d = int(generator.integers(2, largest_d + 1))
    k = int(generator.integers(1, min(largest_k, d - 1) + 1))
    return named(d, k, int(generator.integers(k, d)), seed)


def diagonal() -> LinearModel:
    """A = (1, 1) / sqrt(2) with the second coordinate hidden: rho = 1/2."""
    return LinearModel(torch.full((2, 1), 0.5**0.5, dtype=torch.float64), torch.tensor([True, False]))


def gaussian(num: int, size: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((num, size)))


def hidden_block(model: LinearModel) -> Tensor:
    """B = P_MM, whose eigenvectors are the modes."""
    return model.P[~model.known][:, ~model.known]
