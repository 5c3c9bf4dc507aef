"""Pictures in folders, tar files and idx files (the format of MNIST), and the classes that they say they are of."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from priorpaint.errors import UsageError
from priorpaint.imaging.idx import Pixels, is_idx, labels_file, padded, read_idx_pictures, read_labels
from priorpaint.imaging.reading import on_white

_BROKEN = (EOFError, OSError, lzma.LZMAError, zlib.error, tarfile.TarError)
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
# Pictures too, but not read here.
_OTHER_FORMATS = frozenset({".gif", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".psd", ".svg", ".exr", ".hdr"})
# Folders of these names are parts of a data set, not classes.
_PARTS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "holdout"})


@dataclass(frozen=True)
class LabelledPicture:
    """A picture that was read: its name, its pixels, and the class that its place says it is of, where there is one."""

    name: str
    picture: Image.Image
    label: str | None = None


def read_pictures(
    sources: Sequence[str | Path], channels: int, skipped: list[str], *, pad: int = 0
) -> Iterator[LabelledPicture]:
    """All pictures in a fixed order, upright, as RGB or grey, each with its folder below the source, or idx label.

    16 bits become 8, and what is transparent is laid on white (see `on_white`). Pictures of other formats, damaged ones
    and those whose values are not of 8 or 16 bits are named in ``skipped``.

    Args:
        pad: pictures of idx files that are smaller get an even black border up to this side in pixels.

    Raises:
        UsageError: a source does not exist, or is neither a folder, a picture, a tar nor an idx file.
    """
    mode = "RGB" if channels == 3 else "L"
    for source in map(Path, sources):
        if is_idx(source):
            yield from _from_idx(source, mode, pad)
            continue
        skipped += [f"{name} is of a format that is not read; convert it to PNG." for name in _unread(source)]
        for name, content in _files(source):
            try:
                # Never by its path: Pillow 13 maps plain TIFFs of orientation 5 to 8 with sides swapped.
                with Image.open(io.BytesIO(content if isinstance(content, bytes) else content.read_bytes())) as picture:
                    upright = on_white(ImageOps.exif_transpose(picture)).convert(mode)
            except MemoryError:
                raise
            except Exception as error:  # every decoder has its own kind of error
                skipped.append(f"{name} cannot be read as a picture ({error}).")
                continue
            yield LabelledPicture(name, upright, _folder(source, name))


def class_names(sources: Sequence[str | Path]) -> tuple[str, ...]:
    """The classes of some sources, sorted: the subfolders that hold all their pictures, or the labels of idx files.

    None where pictures lie outside subfolders, where there are fewer than two classes, or where the folders are parts
    of a data set such as ``train`` and ``test``.
    """
    names: set[str] = set()
    for source in map(Path, sources):
        if is_idx(source):
            file = labels_file(source)
            if file is None:
                return ()
            names |= set(_idx_names(read_labels(file)))
        elif source.is_dir() or source.suffix.lower() not in SUFFIXES:
            folders = {_folder(source, name) for name in _names(source)}
            if None in folders:
                return ()
            names |= {folder for folder in folders if folder is not None}
        else:
            return ()
    parts = {name.lower() for name in names} <= _PARTS
    return () if len(names) < 2 or parts else tuple(sorted(names))


def _from_idx(source: Path, mode: str, pad: int) -> Iterator[LabelledPicture]:
    pixels, labels = read_idx_pictures(source)
    names: tuple[str | None, ...] = (None,) * len(pixels) if labels is None else _idx_names(labels)
    for index, (picture, label) in enumerate(zip(pixels, names, strict=True)):
        yield LabelledPicture(f"{source}[{index}]", Image.fromarray(padded(picture, pad)).convert(mode), label)


def _idx_names(labels: Pixels) -> tuple[str, ...]:
    """Labels as words that sort as the numbers do."""
    width = len(str(int(labels.max())))
    return tuple(f"{int(label):0{width}d}" for label in labels)


def _folder(source: Path, name: str) -> str | None:
    """The first folder of a picture below its source, a folder or a tar file."""
    inside = Path(name).relative_to(source) if source.is_dir() else Path(name.removeprefix(f"{source}:"))
    parts = [part for part in inside.parts if part != "."]
    return parts[0] if len(parts) > 1 and str(inside) != str(source) else None


def packed(sources: Sequence[str | Path]) -> list[Path]:
    """Tar and idx files inside folders, where they are not looked for; they have to be named themselves."""
    inside = (path for source in map(Path, sources) if source.is_dir() for path in sorted(source.rglob("*")))
    return [path for path in inside if path.is_file() and (is_idx(path) or ".tar" in path.suffixes)]


def _names(source: Path) -> Iterator[str]:
    """The names of `_files`, without unpacking anything."""
    if source.is_file() and _is_tar(source):
        with _tar(source) as tar:
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
    elif _is_tar(source):
        yield from _members(source)
    else:
        raise UsageError(
            f"{source} is neither a folder, a picture, a tar file of pictures nor an idx file "
            "(NAME-images-idx3-ubyte, also .gz or .xz)."
        )


def _unread(source: Path) -> list[str]:
    """The pictures in a folder or tar file whose formats are not read."""
    if source.is_dir():
        return sorted(str(path) for path in source.rglob("*") if path.suffix.lower() in _OTHER_FORMATS)
    if source.suffix.lower() in SUFFIXES or not (source.is_file() and _is_tar(source)):
        return []
    with _tar(source) as tar:
        return [f"{source}:{member.name}" for member in _wanted(tar, _OTHER_FORMATS)]


@contextmanager
def _tar(source: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(source) as tar:
            yield tar
    except _BROKEN as error:
        raise UsageError(f"{source} is damaged ({error}); pack or download it again.") from None


def _is_tar(source: Path) -> bool:
    try:
        return tarfile.is_tarfile(source)
    except _BROKEN:
        return False


def _members(source: Path) -> Iterator[tuple[str, bytes]]:
    with _tar(source) as tar:
        for member in _wanted(tar):
            file = tar.extractfile(member)
            if file is not None:
                yield f"{source}:{member.name}", file.read()


def _wanted(tar: tarfile.TarFile, suffixes: frozenset[str] = SUFFIXES) -> list[tarfile.TarInfo]:
    pictures = [m for m in tar.getmembers() if m.isfile() and Path(m.name).suffix.lower() in suffixes]
    return sorted(pictures, key=lambda m: m.name)
