"""Pictures in folders, tar files and idx files (the format of MNIST), and the classes that they say they are of."""

from __future__ import annotations

import gzip
import io
import lzma
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from priorpaint.errors import UsageError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
# Folders of these names are parts of a data set, not classes.
_PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "holdout"})
_IDX = re.compile(r"[-.]idx3-ubyte(\.gz|\.xz)?$")
_MOST_BYTES = 2**31

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """A picture that was read: its name, its pixels, and the class that its place says it is of, where there is one."""

    name: str
    picture: Image.Image
    label: str | None = None


def read_pictures(
    sources: Sequence[str | Path], channels: int, skipped: list[str], *, pad: int = 0
) -> Iterator[tuple[str, Image.Image]]:
    """Yield (name, picture) in a fixed order, upright, as RGB or grey; damaged files are named in ``skipped``.

    Args:
        pad: pictures of idx files that are smaller get an even black border up to this side in pixels.

    Raises:
        UsageError: a source does not exist, or is neither a folder, a picture, a tar nor an idx file.
    """
    for found in find_pictures(sources, channels, skipped, pad=pad):
        yield found.name, found.picture


def find_pictures(sources: Sequence[str | Path], channels: int, skipped: list[str], *, pad: int = 0) -> Iterator[Found]:
    """As `read_pictures`, with the class of each picture: its first folder below the source, or its idx label."""
    mode = "RGB" if channels == 3 else "L"
    for source in map(Path, sources):
        if is_idx(source):
            yield from _from_idx(source, mode, pad)
            continue
        for name, content in _files(source):
            try:
                with Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as picture:
                    upright = ImageOps.exif_transpose(picture).convert(mode)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                skipped.append(f"{name} cannot be read as a picture ({error}).")
                continue
            yield Found(name, upright, _folder(source, name))


def class_names(sources: Sequence[str | Path]) -> tuple[str, ...]:
    """The classes of some sources, sorted: the subfolders that hold all their pictures, or the labels of idx files.

    None where pictures lie outside subfolders, where there are fewer than two classes, or where the folders are parts
    of a data set such as ``train`` and ``test``.
    """
    names: set[str] = set()
    for source in map(Path, sources):
        if is_idx(source):
            file = _labels_file(source)
            if file is None:
                return ()
            names |= set(_idx_names(read_idx(file)))
        elif source.is_dir() or source.suffix.lower() not in SUFFIXES:
            folders = {_folder(source, name) for name in _names(source)}
            if None in folders:
                return ()
            names |= {folder for folder in folders if folder is not None}
        else:
            return ()
    parts = {name.lower() for name in names} <= _PARTS
    return () if len(names) < 2 or parts else tuple(sorted(names))


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
                raise UsageError(f"{path} is no idx file of unsigned bytes; give the original file.")
            shape = tuple(int(side) for side in np.frombuffer(file.read(4 * start[3]), dtype=">u4"))
            size = int(np.prod(shape, dtype=np.float64))
            content = file.read(min(size, _MOST_BYTES) + 1)
    except (OSError, EOFError, lzma.LZMAError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path} cannot be unpacked ({error}); download it again.") from None
    if len(shape) != start[3] or len(content) != size:
        raise UsageError(f"{path} holds {len(content)} values and announces {size} ({shape}); download it again.")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _from_idx(source: Path, mode: str, pad: int) -> Iterator[Found]:
    pixels = read_idx(source)
    if pixels.ndim != 3:
        raise UsageError(f"{source} has {pixels.ndim} axes and pictures have 3 (number, height, width).")
    borders = [(max(pad - side, 0) // 2, (max(pad - side, 0) + 1) // 2) for side in pixels.shape[1:]]
    labels: tuple[str | None, ...] = (None,) * len(pixels)
    file = _labels_file(source)
    if file is not None:
        labels = _idx_names(read_idx(file))
        if len(labels) != len(pixels):
            raise UsageError(f"{file} has {len(labels)} labels for the {len(pixels)} pictures of {source}.")
    for index, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        yield Found(f"{source}[{index}]", Image.fromarray(np.pad(picture, borders)).convert(mode), label)


def _labels_file(source: Path) -> Path | None:
    """train-images-idx3-ubyte.xz -> train-labels-idx1-ubyte.xz, where there is one, packed in whatever way."""
    stem = re.sub(r"(\.gz|\.xz)$", "", source.name).replace("images", "labels").replace("idx3", "idx1")
    for suffix in ("", ".gz", ".xz"):
        if (source.parent / f"{stem}{suffix}").is_file():
            return source.parent / f"{stem}{suffix}"
    return None


def _idx_names(labels: Pixels) -> tuple[str, ...]:
    """Labels as words that sort as the numbers do."""
    if labels.ndim != 1 or not len(labels):
        raise UsageError(f"a file of labels has one axis, not the shape {labels.shape}.")
    width = len(str(int(labels.max())))
    return tuple(f"{int(label):0{width}d}" for label in labels)


def _folder(source: Path, name: str) -> str | None:
    """The first folder of a picture below its source, a folder or a tar file."""
    inside = Path(name).relative_to(source) if source.is_dir() else Path(name.removeprefix(f"{source}:"))
    parts = [part for part in inside.parts if part != "."]
    return parts[0] if len(parts) > 1 and str(inside) != str(source) else None


def _names(source: Path) -> Iterator[str]:
    """The names of `_files`, without unpacking anything."""
    if source.is_file() and tarfile.is_tarfile(source):
        with tarfile.open(source) as tar:
            yield from (f"{source}:{member.name}" for member in _wanted(tar))
        return
    yield from (name for name, _ in _files(source))


def _files(source: Path) -> Iterator[tuple[str, Path | bytes]]:
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        yield from ((str(path), path) for path in paths)
    elif not source.is_file():
        raise UsageError(f"There is no folder or file {source}; check the path of the pictures.")
    elif source.suffix.lower() in SUFFIXES:
        yield str(source), source
    elif tarfile.is_tarfile(source):
        yield from _members(source)
    else:
        raise UsageError(
            f"{source} is neither a folder, a picture, a tar file of pictures nor an idx file "
            "(NAME-images-idx3-ubyte, also .gz or .xz)."
        )


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(source) as tar:
        for member in _wanted(tar):
            file = tar.extractfile(member)
            if file is not None:
                yield f"{source}:{member.name}", file.read()


def _wanted(tar: tarfile.TarFile) -> list[tarfile.TarInfo]:
    pictures = [m for m in tar.getmembers() if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
    return sorted(pictures, key=lambda m: m.name)
