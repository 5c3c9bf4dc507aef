"""Weighted particles on their way down, and those that a proposal starts them from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .resampling import log_mean, systematic
from .twists import pick


@dataclass(frozen=True)
class Proposal:
    """N groups of K weighted particles to start from, float64.

    Attributes:
        x: (N, K, d).
        log_weights: (N, K).
    """

    x: Tensor
    log_weights: Tensor

    def groups(self, first: int, count: int) -> Proposal:
        """``count`` groups from the index ``first`` on."""
        return Proposal(self.x[first : first + count], self.log_weights[first : first + count])


@dataclass
class Particles:
    """N groups of K particles on their way down, whose weights may be resampled by S sites.

    Attributes:
        x: (N, K, d).
        log_weights: (N, K, S) since the last resampling, by site.
        ancestors: (N, K, S), the first particle that each site comes from.
        log_evidence: (N,), the part that resampling has already taken out of the weights.
        ess: (N, S) over K at each level so far, before resampling.
        joined: (N, S, S) bool, sites of one block.
    """

    x: Tensor
    log_weights: Tensor
    ancestors: Tensor
    log_evidence: Tensor
    ess: list[Tensor]
    joined: Tensor

    @property
    def by_block(self) -> Tensor:
        """The log-weight of the block that each site belongs to, (N, K, S)."""
        return self.log_weights @ self.joined.double()

    @property
    def evidence(self) -> Tensor:
        """Estimate of log p(y), (N,)."""
        return self.log_evidence + self._over_blocks(log_mean(self.by_block))

    def resample(self, where: Tensor, u: Tensor, count: int) -> Tensor:
        """Replace the blocks where (N, S) is true by ``count`` offspring; returns the parents (N, count, S).

        Another count than K needs all blocks.
        """
        weights = self.by_block
        parents = systematic(weights, self.shared(u), count)
        if count == weights.shape[1]:
            parents = torch.where(where[:, None], parents, torch.arange(count, device=u.device)[:, None])
        self.log_evidence = self.log_evidence + self._over_blocks(torch.where(where, log_mean(weights), 0))
        self.log_weights = torch.where(where[:, None], 0, self.log_weights.gather(1, parents))
        self.x, self.ancestors = pick(self.x, parents), self.ancestors.gather(1, parents)
        return parents

    def shared(self, u: Tensor) -> Tensor:
        """u (N, S) with the sites of a block made equal."""
        return u.gather(1, self.joined.double().argmax(2))

    def _over_blocks(self, values: Tensor) -> Tensor:
        """The sum over blocks of values (N, S) that all sites of a block share."""
        return (values / self.joined.sum(2)).sum(1)
