"""Variable elimination over the tables: sums or maxima over all combinations, and the way back to single ones."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .drawing import OWN
from .tables import Block, Tables, Term

Pick = Callable[[Tensor], Tensor]


# A block, what it leaves behind (N, outlines, styles, *shared), and by column its own colours' tables (N, outlines,
# styles, options).
_Eliminated = tuple[Block, Tensor, dict[int, Tensor]]


class Elimination:
    """All combinations of N pictures at once, with weight exp(-scale x squared distance + log prior).

    Blocks are summed first (their own colours, then their styles), then the choices of covers that make the same
    outline, then one shared colour after the other; what remains is one number for each outline.

    Args:
        tables: see `tables.tables`.
        features: (N, 256, 7), see `tables.features`.
        scale: what a squared level costs.
        prior: for each part, ln of the shares of its options, (N, options) or (1, options).
        reduce: ``torch.logsumexp`` (with dim) for sums, ``torch.amax`` for maxima.

    Attributes:
        total: (N,), ln of the sum of all weights, or the largest of their logarithms.
    """

    def __init__(
        self,
        tables: Tables,
        features: Tensor,
        scale: float,
        prior: Sequence[Tensor],
        reduce: Callable[[Tensor, int], Tensor] = torch.logsumexp,
    ) -> None:
        self._tables, self._features, self._scale, self._prior, self._reduce = tables, features, scale, prior, reduce
        self._blocks = [self._eliminate(block) for block in tables.blocks]
        self._choices = self._table(tables.own)[:, :, 0, 0] + self._styles(tables.covers, tables.choices)
        # The axes of shared colours, and the tables (N, outlines, *shared) that each was summed from, with size 1 where
        # they do not depend.
        self._buckets: list[tuple[int, Tensor]] = []
        self._outlines = self._combine()
        self.total = reduce(self._outlines, 1)

    def combinations(self, pick: Pick) -> Tensor:
        """Combinations (N, M, P), part by part.

        Args:
            pick: chooses among logarithms of weights (N, 1 | M, n); returns (N, M).
        """
        outline = pick(self._outlines[:, None])
        rows = torch.arange(len(outline))[:, None]
        choice = self._tables.members[outline, pick(self._members()[rows, outline])]
        columns = dict(zip(self._tables.covers, self._tables.choices[choice].unbind(-1), strict=True))
        shared = [torch.zeros_like(outline) for _ in self._tables.shared]
        for dim, joint in reversed(self._buckets):
            others = [index for axis, index in enumerate(shared, 2) if axis != dim]
            shared[dim - 2] = pick(_row(joint.movedim(dim, -1), rows, outline, others))
        columns.update(zip(self._tables.shared, shared, strict=True))
        for block, joint, private in self._blocks:
            view = block.outline[outline]
            style = pick(_row(joint.movedim(2, -1), rows, view, shared))
            columns.update(zip(block.styles, block.choices[style].unbind(-1), strict=True))
            columns.update((column, pick(table[rows, view, style])) for column, table in private.items())
        for column, prior in enumerate(self._prior):
            if column not in columns:  # nothing shows it
                columns[column] = pick(prior[:, None].expand(*outline.shape, -1))
        return torch.stack([columns[column] for column in range(len(self._prior))], -1)

    def _table(self, term: Term) -> Tensor:
        """(N, outlines, styles, options)."""
        features = self._features[:, term.cells].flatten(1)
        return (-self._scale * (features @ term.rows.mT)).reshape(-1, *term.shape)

    def _styles(self, columns: tuple[int, ...], choices: Tensor) -> Tensor:
        """Log prior (N | 1, n) of joint choices (n, len(columns)) of some parts."""
        chosen = [self._prior[column][:, choices[:, i]] for i, column in enumerate(columns)]
        return functools.reduce(torch.add, chosen, torch.zeros(1, len(choices)).to(self._features))

    def _eliminate(self, block: Block) -> _Eliminated:
        joint = self._styles(block.styles, block.choices)[:, None]
        private: dict[int, Tensor] = {}
        shared = []
        for term in block.terms:
            table = self._table(term)
            if term.source == OWN:
                joint = joint + table[..., 0]
            elif term.source in self._tables.shared:
                shared.append(self._along(table, term.source))
            else:
                private[term.source] = table + self._prior[term.source][:, None, None]
                joint = joint + self._reduce(private[term.source], -1)
        joint = joint[(..., *[None] * len(self._tables.shared))]
        return block, functools.reduce(torch.add, shared, joint), private

    def _along(self, table: Tensor, column: int) -> Tensor:
        """Move the last axis of (..., options) to that of the column among the shared ones."""
        i = self._tables.shared.index(column)
        after = len(self._tables.shared) - 1 - i
        return table[(..., *[None] * i, slice(None), *[None] * after)]

    def _members(self) -> Tensor:
        """Log weights (N, outlines, most) of the covers' choices behind each outline."""
        members = self._tables.members
        return self._choices[:, members.clamp(min=0)].masked_fill(members < 0, -math.inf)

    def _combine(self) -> Tensor:
        """Sum out the shared colours, those with the smallest tables first; (N, outlines)."""
        factors = [self._reduce(self._members(), -1)[(..., *[None] * len(self._tables.shared))]]
        factors += [self._along(self._table(term)[:, 0], term.source) for term in self._tables.frame]
        factors += [self._along(self._prior[column][:, None], column) for column in self._tables.shared]
        factors += [self._reduce(joint, 2)[:, block.outline] for block, joint, _ in self._blocks]
        left = {2 + i for i, column in enumerate(self._tables.shared) if self._prior[column].shape[1] > 1}
        while left:
            axis = min(left, key=lambda axis: (_joint_size(factors, axis), axis))
            left.remove(axis)
            joint = functools.reduce(torch.add, [f for f in factors if f.shape[axis] > 1])
            factors = [f for f in factors if f.shape[axis] == 1]
            factors.append(self._reduce(joint, axis).unsqueeze(axis))
            self._buckets.append((axis, joint))
        return functools.reduce(torch.add, factors).flatten(1)


def _joint_size(factors: list[Tensor], axis: int) -> int:
    """How large the table of all factors that depend on an axis is."""
    shapes = [factor.shape for factor in factors if factor.shape[axis] > 1]
    return math.prod(max(sizes) for sizes in zip(*shapes, strict=True))


def _row(table: Tensor, rows: Tensor, first: Tensor, others: Sequence[Tensor]) -> Tensor:
    """(N, M, n) from (N, F, *others, n), at given indices; axes of size 1 take any index."""
    sizes = table.shape[2:-1]
    indices = [index if size > 1 else torch.zeros_like(index) for index, size in zip(others, sizes, strict=True)]
    return table[(rows, first, *indices)]


def largest(weights: Tensor) -> Tensor:
    """The pick of the best combination: (N, M, n) -> (N, M)."""
    return weights.argmax(-1)


def drawn(chances: Tensor) -> Pick:
    """The pick of a random combination, from uniform numbers in (0, 1) of shape (N, M, picks)."""
    rest = iter(chances.unbind(-1))

    def pick(weights: Tensor) -> Tensor:
        ends = torch.softmax(weights, -1).cumsum(-1)
        chance = next(rest).to(ends) * ends[..., -1]
        if ends.shape[1] == 1:
            return torch.searchsorted(ends[:, 0].contiguous(), chance)
        return torch.searchsorted(ends.contiguous(), chance[..., None]).squeeze(-1)

    return pick
