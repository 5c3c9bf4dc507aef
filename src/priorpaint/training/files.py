"""Pictures in folders, tar files and idx files (the format of MNIST), and the classes that they say they are of."""

from __future__ import annotations

import io
import lzma
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from PIL import Image, ImageOps, UnidentifiedImageError

from priorpaint.errors import UsageError
from priorpaint.imaging.idx import Pixels, is_idx, labels_file, padded, read_idx_pictures, read_labels
from priorpaint.imaging.picture import on_white
from priorpaint.imaging.reading import FILE_FORMATS as PICTURE_FORMATS

_BROKEN = (EOFError, OSError, lzma.LZMAError, zlib.error, tarfile.TarError)
# What Pillow may take a file for, whatever its name says: others have decoders that start programs (EPS: Ghostscript).
FILE_FORMATS = (*PICTURE_FORMATS, "PPM")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"})
# Pictures too, but not read here.
_OTHER_FORMATS = frozenset({".gif", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".tga", ".psd", ".svg", ".exr", ".hdr"})
_PICTURES = SUFFIXES | _OTHER_FORMATS
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
        with _opened(source, skipped) as files:
            unread = (name for name, _ in files if not _is_read(name))
            skipped += [f"{name} is of a format that is not read; convert it to PNG." for name in unread]
            for name, fetch in files:
                if not _is_read(name):
                    continue
                content = fetch()
                try:
                    # Never by its path: Pillow 13 maps plain TIFFs of orientation 5 to 8 with sides swapped.
                    data = content if isinstance(content, bytes) else content.read_bytes()
                    with Image.open(io.BytesIO(data), formats=FILE_FORMATS) as picture:
                        upright = on_white(ImageOps.exif_transpose(picture)).convert(mode)
                except MemoryError:
                    raise
                except UnidentifiedImageError:
                    skipped.append(f"{name} cannot be read as a picture, whatever its name says; convert it to PNG.")
                    continue
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
            with _opened(source, []) as files:
                folders = {_folder(source, name) for name, _ in files if _is_read(name)}
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
    # A tar file may have names such as ../cats/1.png and /cats/1.png; nothing is ever unpacked to there.
    parts = [part for part in inside.parts if part not in (".", "..", inside.anchor)]
    return parts[0] if len(parts) > 1 and str(inside) != str(source) else None


def packed(sources: Sequence[str | Path]) -> list[Path]:
    """Tar and idx files inside folders, where they are not looked for; they have to be named themselves."""
    inside = (path for source in map(Path, sources) if source.is_dir() for path in sorted(source.rglob("*")))
    return [path for path in inside if path.is_file() and (is_idx(path) or ".tar" in path.suffixes)]


@contextmanager
def _opened(source: Path, skipped: list[str]) -> Iterator[list[tuple[str, Callable[[], Path | bytes]]]]:
    """The pictures of a folder, file or tar file in a fixed order, also those not read here: names, and what is there.

    Links to nothing or to folders, pipes and other things that are no files are named in ``skipped`` and not opened.

    Raises:
        UsageError: there is no such source, it is of another kind, it is damaged, or a folder in it cannot be read.
    """
    if source.is_dir():
        every: list[str] = []
        for folder, folders, names in os.walk(source, onerror=_locked):
            every += [os.path.join(folder, name) for name in names if Path(name).suffix.lower() in _PICTURES]
            links = sorted(link for name in folders if os.path.islink(link := os.path.join(folder, name)))
            skipped += [
                f"{link} is a link to a folder, which is not followed; name that folder itself." for link in links
            ]
        files = sorted(path for path in map(Path, every) if os.path.isfile(path))
        skipped += map(_no_file, sorted(path for path in every if not os.path.isfile(path)))
        yield [(str(path), partial(Path, path)) for path in files]
        return
    if not source.is_file():
        raise UsageError(f"There is no folder or file {source}; check the path of the pictures.")
    if source.suffix.lower() in SUFFIXES:
        yield [(str(source), partial(Path, source))]
        return
    try:
        tar = tarfile.open(source)
    except _BROKEN:
        raise UsageError(
            f"{source} is neither a folder, a picture, a tar file of pictures nor an idx file "
            "(NAME-images-idx3-ubyte, also .gz or .xz)."
        ) from None
    try:
        with tar:
            members = [m for m in tar.getmembers() if not m.isdir() and Path(m.name).suffix.lower() in _PICTURES]
            members.sort(key=lambda member: member.name)
            others = (f"{source}:{m.name} is no file but a link or a device" for m in members if not m.isfile())
            skipped += [f"{other}, which is not followed; pack the file itself." for other in others]
            members = [m for m in members if m.isfile()]
            yield [(f"{source}:{member.name}", partial(_content, tar, member)) for member in members]
    except _BROKEN as error:
        raise UsageError(f"{source} is damaged ({error}); pack or download it again.") from None


def _no_file(path: str) -> str:
    if os.path.islink(path) and not os.path.exists(path):
        return f"{path} is a link to a file that is not there; mend or remove it."
    return f"{path} is no file but a pipe, a socket or a device, and was not opened."


def _locked(error: OSError) -> NoReturn:
    raise UsageError(f"{error.filename} cannot be read ({error.strerror}); change its permissions, or leave it out.")


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    assert file is not None  # only of what is no regular file
    return file.read()


def _is_read(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES
