"""Which pictures a batch has, where their masks are, and where their results go: folders, globs, manifests."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from glob import glob
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UsageError
from ..imaging.bounds import read_file
from ..imaging.writing import FORMATS
from .store import content_key

MANIFESTS = (".csv", ".jsonl")
COLUMNS = ("picture", "mask", "label", "prompt", "seed", "out")
_GLOB = frozenset("*?[")


@dataclass(frozen=True)
class Entry:
    """One picture of a batch.

    Attributes:
        picture: its file.
        out: where its results go, FOLDER/STEM below the output folder with / between.
        mask: its mask file; None where the picture itself says what to repaint, or boxes do.
        label, prompt, seed: its own; None is what all have.
        problem: why it cannot be done, one sentence; empty where nothing is known against it.
    """

    picture: Path
    out: str
    mask: Path | None = None
    label: int | None = None
    prompt: str | None = None
    seed: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class MaskFiles:
    """Where the mask file of a picture is: one for all; or in a folder with the tree and the names of the pictures;
    or beside it. With ``suffix``, the mask of a/cat.jpg is a/cat_mask.png, or of any other format that is read.

    Raises:
        UsageError: a file or folder that is not there, or one mask for all beside one for each.
    """

    file: Path | None = None
    folder: Path | None = None
    suffix: str | None = None
    _names: dict[Path, dict[str, list[str]]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.file is not None and (self.folder is not None or self.suffix is not None):
            raise UsageError("--mask is one mask for all pictures, and --masks and --mask-suffix name one for each.")
        if self.file is not None and not self.file.is_file():
            raise UsageError(f"the mask {self.file} does not exist; check the path.")
        if self.folder is not None and not self.folder.is_dir():
            raise UsageError(f"there is no folder {self.folder} of masks; check the path.")
        if self.suffix is not None and (not self.suffix or "/" in self.suffix or os.sep in self.suffix):
            raise UsageError("--mask-suffix is the end of a mask's name, such as _mask.")

    @property
    def given(self) -> bool:
        """Whether there is any."""
        return self.file is not None or self.folder is not None or self.suffix is not None

    def masked(self, entry: Entry, name: PurePosixPath) -> Entry:
        """The entry with its mask, or with the problem that there is none, or more than one.

        Args:
            name: of the picture, relative to its source.
        """
        if entry.mask is not None or not self.given or entry.problem:
            return entry
        if self.file is not None:
            return replace(entry, mask=self.file)
        folder = entry.picture.parent if self.folder is None else self.folder / name.parent
        stem = name.stem + (self.suffix or "")
        found = self._in(folder).get(stem, [])
        if len(found) == 1:
            return replace(entry, mask=folder / found[0])
        which = f"are several masks ({', '.join(found)})" if found else f"is no mask {stem}.*"
        return replace(entry, problem=f"there {which} in {folder}; put one there.")

    def is_mask(self, path: Path) -> bool:
        """Whether a file beside pictures is the mask of one of them."""
        if self.suffix is None or self.folder is not None or not path.stem.endswith(self.suffix):
            return False
        return path.stem.removesuffix(self.suffix) in self._in(path.parent)

    def _in(self, folder: Path) -> dict[str, list[str]]:
        """The names of picture files in a folder, by stem."""
        if folder not in self._names:
            names: dict[str, list[str]] = {}
            for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
                if _is_picture(name):
                    names.setdefault(PurePosixPath(name).stem, []).append(name)
            self._names[folder] = names
        return self._names[folder]


def find_entries(sources: Sequence[str], masks: MaskFiles, spared: Sequence[Path] = ()) -> list[Entry]:
    """The pictures of a batch, in the order of their places, which mirror the tree of the sources.

    Args:
        sources: folders, with all below them; picture files; globs, with ``**`` for any folders; or one manifest.
        masks: where their masks are.
        spared: files, and folders with all below them, that are not looked at, such as the results.

    Raises:
        UsageError: a source does not exist or cannot be read; there is no picture; two have the same place.
    """
    manifests = [source for source in sources if Path(source).suffix.lower() in MANIFESTS]
    if manifests and len(sources) > 1:
        raise UsageError(f"{manifests[0]} is a manifest, which stands alone; list all pictures in it.")
    if manifests:
        entries = list(_of_manifest(Path(manifests[0]), masks))
    else:
        closed = {path.resolve() for path in (*spared, masks.file, masks.folder) if path is not None}
        entries = list(_of_files(sources, masks, closed))
    if not entries:
        raise UsageError(f"there is no picture in {', '.join(sources)} ({', '.join(FORMATS)}).")
    twice = next((out for out, count in Counter(entry.out for entry in entries).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"two pictures would have the results {twice}; give them other names, or `out` in a manifest.")
    return sorted(entries, key=lambda entry: entry.out)


def sharded(entries: Sequence[Entry], shard: tuple[int, int]) -> list[Entry]:
    """Part i of n, (i, n) from 1: a picture's part depends on its place alone, so that parts never overlap."""
    i, n = shard
    return [entry for entry in entries if int(content_key(entry.out), 16) % n == i - 1]


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) of "i/n".

    Raises:
        UsageError: it is something else.
    """
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise UsageError(f"--shard is i/n, part i of n counted from 1, such as 3/8, not {text!r}.")
    return int(i), int(n)


def _is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in FORMATS and not name.startswith(".")


def _of_files(sources: Sequence[str], masks: MaskFiles, closed: set[Path]) -> Iterator[Entry]:
    found: dict[Path, str] = {}
    for source in sources:
        found |= dict(_files(source, closed))
    files = {path: problem for path, problem in found.items() if not masks.is_mask(path)}
    if not files:
        return
    alone = Path(sources[0]) if len(sources) == 1 and Path(sources[0]).is_dir() else None
    root = alone or Path(os.path.commonpath([path.parent.absolute() for path in files]))
    names = {path: _below(path, root) for path in files}
    stems = Counter(str(name.with_suffix("")).casefold() for name in names.values())
    for path, problem in files.items():
        name = names[path]
        stem = name.with_suffix("")
        out = stem if stems[str(stem).casefold()] == 1 else name  # cat.png and cat.jpg keep their suffixes
        yield masks.masked(Entry(path, str(out), problem=problem), name)


def _below(path: Path, root: Path) -> PurePosixPath:
    below = path.relative_to(root) if path.is_relative_to(root) else path.absolute().relative_to(root.absolute())
    return PurePosixPath(below.as_posix())


def _files(source: str, closed: set[Path]) -> Iterator[tuple[Path, str]]:
    """Picture files, each with what is known against it."""
    path = Path(source)
    if path.is_dir():
        yield from _walk(path, closed)
    elif path.is_file():
        if path.resolve() not in closed:
            yield path, ""
    elif _GLOB.isdisjoint(source):
        raise UsageError(f"{source} does not exist; give a folder, a glob, pictures or a manifest (.csv, .jsonl).")
    else:
        for name in glob(source, recursive=True):
            if _is_picture(os.path.basename(name)) and not _inside(Path(name), closed):
                yield Path(name), ""


def _walk(folder: Path, closed: set[Path]) -> Iterator[tuple[Path, str]]:
    broken: list[OSError] = []
    for at, folders, names in os.walk(folder, onerror=broken.append):
        here = Path(at)
        folders[:] = sorted(one for one in folders if not one.startswith(".") and (here / one).resolve() not in closed)
        pictures = [name for name in names if _is_picture(name) and (here / name).resolve() not in closed]
        if not pictures and not folders and here != folder and _is_picture(here.name):
            yield here, f"{here} is a folder, though it has a picture's name."
        for name in pictures:
            yield here / name, ""
    for error in broken:
        if Path(error.filename) == folder:
            raise UsageError(f"the folder {folder} cannot be read ({error.strerror}); check its permissions.")
        yield Path(error.filename), f"the folder {error.filename} cannot be read ({error.strerror})."


def _inside(path: Path, closed: set[Path]) -> bool:
    return any(one in closed for one in (path.resolve(), *path.resolve().parents))


def _of_manifest(path: Path, masks: MaskFiles) -> Iterator[Entry]:
    """The rows of a manifest, CSV with a head or JSON lines; paths are relative to its folder."""
    read = _json_rows if path.suffix.lower() == ".jsonl" else _csv_rows
    try:
        text = read_file(str(path)).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8; save it as UTF-8.") from None
    for line, row in read(path, text):
        where = f"{path}, line {line}"
        for column in sorted(row.keys() - {*COLUMNS}):
            raise UsageError(f"{where}: there is no column {column!r}; it takes {', '.join(COLUMNS)}.")
        given = {key: value for key, value in row.items() if value not in (None, "")}
        get = partial(_value, where, given)
        picture = get("picture", str)
        if picture is None:
            raise UsageError(f"{where} names no picture.")
        name, mask = PurePosixPath(Path(picture).as_posix()), get("mask", str)
        inside = not name.is_absolute() and ".." not in name.parts
        entry = Entry(
            path.parent / picture,
            _place(where, get("out", str)) or str(name.with_suffix("") if inside else PurePosixPath(name.stem)),
            None if mask is None else path.parent / mask,
            get("label", int),
            get("prompt", str),
            get("seed", int),
        )
        yield masks.masked(entry, name if inside else PurePosixPath(name.name))


def _csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(StringIO(text, newline=""), restkey="(without a head)")
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}.") from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, one in enumerate(text.split("\n"), 1):
        if not one.strip():
            continue
        try:
            row = json.loads(one)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise UsageError(f'{path}, line {line} is not a JSON object such as {{"picture": "a.png"}}.')
        yield line, row


def _value(where: str, row: Mapping[str, Any], column: str, kind: Callable[[Any], Any]) -> Any:
    """The value of a column, or None where there is none."""
    value = row.get(column)
    if value is None:
        return None
    try:
        if isinstance(value, bool | float | list | dict) or (kind is str and not isinstance(value, str)):
            raise ValueError
        return kind(value)
    except ValueError:
        words = "a whole number" if kind is int else "text"
        raise UsageError(f"{where}: {column} is {words}, not {value!r}.") from None


def _place(where: str, out: str | None) -> str | None:
    if out is None:
        return None
    place = PurePosixPath(Path(out).as_posix())
    if place.is_absolute() or ".." in place.parts or not place.name:
        raise UsageError(f"{where}: out is a place below the output folder, such as rooms/kitchen, not {out!r}.")
    return str(place)
