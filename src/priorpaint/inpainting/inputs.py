"""Pictures, masks, boxes and numbers as callers give them: what is taken, and one sentence for what is not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import Self

from ..errors import CancelToken, UsageError
from ..imaging import Box, Picture, read_picture
from ..imaging.arrays import value_type
from ..imaging.picture import OPAQUE
from ..imaging.ranges import Asked, choose_range, parse_range
from ..imaging.reading import Source as Source

_BOOL = bool | np.bool_


class Keywords:
    """Dataclasses that take their fields out of the keyword arguments of a plan."""

    @classmethod
    def split(cls, arguments: Mapping[str, Any]) -> tuple[Self, dict[str, Any]]:
        """The fields among keyword arguments, and the others."""
        names = {one.name for one in fields(cls)}  # type: ignore[arg-type]
        rest = {name: value for name, value in arguments.items() if name not in names}
        return cls(**{name: value for name, value in arguments.items() if name in names}), rest


def as_picture(source: Source | Picture, page: int | None = None) -> Picture:
    """A picture as ``read_picture`` reads it, or one that was read already.

    Raises:
        UsageError: it cannot be used.
    """
    if not isinstance(source, Picture):
        return read_picture(source, page=None if page is None else whole(page, "page"))
    if page is not None:
        raise UsageError("page is for a TIFF file; a Picture is one page already.")
    return source


def whole(value: Any, name: str) -> int:
    """A whole number, of Python or NumPy.

    Raises:
        UsageError: anything else.
    """
    return int(_of_kind(value, Integral, name, "one whole number"))


def number(value: Any, name: str) -> float:
    """A real number, of Python or NumPy.

    Raises:
        UsageError: anything else.
    """
    return float(_of_kind(value, Real, name, "a number"))


def flag(value: Any, name: str) -> bool:
    """True or False, of Python or NumPy.

    Raises:
        UsageError: anything else, such as "no", which Python takes for true.
    """
    return bool(_of_kind(value, _BOOL, name, "True or False"))


def text(value: Any, name: str) -> str:
    """A text.

    Raises:
        UsageError: anything else.
    """
    return str(_of_kind(value, str, name, "text"))


def path(value: Any, name: str) -> str | Path:
    """A path in the file system.

    Raises:
        UsageError: anything else.
    """
    _of_kind(value, str | os.PathLike, name, "a path")
    return value if isinstance(value, str) else Path(value)


def check_callbacks(on_event: Any, cancel: Any = None) -> None:
    """Refuse what cannot be told of events, or asked whether to stop.

    Raises:
        UsageError: there is something, but no function and no `CancelToken`.
    """
    if on_event is not None and not callable(on_event):
        raise UsageError(f"on_event is a function of one event, not {_shown(on_event)}")
    if cancel is not None and not isinstance(cancel, CancelToken):
        raise UsageError(f"cancel is a CancelToken, not {_shown(cancel)}")


def check_finished(finished: Any, most: int, size: tuple[int, int]) -> None:
    """Refuse what cannot be the first completions of a run.

    Raises:
        UsageError: no list of images, more than ``most``, or of another size than (width, height).
    """
    if (
        not isinstance(finished, Sequence)
        or len(finished) > most
        or not all(isinstance(image, Image.Image) and image.size == size for image in finished)
    ):
        raise UsageError(
            "finished is a list of images, at most as many as the plan has samples, each of the picture's size."
        )


def as_sides(sides: Any) -> list[int]:
    """Sides of a picture in a list or an array.

    Raises:
        UsageError: anything else.
    """
    if isinstance(sides, str) or not isinstance(sides, Iterable):
        raise UsageError(f"extend is (left, top, right, bottom) in whole pixels, not {_shown(sides)}")
    return [whole(side, "each side of extend") for side in sides]


def as_colors(colors: Any) -> list[str | int]:
    """Colours and stored values, one or several.

    Raises:
        UsageError: anything else.
    """
    several = [colors] if isinstance(colors, str) or not isinstance(colors, Iterable) else list(colors)
    if isinstance(colors, bytes) or not all(isinstance(one, str | Integral) for one in several):
        raise UsageError(f'mask_color is a colour such as "#ffff00", a stored value, or several, not {_shown(colors)}')
    return [one if isinstance(one, str) else whole(one, "each stored value") for one in several]


def as_boxes(boxes: Any) -> list[Box]:
    """Boxes (x, y, width, height) in a list or an array.

    Raises:
        UsageError: anything else.
    """
    try:
        rows = [] if boxes is None else [tuple(whole(value, "") for value in box) for box in boxes]
    except (TypeError, UsageError):
        rows = [()]
    if any(len(row) != 4 for row in rows):
        raise UsageError(f"boxes is a list of (x, y, width, height) in whole pixels, not {_shown(boxes)}")
    return [(x, y, w, h) for x, y, w, h in rows]


def _of_kind(value: Any, kind: Any, name: str, words: str) -> Any:
    """The value, where it is of a kind; True is no number here, though it is one in Python."""
    if not isinstance(value, kind) or (isinstance(value, _BOOL) and kind is not _BOOL):
        raise UsageError(f"{name} is {words}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value in a sentence, as short as it must be."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def in_range(picture: Picture, known: NDArray[np.bool_], asked: Asked) -> tuple[Picture, tuple[str, ...]]:
    """The picture with the values that are black and white to the prior, and what the user should hear about them.

    Args:
        picture: read.
        known: (H, W); transparent pixels in it do not count.
        asked: "auto", "full" or (min, max), see ``choose_range``.

    Raises:
        UsageError: the range cannot be used, or a known pixel is not finite.
    """
    seen = known if picture.alpha is None else known & (picture.alpha >= OPAQUE)
    values = picture.values()
    if values.dtype.kind == "f" and (count := int((~np.isfinite(values).all(axis=2) & known).sum())):
        raise UsageError(
            f"{picture.name} has {count} pixels outside the mask that are not numbers; repaint them with "
            "--mask-from nan (mask='nan' in Python)."
        )
    span, told = choose_range(values, seen, asked, picture.name)
    return picture.ranged(span), () if told is None else (told,)


def asked_range(asked: Asked) -> str | list[float]:
    """What was asked for, for run.json."""
    parsed = parse_range(asked)
    return parsed if isinstance(parsed, str) else list(parsed)


def about_picture(picture: Picture) -> dict[str, Any]:
    """The input, for run.json."""
    source = about(picture.path, picture.sha256, picture.image)
    facts = {"size": list(picture.size), "mode": picture.mode, "format": picture.format}
    span = picture.scale
    return {**source, **facts, "dtype": str(value_type(picture.image)), "range": [span.low, span.high]}


def about(path: str | Path | None, sha256: str | None, values: Any) -> dict[str, Any]:
    """A file or its bytes with this hash, or without one an image or array that came from no file, for run.json."""
    if sha256 is not None:
        return {"path": None if path is None else str(path), "sha256": sha256}
    digest = hashlib.sha256(np.ascontiguousarray(np.asarray(values)).tobytes())
    return {"path": None, "pixels_sha256": digest.hexdigest()}
