"""Frechet distance between Gaussians that are fitted to features (Dowson and Landau 1982).

This is the formula behind FID, but FID means the features of one certain network; with other features it is not an FID.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UsageError


@dataclass(frozen=True)
class FeatureGaussian:
    """A Gaussian: mean (F,) and covariance (F, F), float64."""

    mean: Tensor
    covariance: Tensor

    @staticmethod
    def fit(features: Tensor | Iterable[Tensor]) -> FeatureGaussian:
        """Mean and unbiased covariance of features (N, F), in float64.

        Args:
            features: (N, F), or such blocks of any lengths, of which one at a time is held.

        Raises:
            UsageError: fewer than two rows, or values that are not finite.
        """
        count, mean, squares = 0, torch.zeros(()), torch.zeros(())
        for block in (features,) if isinstance(features, Tensor) else features:
            if block.ndim != 2:
                raise UsageError(f"a Gaussian is fitted to rows of features (N, F), not {tuple(block.shape)}.")
            if not bool(torch.isfinite(block).all()):
                raise UsageError("a Gaussian cannot be fitted to features that are not finite; check the pictures.")
            if not len(block):
                continue
            rows = block.detach().cpu().double()
            rest = rows - rows.mean(0)
            # Two sets as one (Chan, Golub and LeVeque 1979): what lies between their means adds to the squares.
            step, total = rows.mean(0) - mean, count + len(rows)
            squares = squares + rest.T @ rest + torch.outer(step, step) * (count * len(rows) / total)
            mean, count = mean + step * (len(rows) / total), total
        if count < 2:
            raise UsageError(f"a Gaussian is fitted to at least two rows of features, not {count}.")
        return FeatureGaussian(mean, squares / (count - 1))


def frechet_distance(a: FeatureGaussian | Tensor, b: FeatureGaussian | Tensor) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), the squared Wasserstein-2 distance.

    Both roots go through the eigenvalues of a symmetric matrix, so covariances without full rank do no harm.

    Args:
        a, b: Gaussians, or features (N, F) to fit them to.

    Returns:
        A number >= 0; few rows make it larger, so compare sets of equal size only.

    Raises:
        UsageError: the features have different lengths, or cannot be fitted.
    """
    first, second = (each if isinstance(each, FeatureGaussian) else FeatureGaussian.fit(each) for each in (a, b))
    if first.mean.shape != second.mean.shape:
        raise UsageError(
            f"the features have lengths {len(first.mean)} and {len(second.mean)}; use one network for both."
        )
    values, vectors = torch.linalg.eigh((first.covariance + first.covariance.T) / 2)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    cross = torch.linalg.eigvalsh(root @ second.covariance @ root).clamp(min=0).sqrt().sum()
    traces = first.covariance.trace() + second.covariance.trace()
    return max(0.0, float((first.mean - second.mean).square().sum() + traces - 2 * cross))
