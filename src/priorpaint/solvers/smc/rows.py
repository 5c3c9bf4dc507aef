"""What y says near D, as rows of a linear measurement: those of A itself, or A Dec linearised at each particle."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...operators.base import LinearOperator
from ..base import Task
from ..likelihoods import Decoded, informative


@dataclass(frozen=True)
class Rows:
    """y - A Dec(x_0) = residual - matrix (x_0 - D) + n, n ~ N(0, diag(variance)), for G groups of K particles.

    Attributes:
        matrix: (G, 1|K, m, d).
        residual: y - A Dec(D), (G, K, m).
        variance: (G, 1, m).
        constant: log-density of what y says beside these rows, less that of rows that say nothing, (G, K, m).
    """

    matrix: Tensor
    residual: Tensor
    variance: Tensor
    constant: Tensor


class PixelRows:
    """Rows of A: the same for all particles of a group.

    Args:
        task: a row a group.
        sigma_y: noise of y, > 0.
        device: of the algebra.

    Attributes:
        matrix: A, (G, m, d) float64.
    """

    def __init__(self, task: Task, sigma_y: float, device: torch.device) -> None:
        matrix = _matrices(task.linear, task.shape, task.y).to(device)
        useful = (matrix != 0).any(2).any(0)
        useful[0] = True  # one row stays where nothing is known
        self.matrix = matrix[:, useful]
        self._y = task.y.flatten(1).to(device).double()[:, useful]
        self._informative = (self.matrix != 0).any(2)
        # A row of zeros says nothing; with variance 1 it has log det 0 and no gain.
        self._variance = torch.where(self._informative, sigma_y**2, 1.0)

    def __call__(self, x_0: Tensor) -> Rows:
        """The rows at D = x_0 (G, K, d), float64."""
        matrix, informative_row = self.matrix[:, None], self._informative[:, None]
        residual = torch.where(informative_row, self._y[:, None] - (matrix @ x_0[..., None])[..., 0], 0)
        constant = -0.5 * math.log(2 * math.pi) * informative_row
        return Rows(matrix, residual, self._variance[:, None], constant.expand_as(residual).to(x_0))


class DecodedRows:
    """A dDec/dz at each particle, turned by an orthogonal matrix onto at most d rows; exact for a linear decoder.

    Args:
        task: a row a group, with a latent prior.
        sigma_y: noise of y, > 0.
        limit: particles decoded at a time.
    """

    def __init__(self, task: Task, sigma_y: float, limit: int) -> None:
        self._task, self._variance, self._limit = task, sigma_y**2, limit
        self._count = informative(task.operator, task.y)

    def __call__(self, x_0: Tensor) -> Rows:
        """The rows at D = x_0 (G, K, d), float64."""
        groups, particles, dim = x_0.shape
        of_group = torch.arange(groups).repeat_interleave(particles)
        parts = [
            self._turned(x_0.flatten(0, 1)[chunk.to(x_0.device)], of_group[chunk])
            for chunk in torch.split(torch.arange(len(of_group)), self._limit)
        ]
        matrix, residual, rest = (torch.cat(column) for column in zip(*parts, strict=True))
        count, normal = matrix.shape[1], math.log(2 * math.pi)
        # The part of y that no change of z reaches, and the noise of the rows that there are beyond the entries of y.
        beside = rest / self._variance + (self._count[of_group].to(rest) - count) * (math.log(self._variance) + normal)
        constant = -0.5 * (normal + beside / count)[:, None].expand_as(residual)
        return Rows(
            matrix.reshape(groups, particles, count, dim),
            residual.reshape(groups, particles, count),
            residual.new_full((groups, 1, count), self._variance),
            constant.reshape(groups, particles, count),
        )

    def _turned(self, z: Tensor, of_group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """R (N, m, d) and Q^T r (N, m) with Q R = A dDec/dz, r = y - A Dec(z), and ||r||^2 - ||Q^T r||^2, (N,)."""
        task = self._task
        device = task.prior.device
        operator = task.linear.select(of_group)
        decoded = Decoded(task.prior, z.reshape(-1, *task.shape).to(device=device, dtype=torch.float32))
        residual = (task.y[of_group.to(task.y.device)] - operator(decoded.image)).flatten(1).to(z)
        basis = torch.eye(z.shape[1], device=device).reshape(-1, *task.shape)
        columns = [operator(decoded.jvp(e.expand(len(z), *task.shape))).flatten(1) for e in basis]
        turn, matrix = torch.linalg.qr(torch.stack(columns, 2).to(z))
        turned = (turn.mT @ residual[..., None])[..., 0]
        return matrix, turned, residual.square().sum(1) - turned.square().sum(1)


def _matrices(operator: LinearOperator, shape: tuple[int, int, int], y: Tensor) -> Tensor:
    """A of each group as (G, m, d), float64."""
    dim = math.prod(shape)
    basis = torch.eye(dim, device=y.device).reshape(dim, *shape)
    shared = operator.select(torch.zeros(1, dtype=torch.long)) is operator
    groups = range(1 if shared else len(y))
    columns = [operator.select(torch.full((dim,), g))(basis).flatten(1).mT for g in groups]
    return torch.stack(columns).double().expand(len(y), -1, -1)
