"""Squared distances from a picture to all avatars, as sums of small tables.

Three facts make the tables small. The covers (hair, hat) are opaque, so below them a cell is either hidden or not, and
all that matters of them is one of some tens of *outlines*. The layers under them fall into *blocks* that share no
cell (glasses and eyes; mouth and beard; clothes; earrings). And each cell shows the colour of one part at most, so that
given the styles of a block, the distance is a sum with one term for each part that is a colour.

A picture enters through seven numbers a cell: -2 sum y and the count of visible pixels for each of R, G, B, and
sum y^2. The distance of a table's row is a scalar product with these, so a table is one matrix product, and its
derivative with respect to them gives the moments of the colours.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .drawing import OWN, Layer, Painter, Parts
from .model import Avatars
from .sheet import CELLS

FEATURES = 7
_ALL = CELLS * CELLS


@dataclass(frozen=True)
class Term:
    """Distances that depend on an outline, the styles of a block and one colour.

    Attributes:
        source: the column of the part that is the colour, `OWN` where the styles alone decide.
        shape: (outlines, styles, options of the colour).
        cells: the cells that matter.
        rows: (outlines * styles * options, cells * 7): a row's scalar product with the features is its distance.
    """

    source: int
    shape: tuple[int, int, int]
    cells: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Block:
    """Layers that share cells with one another and with no others.

    Attributes:
        styles: the columns of the parts that choose their drawings.
        choices: (n, len(styles)), all combinations of these.
        outline: (outlines of the avatar,), which outline of this block each is.
        terms: one for each source of colour.
    """

    styles: tuple[int, ...]
    choices: Tensor
    outline: Tensor
    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Tables:
    """All terms of an `Avatars`.

    Attributes:
        covers: the columns of the parts that choose the covers' drawings.
        choices: (n, len(covers)), all combinations of these.
        members: (outlines, most), the choices of each outline, filled up with -1.
        own: what the covers' own colours add (and cells that never change), one row for each choice.
        frame: what lies outside the blocks and the covers' flat colours, one "style" for each outline.
        blocks: the rest.
        shared: the columns of colours that more than one block shows, the axes that the blocks have in common.
    """

    covers: tuple[int, ...]
    choices: Tensor
    members: Tensor
    own: Term
    frame: tuple[Term, ...]
    blocks: tuple[Block, ...]
    shared: tuple[int, ...]


@cache
def tables(avatars: Avatars, dtype: torch.dtype = torch.float64) -> Tables:
    """The tables of a law, made once."""
    return _Maker(avatars, dtype).make()


class _Maker:
    def __init__(self, avatars: Avatars, dtype: torch.dtype) -> None:
        self.avatars, self.dtype = avatars, dtype
        self.columns = avatars.index
        self.lower = avatars.painter(covers=False)
        self.whole = avatars.painter()

    def make(self) -> Tables:
        covers = [layer for layer in self.avatars.layers if layer.cover]
        groups = _groups([layer for layer in self.avatars.layers if not layer.cover and layer.style is not None])
        styles = self._styles(covers)
        choices, combinations = self._product(styles)
        hidden = np.zeros((len(choices), _ALL), bool)
        for layer in covers:
            hidden |= layer.touched[combinations[:, self.columns[layer.style or ""]]]
        sources = self.whole.source[self.whole.codes(combinations)]
        # What of the covers the rest can feel: the cells they hide, and those where they show the colour of a part.
        visible = np.where(hidden, sources, -2)
        _, first, outline = np.unique(visible, axis=0, return_index=True, return_inverse=True)
        outline = outline.reshape(-1)
        in_blocks = np.zeros(_ALL, bool)
        for group in groups:
            in_blocks |= _cells(group)
        free = hidden | ~in_blocks
        own = self._term(self.whole, combinations[:, None], OWN, (free & (sources == OWN))[:, None])
        rest = [source for source in np.unique(sources[free]).tolist() if source != OWN]
        frame = tuple(
            self._term(self.whole, combinations[first][None], source, (free & (sources == source))[first][None])
            for source in rest
        )
        blocks = tuple(self._block(group, ~hidden[first]) for group in groups)
        return Tables(styles, torch.from_numpy(choices), _members(outline), own, frame, blocks, _shared(frame, blocks))

    def _block(self, group: list[Layer], visible: NDArray[np.bool_]) -> Block:
        styles = self._styles(group)
        choices, combinations = self._product(styles)
        cells = _cells(group)
        views, outline = np.unique(visible & cells, axis=0, return_inverse=True)
        sources = self.lower.source[self.lower.codes(combinations)]
        terms = []
        for source in np.unique(sources[:, cells]).tolist():
            shown = views[:, None] & (sources == source)[None]
            if shown.any():
                everywhere = np.broadcast_to(combinations, (len(views), *combinations.shape))
                terms.append(self._term(self.lower, everywhere, source, shown))
        return Block(styles, torch.from_numpy(choices), torch.from_numpy(outline.reshape(-1)), tuple(terms))

    def _term(self, painter: Painter, combinations: Parts, source: int, shown: NDArray[np.bool_]) -> Term:
        """Rows for combinations (outlines, styles, P), in which only the cells shown (outlines, styles, 256) count."""
        options = 1 if source == OWN else len(self.avatars.parts[source].options)
        cells = np.flatnonzero(shown.any((0, 1)))
        every = np.repeat(combinations[:, :, None], options, 2)
        if source != OWN:
            every[..., source] = np.arange(options)
        # The lower layers do not feel the outline, so the first one's combinations stand for all.
        colours = painter.paint(every.reshape(-1, every.shape[-1]))[:, cells].astype(float)
        colours = colours.reshape(*every.shape[:3], len(cells), 3)
        ones = np.ones((*colours.shape[:-1], 1))
        rows = np.concatenate([colours, colours**2, ones], -1) * shown[:, :, None, cells, None]
        flat = torch.from_numpy(rows.reshape(np.prod(every.shape[:3]), len(cells) * FEATURES)).to(self.dtype)
        return Term(
            source,
            (combinations.shape[0], combinations.shape[1], options),
            torch.from_numpy(cells),
            flat.to(self.dtype),
        )

    def _styles(self, layers: list[Layer]) -> tuple[int, ...]:
        return tuple(sorted({self.columns[layer.style] for layer in layers if layer.style is not None}))

    def _product(self, columns: tuple[int, ...]) -> tuple[Parts, Parts]:
        """All choices (n, len(columns)) of some parts, and as combinations (n, P) with the other parts at 0."""
        ranges = [range(len(self.avatars.parts[column].options)) for column in columns]
        choices = np.array(list(itertools.product(*ranges)), np.int64).reshape(
            math.prod(map(len, ranges)), len(columns)
        )
        combinations = np.zeros((len(choices), len(self.avatars.parts)), np.int64)
        combinations[:, list(columns)] = choices
        return choices, combinations


def _cells(group: list[Layer]) -> NDArray[np.bool_]:
    cells: NDArray[np.bool_] = np.any([layer.touched.any(0) for layer in group], axis=0)
    return cells


def _groups(layers: list[Layer]) -> list[list[Layer]]:
    """Layers that overlap, or that the same part draws, belong together."""
    groups: list[list[Layer]] = []
    for layer in layers:
        near = [g for g in groups if (_cells(g) & _cells([layer])).any() or layer.style in {other.style for other in g}]
        groups = [g for g in groups if g not in near]
        groups.append([*itertools.chain(*near), layer])
    return [group for group in groups if _cells(group).any()]


def _members(outline: NDArray[np.int64]) -> Tensor:
    lists = [torch.from_numpy(np.flatnonzero(outline == i)) for i in range(outline.max() + 1)]
    return torch.nn.utils.rnn.pad_sequence(lists, batch_first=True, padding_value=-1)


def _shared(frame: tuple[Term, ...], blocks: tuple[Block, ...]) -> tuple[int, ...]:
    """Colours that are not the business of one block alone."""
    sources = [{term.source for term in frame}, *({term.source for term in block.terms} for block in blocks)]
    everything = sorted(set().union(*sources) - {OWN})
    return tuple(column for column in everything if column in sources[0] or sum(column in one for one in sources) > 1)
