"""run.json while a run is under way: its files are one run's alone, and a run that was killed can be gone on with."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import UsageError
from ..imaging import write_text_atomic
from ..imaging.writing import make_folder

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

RUN_FILE = "run.json"
_FREE = ("batch_size", "max_memory")  # arguments that change how samples are computed, but no sample


@dataclass
class Record:
    """run.json of a run that is under way; it is written at the start and after every sample (of more than 1000
    samples, after every thousandth part).

    Attributes:
        path: of the file.
        info: what is known of the run before its first sample.
        finished: samples whose files are in place, from the first one on.
        earlier: names of files that a replaced run left.
        told: what the user should hear about before the work, one sentence each: what the files do not keep of the
            picture's metadata; that the samples which are finished come from other versions.
        complete: all files are in place already, those of the summary too.
    """

    path: Path
    info: dict[str, Any]
    finished: int = 0
    earlier: frozenset[str] = frozenset()
    told: tuple[str, ...] = ()
    complete: bool = False

    def sample(self) -> None:
        """One more sample is in place.

        Raises:
            UsageError: the file cannot be written.
        """
        self.finished += 1
        if self.finished % math.ceil(len(self.info["sample_seeds"]) / 1000):
            return
        try:
            self.write()
        except UsageError:
            self.finished -= 1  # as the file says
            raise

    def write(self) -> None:
        """Write the file, atomically."""
        write_text_atomic(self.path, self.text())

    def text(self) -> str:
        """What stands in the file."""
        return json.dumps({**self.info, "finished_samples": self.finished}, indent=2) + "\n"


def read_record(path: Path) -> dict[str, Any] | None:
    """What a run.json says, or None where there is none or it is something else."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get("outputs"), list) else None


def interrupted(record: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Finished and wanted samples of a run that did not come to its end; None for any other record.

    What a run cost stands in its record when it has come to its end.
    """
    if record is None:
        return None
    finished, call = record.get("finished_samples"), record.get("call")
    wanted = call.get("num_samples") if isinstance(call, dict) else None
    if not isinstance(finished, int) or not isinstance(wanted, int) or not 0 <= finished <= wanted:
        return None
    return None if finished == wanted and "nfe" in record else (finished, wanted)


def check_same(path: Path, record: Mapping[str, Any], info: Mapping[str, Any], suffix: str) -> None:
    """Say that a run cannot be gone on with because it is another one.

    Args:
        record: of the run, read from ``path``.
        info: of the run that is to go on with it.
        suffix: of its completions.

    Raises:
        UsageError: picture, mask, prior, settings or format differ.
    """
    new = json.loads(json.dumps(info))
    different = [name for name, of in _PARTS.items() if of(record) != of(new)]
    old_call, call = _part(record, "call"), _part(new, "call")
    for key in sorted((old_call.keys() | call.keys()) - {*_FREE}):
        if old_call.get(key) != call.get(key):
            different.append(f"{key} ({old_call.get(key)!r} there, {call.get(key)!r} now)")
    names = [name for name in record["outputs"] if isinstance(name, str) and re.search(r"_\d+\.\w+$", name)]
    if names and Path(names[0]).suffix != suffix:
        different.append("the format")
    if different:
        raise UsageError(
            f"{path} is of another run: {', '.join(different)} differ{'s' * (len(different) == 1)}; repeat the command "
            "of that run with --resume, or choose another folder."
        )


def other_versions(path: Path, record: Mapping[str, Any], info: Mapping[str, Any]) -> tuple[str, ...]:
    """What is to be said of a run, read from ``path``, that other versions began than now go on with it: a seed gives
    the same picture only in the same ones."""
    old, new = _part(record, "versions"), _part(info, "versions")
    names = [name for name in ("priorpaint", "torch") if old.get(name) != new[name]]
    if not names:
        return ()
    both = " and ".join(f"{name} {old.get(name)} (now {new[name]})" for name in names)
    return (f"{path} was begun with {both}; the samples that it has may be others than these versions draw.",)


def _part(record: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _pixels(record: Mapping[str, Any]) -> tuple[Any, ...]:
    image = _part(record, "image")
    return image.get("sha256"), image.get("pixels_sha256")


def _prior(record: Mapping[str, Any]) -> tuple[Any, ...]:
    prior = _part(record, "prior")
    return tuple(prior.get(key) for key in ("name", "sha256", "flags", "condition", "classifier"))


_PARTS = {
    "the picture": _pixels,
    "the mask": lambda record: _part(record, "mask").get("known_sha256"),
    "the prior": _prior,
}


def created(own: Path, shared: Path, text: str) -> Path:
    """Write the record of a new run to ``shared``, or to ``own`` where ``shared`` is another run's; say which.

    Raises:
        UsageError: neither can be written.
    """
    write_text_atomic(own, text)
    try:
        os.link(own, shared)  # of two runs that start at once, one gets the name
    except FileExistsError:
        return own
    except OSError:  # a file system without hard links
        if shared.exists():
            return own
        os.replace(own, shared)
        return shared
    own.unlink()
    return shared


def clear_parts(folder: Path, is_own: Callable[[str], bool]) -> None:
    """Remove the unfinished files of a dead run.

    Args:
        is_own: whether a file of this name belongs to the present run alone.
    """
    for part in folder.glob(".*.part"):
        name = re.fullmatch(r"\.(.+)\.[0-9a-f]+\.part", part.name)
        if name is not None and is_own(name[1]):
            part.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, stem: str) -> Iterator[None]:
    """Inside, this process alone writes files of this stem into the folder, which is made where it is missing.

    The system lets go of the lock when the process ends, however it ends.

    Raises:
        UsageError: another process does, or the folder cannot be written to.
    """
    new = [one for one in (folder, *folder.parents) if not one.exists()]
    make_folder(folder)
    path = folder / f".{stem}.lock"
    file = _open_locked(path)
    try:
        yield
    finally:
        if sys.platform == "win32":  # which removes no open file
            file.close()
        with suppress(OSError):  # it may be gone, with its folder
            path.unlink()
        file.close()
        with suppress(OSError):  # folders that were made for nothing
            for one in new:
                one.rmdir()


def _open_locked(path: Path) -> BinaryIO:
    while True:
        try:
            file = open(path, "a+b")
        except OSError as error:
            raise UsageError(f"{path.parent} cannot be written to ({error.strerror}); choose another folder.") from None
        try:
            _lock(file)
            if _same_file(file, path):  # and not one that its owner has removed meanwhile
                return file
        except OSError as error:
            file.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise UsageError(
                    f"another run is writing the same files into {path.parent}; wait for it, or choose another folder."
                ) from None
            raise UsageError(f"{path} cannot be locked ({error.strerror}); choose a folder on another disk.") from None
        file.close()


def _lock(file: BinaryIO) -> None:
    if sys.platform == "win32":
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _same_file(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
