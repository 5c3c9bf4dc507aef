"""The law of avatars: independent parts, drawn one over the other on 16 x 16 cells, each cell 2 x 2 pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from .drawing import Layer, Painter, Parts, Pixels
from .sheet import CELLS

ZOOM = 2
SIZE = CELLS * ZOOM

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Part:
    """One independent choice.

    Attributes:
        name: such as ``hair``.
        options: the names of what can be chosen.
        shares: their probabilities; they sum to 1.
        colours: RGB in 0..255 of each option, for parts that are colours.
    """

    name: str
    options: tuple[str, ...]
    shares: tuple[float, ...]
    colours: tuple[Colour, ...] | None = None

    def __post_init__(self) -> None:
        if (
            len(self.shares) != len(self.options)
            or min(self.shares, default=0) <= 0
            or abs(sum(self.shares) - 1) > 1e-9
        ):
            raise UsageError(f"the shares of {self.name} are one positive number an option that sum to 1")
        if self.colours is not None and len(self.colours) != len(self.options):
            raise UsageError(f"{self.name} needs one colour an option")


@dataclass(frozen=True, eq=False)
class Avatars:
    """Parts that are drawn independently, and how they make a picture.

    A combination is a row of integers, one for each of ``parts``: the index of its option.

    Raises:
        UsageError: layers that the exact posterior cannot take: a cell that mixes the colours of two parts, or a cover
            that lets something shine through or lies below a layer that is none.
    """

    parts: tuple[Part, ...]
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        above_cover = False
        for layer in self.layers:
            below, paint = layer.inks[..., 0], layer.inks[..., 1]
            if ((below > 0) & (paint > 0)).any():
                raise UsageError("a layer mixes its own colour with the colour below; each cell may show one part only")
            if above_cover and not layer.cover:
                raise UsageError("covers must be the last layers")
            if layer.cover and not np.isin(below, (0.0, 1.0)).all():
                raise UsageError("a cover must be opaque")
            above_cover |= layer.cover

    @cached_property
    def index(self) -> dict[str, int]:
        """The column of each part."""
        return {part.name: column for column, part in enumerate(self.parts)}

    def draw(self, num: int, seed: int) -> Parts:
        """``num`` independent combinations (num, P); the first n of them are the draw of ``num`` = n."""
        chance = np.random.default_rng([seed, len(self.parts)]).random((num, len(self.parts)))
        upper_ends = [np.cumsum(part.shares)[:-1] for part in self.parts]
        columns = [np.searchsorted(*pair, side="right") for pair in zip(upper_ends, chance.T, strict=True)]
        return np.stack(columns, 1).astype(np.int64)

    def compose(self, parts: Parts) -> Pixels:
        """The pictures (N, 32, 32, 3), RGB in 0..255, of combinations (N, P)."""
        return self._painter.paint(parts).reshape(-1, CELLS, CELLS, 3).repeat(ZOOM, 1).repeat(ZOOM, 2)

    def pictures(self, num: int, seed: int) -> Pixels:
        """``num`` independent pictures (num, 32, 32, 3)."""
        return self.compose(self.draw(num, seed))

    def log_prob(self, parts: Parts) -> NDArray[np.float64]:
        """ln of the probability of combinations (..., P), (...)."""
        logs = [np.log(part.shares)[parts[..., column]] for column, part in enumerate(self.parts)]
        total: NDArray[np.float64] = np.sum(logs, axis=0)
        return total

    def names(self, parts: Iterable[int]) -> dict[str, str]:
        """One combination in words."""
        return {part.name: part.options[choice] for part, choice in zip(self.parts, parts, strict=True)}

    def only(self, options: Mapping[str, Sequence[str]]) -> Avatars:
        """The law given that some parts are among the named options: smaller sets, and conditional laws.

        Raises:
            UsageError: there is no such part or option.
        """
        chosen: dict[str, list[int]] = {}
        for name, wanted in options.items():
            known = self.parts[self.index[name]].options if name in self.index else ()
            if not wanted or not set(wanted) <= set(known):
                raise UsageError(
                    f"there is no {name} {', '.join(wanted)}; the options are {', '.join(known) or 'none'}"
                )
            chosen[name] = [known.index(option) for option in wanted]
        parts = tuple(_only(part, chosen.get(part.name)) for part in self.parts)
        layers = []
        for layer in self.layers:
            rows = chosen.get(layer.style or "")
            if rows is not None:
                own = None if layer.own is None else layer.own[rows]
                layer = replace(layer, drawings=layer.drawings[rows], own=own)
            layers.append(layer)
        return Avatars(parts, tuple(layers))

    @cached_property
    def colours(self) -> dict[str, NDArray[np.float64]]:
        """RGB (n, 3) of the options of each part that is a colour."""
        return {part.name: np.array(part.colours, float) for part in self.parts if part.colours is not None}

    def painter(self, *, covers: bool = True) -> Painter:
        """What paints combinations, with the covers or without."""
        return Painter([layer for layer in self.layers if covers or not layer.cover], self.index, self.colours)

    @cached_property
    def _painter(self) -> Painter:
        return self.painter()


def _only(part: Part, rows: list[int] | None) -> Part:
    if rows is None:
        return part
    shares = np.array(part.shares)[rows]
    colours = None if part.colours is None else tuple(part.colours[row] for row in rows)
    return Part(part.name, tuple(part.options[row] for row in rows), tuple((shares / shares.sum()).tolist()), colours)
