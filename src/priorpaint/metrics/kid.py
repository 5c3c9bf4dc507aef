"""Kernel distance between two sets of features: the unbiased maximum mean discrepancy, and KID.

Gretton et al. 2012 ("A Kernel Two-Sample Test", Eq. 3 and 4); Binkowski, Sutherland, Arbel and Gretton 2018
("Demystifying MMD GANs", section 4). KID proper means the features of Inception; with others it is a KID of these.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import UsageError

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Rows (N, F) and (M, F) -> (N, M)."""


def squared_mmd(
    kernel: Kernel, a: Tensor, b: Tensor, groups_a: Tensor | None = None, groups_b: Tensor | None = None
) -> float:
    """E k(A, A') + E k(B, B') - 2 E k(A, B) without bias, so that it can fall below 0 by chance.

    Args:
        kernel: symmetric.
        a, b: rows (N, F) and (M, F).
        groups_a, groups_b: (N,) and (M,) integers, both or none. Rows with the same number depend on each other
            (completions of one picture, and that picture), so such pairs are left out, within the sets and between
            them. Without them all rows are independent draws.

    Raises:
        UsageError: a set without two independent rows, rows of different lengths, or values that are not finite.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UsageError(f"sets of features (N, F) are compared in one network, not {tuple(a.shape)}, {tuple(b.shape)}")
    if not (bool(torch.isfinite(a).all()) and bool(torch.isfinite(b).all())):
        raise UsageError("features that are not finite cannot be compared; check the pictures.")
    a, b = a.detach().double(), b.detach().double()
    same_a, same_b = (
        _same(g, g) if g is not None else torch.eye(len(x)).bool() for g, x in ((groups_a, a), (groups_b, b))
    )
    between = torch.zeros(len(a), len(b), dtype=torch.bool)
    if groups_a is not None and groups_b is not None:
        between = _same(groups_a, groups_b)
    if min(int((~same).sum()) for same in (same_a, same_b, between)) == 0:
        raise UsageError("sets of features are compared from two independent rows on; take more pictures.")
    return _mean(kernel(a, a), ~same_a) + _mean(kernel(b, b), ~same_b) - 2 * _mean(kernel(a, b), ~between)


def kid(a: Tensor, b: Tensor, groups_a: Tensor | None = None, groups_b: Tensor | None = None) -> float:
    """`squared_mmd` of features (N, F) and (M, F) with the kernel (x . y / F + 1)^3; 0 on average for equal laws."""
    return squared_mmd(lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3, a, b, groups_a, groups_b)


def _same(a: Tensor, b: Tensor) -> Tensor:
    return a[:, None] == b[None]


def _mean(values: Tensor, where: Tensor) -> float:
    where = where.to(values.device)
    return float(torch.where(where, values, 0).sum() / where.sum())
