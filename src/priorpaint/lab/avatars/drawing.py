"""Layers of paint on 16 x 16 cells, for many combinations at once.

Every colour that a cell can take gets a number beforehand, so that drawing moves small integers: an opaque ink
replaces the number of a cell, a translucent one leads to the number of the blend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .sheet import CELLS, Drawing

OWN = -1
_CHUNK = 512

Parts = NDArray[np.int64]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer of paint.

    Attributes:
        drawings: (n, 16, 16, 3), one for each option of ``style`` (see `sheet.drawing`); n = 1 without ``style``.
        style: the part that chooses the drawing, None if there is only one.
        colour: the part that chooses the colour, None if each drawing brings its own.
        own: (n, 3) RGB of each drawing, where ``colour`` is None.
        cover: True for a layer that is opaque and lies above all that are not covers.
    """

    drawings: Drawing
    style: str | None = None
    colour: str | None = None
    own: NDArray[np.float64] | None = None
    cover: bool = False

    @cached_property
    def inks(self) -> Drawing:
        """(n, 256, 3)."""
        return self.drawings.reshape(len(self.drawings), CELLS * CELLS, 3)

    @cached_property
    def touched(self) -> NDArray[np.bool_]:
        """The cells (n, 256) that each drawing paints."""
        touched: NDArray[np.bool_] = self.inks[..., 0] != 1
        return touched


@dataclass(frozen=True)
class _Coat:
    """A layer as numbers: where ``codes`` (n, cells) is positive, the colour that replaces the one below (plus the
    choice of colour), where negative, the number of the translucent ink, 0 where it leaves the cell alone."""

    cells: NDArray[np.int64]
    codes: NDArray[np.int32]
    style: int | None
    colour: int | None
    below: int


class Painter:
    """Some layers, ready to paint.

    Args:
        layers: from the lowest to the highest.
        columns: the column of each part in a combination.
        colours: RGB of each option of the parts that are colours.

    Attributes:
        colours: (n, 3) uint8, the colour of each number.
        source: (n,), the column of the part whose colour it is, or `OWN` where the drawing alone decides.
    """

    def __init__(
        self, layers: Sequence[Layer], columns: Mapping[str, int], colours: Mapping[str, NDArray[np.float64]]
    ) -> None:
        self._values = np.zeros((1, 3))
        self.source = np.array([OWN])
        self._coats = [self._coat(layer, columns, colours) for layer in layers]
        self.colours = np.rint(self._values).astype(np.uint8)

    def codes(self, parts: Parts) -> NDArray[np.int32]:
        """The number of the colour of every cell (N, 256) of combinations (N, P)."""
        out = np.zeros((len(parts), CELLS * CELLS), np.int32)
        for start in range(0, len(parts), _CHUNK):
            rows = slice(start, start + _CHUNK)
            for coat in self._coats:
                self._apply(coat, parts[rows], out[rows])
        return out

    def paint(self, parts: Parts) -> Pixels:
        """The colours (N, 256, 3) of all cells of combinations (N, P)."""
        return self.colours[self.codes(parts)]

    @staticmethod
    def _apply(coat: _Coat, parts: Parts, out: NDArray[np.int32]) -> None:
        code = np.repeat(coat.codes, len(parts), 0) if coat.style is None else coat.codes[parts[:, coat.style]]
        fresh = code if coat.colour is None else code + parts[:, coat.colour, None].astype(np.int32)
        out[:, coat.cells] = np.where(code > 0, fresh, out[:, coat.cells] - code * coat.below)

    def _coat(self, layer: Layer, columns: Mapping[str, int], colours: Mapping[str, NDArray[np.float64]]) -> _Coat:
        cells = np.flatnonzero(layer.touched.any(0))
        inks = layer.inks[:, cells]
        below = len(self._values)
        codes = np.zeros(inks.shape[:2], np.int32)
        values, source = self._values, self.source
        for code, ink in enumerate(np.unique(inks[(inks[..., 0] > 0) & (inks[..., 0] < 1)], axis=0), 1):
            codes[(inks == ink).all(-1)] = -code
            values = np.concatenate([values, ink[0] * self._values + 255 * ink[2]])
            source = np.concatenate([source, self.source])
        for style, drawn in enumerate(inks):
            paints = colours[layer.colour or ""] if layer.own is None else layer.own[style : style + 1]
            for ink in np.unique(drawn[drawn[:, 0] == 0], axis=0):
                codes[style, (drawn == ink).all(-1)] = len(values)
                shows = layer.colour is not None and ink[1] > 0
                values = np.concatenate([values, ink[1] * paints + 255 * ink[2]])
                source = np.concatenate([source, np.full(len(paints), columns[layer.colour or ""] if shows else OWN)])
        self._values, self.source = values, source
        style_column = None if layer.style is None else columns[layer.style]
        return _Coat(cells, codes, style_column, None if layer.colour is None else columns[layer.colour], below)
