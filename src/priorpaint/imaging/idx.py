"""Files in MNIST's format (idx): many small grey pictures in one file, and their labels in another beside it."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from priorpaint.errors import UsageError

_IDX = re.compile(r"[-.]idx3-ubyte(\.gz|\.xz)?$")
_MOST_BYTES = 2**31

Pixels = NDArray[np.uint8]


def is_idx(source: str | Path) -> bool:
    """Whether this is a file of pictures in MNIST's format, by its name: NAME-idx3-ubyte, also .gz and .xz."""
    return _IDX.search(str(source)) is not None and Path(source).is_file()


def read_idx(path: Path) -> Pixels:
    """The array of an idx file of unsigned bytes, any number of axes.

    Raises:
        UsageError: the file is damaged, or holds something else.
    """
    ways: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}
    opened = ways.get(path.suffix, open)
    try:
        with opened(path, "rb") as file:
            start = file.read(4)
            if len(start) < 4 or start[:3] != b"\x00\x00\x08" or not 1 <= start[3] <= 4:
                raise UsageError(f"{path} is not an idx file of unsigned bytes; give the original file.")
            shape = tuple(int(side) for side in np.frombuffer(file.read(4 * start[3]), dtype=">u4"))
            size = int(np.prod(shape, dtype=np.float64))
            content = file.read(min(size, _MOST_BYTES) + 1)
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} cannot be unpacked ({error}); download it again.") from None
    if len(shape) != start[3] or len(content) != size:
        raise UsageError(f"{path} holds {len(content)} values but announces {size} ({shape}); download it again.")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def read_idx_pictures(path: Path) -> tuple[Pixels, Pixels | None]:
    """The pictures (N, H, W) of an idx file, and their labels (N,) where a file of labels lies beside it.

    Raises:
        UsageError: a file is damaged or holds something else, or there is not one label a picture.
    """
    pixels = read_idx(path)
    if pixels.ndim != 3:
        raise UsageError(f"{path} has {pixels.ndim} axes, but pictures have 3 (count, height, width).")
    file = labels_file(path)
    if file is None:
        return pixels, None
    labels = read_labels(file)
    if len(labels) != len(pixels):
        raise UsageError(f"{file} has {len(labels)} labels for the {len(pixels)} pictures of {path}.")
    return pixels, labels


def read_labels(path: Path) -> Pixels:
    """The labels (N,) of an idx file.

    Raises:
        UsageError: the file is damaged or holds something else.
    """
    labels = read_idx(path)
    if labels.ndim != 1 or not len(labels):
        raise UsageError(f"a file of labels has one axis, not the shape {labels.shape}.")
    return labels


def labels_file(source: Path) -> Path | None:
    """train-images-idx3-ubyte.xz -> train-labels-idx1-ubyte.xz, where there is one, packed in whatever way."""
    stem = re.sub(r"(\.gz|\.xz)$", "", source.name).replace("images", "labels").replace("idx3", "idx1")
    return as_stored(source.parent / stem)


def as_stored(file: Path) -> Path | None:
    """The file as it is, or as .gz or .xz, whichever there is."""
    return next((each for suffix in ("", ".gz", ".xz") if (each := Path(f"{file}{suffix}")).is_file()), None)


def padded(pixels: Pixels, side: int) -> Pixels:
    """Pictures (..., H, W) with an even black border up to ``side``; an odd border is wider below and on the right."""
    missing = [max(side - length, 0) for length in pixels.shape[-2:]]
    borders = [(0, 0)] * (pixels.ndim - 2) + [(length // 2, (length + 1) // 2) for length in missing]
    return np.pad(pixels, borders)
