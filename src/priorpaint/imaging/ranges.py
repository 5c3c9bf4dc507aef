"""Which stored values a prior sees as black and as white: all that the type holds, or the part that a picture uses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorpaint.errors import UsageError

AUTO, FULL = "auto", "full"
Asked = str | Sequence[float]

_PERCENTILES = (0.1, 99.9)
_USED = 0.5  # a picture that uses a smaller part of the values is stretched
_ENOUGH = 2_000_000  # values settle a percentile
_SEEN = ", which the prior sees as black to white"
_OTHERS = "; the range min,max sets others."


@dataclass(frozen=True)
class ValueRange:
    """The stored values that are -1 (black) and 1 (white) to a prior.

    Attributes:
        low, high: in the picture's own units; low < high.
    """

    low: float
    high: float

    def to_unit(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Stored values on [-1, 1], clipped; a value that is not finite becomes 0."""
        wide = values.dtype.itemsize > 2 or values.dtype.kind == "f"  # float32 holds 8 and 16 bits exactly
        planes: NDArray[Any] = values.astype(np.float64 if wide else np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # far outside, or not finite
            planes -= self.low
            planes /= (self.high - self.low) / 2
            planes -= 1
        if values.dtype.kind == "f":
            planes[~np.isfinite(values)] = 0
        return np.clip(planes, -1, 1, out=planes).astype(np.float32, copy=False)

    def from_unit(self, unit: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values from [-1, 1], clipped to it, in the picture's units; not rounded."""
        return self.low + (np.clip(unit, -1, 1) + 1) / 2 * (self.high - self.low)

    def __str__(self) -> str:
        return f"{self.low:.6g} to {self.high:.6g}"


def full_range(dtype: np.dtype[Any]) -> ValueRange:
    """All values of an integer type; 0 to 1 of a floating one."""
    if dtype.kind == "f":
        return ValueRange(0, 1)
    limits = np.iinfo(dtype)
    return ValueRange(int(limits.min), int(limits.max))


def view_range(*planes: NDArray[Any]) -> ValueRange:
    """Which values are 0 and 255 where colours of pictures of one type are named or compared.

    All that the type holds; of floating values 0 to 1, or where they leave that, from the lowest to the highest.
    """
    full = full_range(planes[0].dtype)
    if planes[0].dtype.kind != "f":
        return full
    seen = [plane[np.isfinite(plane)] for plane in planes]
    low, high = min(float(one.min(initial=1)) for one in seen), max(float(one.max(initial=0)) for one in seen)
    return full if full.low <= low and high <= full.high else ValueRange(low, max(high, low + 1))


def parse_range(asked: Asked) -> str | tuple[float, float]:
    """What was asked for: "auto", "full", or (min, max), also as the text "min,max".

    Raises:
        UsageError: anything else.
    """
    if isinstance(asked, str) and asked in (AUTO, FULL):
        return asked
    try:
        low, high = (float(part) for part in (asked.split(",") if isinstance(asked, str) else asked))
    except (TypeError, ValueError):
        raise UsageError(f"a value range is auto, full or min,max, such as 0,4095, and not {asked!r}.") from None
    if not (math.isfinite(high - low) and low < high):
        rule = "goes from a smaller number to a larger one, at most 1e308 apart"
        raise UsageError(f"a value range {rule}, and {low:g},{high:g} does not.")
    return low, high


def choose_range(
    values: NDArray[Any], known: NDArray[np.bool_], asked: Asked, name: str
) -> tuple[ValueRange, str | None]:
    """The range of a picture, and what the user should hear about it, or None.

    "auto" takes the .1 and 99.9 percentiles of the known values where they span less than half of what the type holds,
    and where floating values leave 0 to 1. Pictures of 8 bits are never stretched: a step of theirs is as small as a
    prior gets. The sentence says so where the lowest or highest value stands alone: programs write -9999 or 65535 for
    "no data".

    Args:
        values: (H, W, C), without alpha.
        known: (H, W).
        asked: as for `parse_range`.
        name: of the picture.

    Raises:
        UsageError: the range goes beyond the type, or cannot be chosen from these values.
    """
    asked, full = parse_range(asked), full_range(values.dtype)
    if isinstance(asked, tuple):
        if values.dtype.kind != "f" and (asked[0] < full.low or asked[1] > full.high):
            raise UsageError(f"{name} holds values from {full}; give a range inside, not {asked[0]:g},{asked[1]:g}.")
        return ValueRange(*asked), None
    if values.dtype == np.uint8:
        return full, None
    seen = values[known]
    if values.dtype.kind == "f":
        seen = seen[np.isfinite(seen)]
    if seen.size == 0:
        return full, None
    lowest, highest = float(seen.min()), float(seen.max())
    inside = full.low <= lowest and highest <= full.high
    if asked == FULL:
        if not inside:
            raise UsageError(
                f"{name} has values from {lowest:.6g} to {highest:.6g}, and floating values are full from 0 to 1; give "
                "the range auto or min,max."
            )
        return full, None
    flat = seen.reshape(-1)
    if not math.isfinite(highest - lowest):
        raise UsageError(
            f"{name} has values from {lowest:.6g} to {highest:.6g}, too far apart; give the range min,max."
        )
    low, high = (float(v) for v in np.percentile(flat[:: 1 + flat.size // _ENOUGH], _PERCENTILES))
    if low == high:  # nearly all values are equal, so the others are what there is to see
        low, high = lowest, highest
    alone = _alone(flat, low, high)
    if inside and (low == high or high - low >= _USED * (full.high - full.low)):
        level = f"{name} is {low:.6g} in every known pixel, and the prior sees {full} as black to white{_OTHERS}"
        return full, f"{name} uses the values {full}{_SEEN}{alone}" if alone else level if low == high else None
    if values.dtype.kind != "f":
        low, high = math.floor(low), math.ceil(high)
    if low == high:
        raise UsageError(f"{name} is {low:.6g} in every known pixel; give the range as min,max.")
    span = ValueRange(low, high)
    return span, f"{name} uses the values {span}{_SEEN}{alone or _OTHERS}"


def _alone(values: NDArray[Any], low: float, high: float) -> str | None:
    """What is to be said of a lowest or highest value that is farther from all others than these are from each other.

    Args:
        values: (N,).
        low, high: of the range; a value beyond them does no harm.
    """
    for extreme in (values.min(), values.max()):
        others = values[values != extreme]
        first, last = (float(others.min()), float(others.max())) if others.size else (0.0, 0.0)
        gap = max(first - float(extreme), float(extreme) - last)
        if gap > last - first > 0 and (low < first or high > last):
            others_lie, span = f"all but {extreme:.6g} lie from {first:.6g} to {last:.6g}", f"{first:.6g},{last:.6g}"
            return f", but {others_lie}; if that means no data, give the range {span}."
    return None
