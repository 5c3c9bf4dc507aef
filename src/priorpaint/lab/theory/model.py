"""The linear model of RePaint+ (Rout et al. 2023, arXiv 2302.01217, Assumptions 1 and 2).

x_0 = A z with z ~ N(0, I_k) and A^T A = I; a mask hides some of the d coordinates. With P = A A^T, K = diag(known) and
D = I - K, everything that happens to the hidden coordinates is decided by the block B = P_MM: its eigenvectors are
directions that never mix (the *modes*), its eigenvalues say how much of a mode the mask hides, and the largest,

    rho = lambda_max(B) = lambda_max(A^T D A) = ||P D||^2,

is the rate of everything: the squared cosine of the Friedrichs angle between the manifold and the hidden coordinates.
The published text of the paper has lost its formulas; the statements in this package are derived and tested here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...diffusion.rng import Streams, derive
from ...errors import UsageError
from ...priors.analytic import LinearManifold

# Cosines nearer to 1 than this are 1: float64 cannot tell them apart after a matrix product.
_ONE = 1e-12


@dataclass(frozen=True, eq=False)
class LinearModel:
    """x_0 = A z and a mask.

    Args:
        A: orthonormal columns (d, k), float64.
        known: (d,) bool, True where a coordinate is known.

    Raises:
        UsageError: columns that are not orthonormal (Assumption 1), or a mask of another length.
    """

    A: Tensor
    known: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "A", torch.as_tensor(self.A, dtype=torch.float64))
        object.__setattr__(self, "known", torch.as_tensor(self.known).bool())
        if self.A.ndim != 2 or self.known.shape != self.A.shape[:1]:
            raise UsageError(f"need A (d, k) and a mask (d,), not {tuple(self.A.shape)} and {tuple(self.known.shape)}")
        gram = self.A.mT @ self.A
        if not torch.allclose(gram, torch.eye(len(gram), dtype=torch.float64), rtol=0, atol=1e-9):
            raise UsageError("the columns of A must be orthonormal; take Q of its QR decomposition")

    @classmethod
    def random(cls, d: int, k: int, known: int | Sequence[bool], *, seed: int) -> LinearModel:
        """A uniformly random manifold, with ``known`` coordinates at random places, or a mask (d,).

        Raises:
            UsageError: not 1 <= k <= d, or not 0 <= known <= d.
        """
        A = LinearManifold.random(d, k, seed=seed).basis
        return cls(A, _random_mask(d, known, seed) if isinstance(known, int) else torch.tensor(known))

    @property
    def d(self) -> int:
        """Coordinates."""
        return self.A.shape[0]

    @property
    def k(self) -> int:
        """Dimension of the manifold."""
        return self.A.shape[1]

    @property
    def P(self) -> Tensor:  # noqa: N802 - the name of the paper
        """The projector A A^T on the manifold (d, d)."""
        return self.A @ self.A.mT

    @property
    def D(self) -> Tensor:  # noqa: N802 - the name of the paper
        """diag(1 where hidden) (d, d)."""
        return torch.diag((~self.known).double())

    @property
    def cosines(self) -> Tensor:
        """Eigenvalues of A^T D A (k,), rising: how much of each mode is hidden. B has the same, besides zeros."""
        values: Tensor = torch.linalg.eigvalsh(self.A.mT @ self.D @ self.A).clamp(0, 1)
        return torch.where(values > 1 - _ONE, 1.0, values)

    @property
    def rho(self) -> float:
        """The contraction rate of Theorem 4; Assumption 2 is rho < 1. Fewer known coordinates than k make it 1."""
        return float(self.cosines[-1])

    @property
    def invisible(self) -> Tensor:
        """Projector (d, d) on the part of the manifold that no known coordinate sees; 0 where rho < 1."""
        values, vectors = torch.linalg.eigh(self.A.mT @ self.D @ self.A)
        unseen: Tensor = self.A @ vectors[:, values > 1 - _ONE]
        return unseen @ unseen.mT

    def describe(self) -> str:
        """Its sizes, in words."""
        return f"d = {self.d}, k = {self.k}, {int(self.known.sum())} known (rho = {self.rho:.4g})"

    def plane(self) -> tuple[Tensor, Tensor]:
        """Two orthonormal directions (2, d), one known, one hidden, that span the slowest mode; and its line in them.

        The line is (sqrt(1 - rho), sqrt(rho)), up to signs. For d = 2 the directions are the coordinates. A direction
        is 0 where the mode has no such part.
        """
        _, vectors = torch.linalg.eigh(self.A.mT @ self.D @ self.A)
        mode = self.A @ vectors[:, -1]
        parts = torch.stack([torch.where(self.known, mode, 0), torch.where(self.known, 0, mode)])
        basis = torch.nn.functional.normalize(parts.abs() if self.d == 2 else parts, dim=1, eps=1e-9)
        return basis, basis @ mode

    def draw(self, num: int, *, seed: int) -> Tensor:
        """Samples x_0 (num, d), float64."""
        return normal(num, self.k, seed=seed, use="latent") @ self.A.mT

    def project(self, x: Tensor) -> Tensor:
        """P x, (N, d)."""
        return x @ self.A @ self.A.mT

    def paste(self, x_0: Tensor, u: Tensor) -> Tensor:
        """K x_0 + D u, each (N, d)."""
        return torch.where(self.known, x_0, u)


def normals(num: int, size: int, *, seed: int, use: str) -> Iterator[Tensor]:
    """Standard normal (num, size), float64, without end; a hash of ``seed`` and of what it is used for."""
    stream = Streams([derive("theory", use, seed)])
    while True:
        yield stream.normal(num, size)[0].double()


def normal(num: int, size: int, *, seed: int, use: str) -> Tensor:
    """The first of ``normals``."""
    return next(normals(num, size, seed=seed, use=use))


def _random_mask(d: int, count: int, seed: int) -> Tensor:
    if not 0 <= count <= d:
        raise UsageError(f"{count} known coordinates of {d} are not possible; take 0 to {d}")
    chosen = normal(1, d, seed=seed, use="mask")[0].argsort()[:count]
    return torch.zeros(d, dtype=torch.bool).index_fill(0, chosen, True)
