"""The store of a run over many items: which are done and which failed, in two logs that survive a kill at any moment.

An item is known by its key, a hash of everything that its result depends on. Its files are written first, each beside
its name, synced and renamed (`imaging.writing`); then one line goes to ``done.jsonl``. So a key in that log has all of
its files, and a process that dies loses the item in flight and nothing else. A record may say where its result lies
(``out``): an item that comes later to the same place has replaced it, so its key counts as finished no longer. Nor does
one whose record says later that it is ``gone``.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import UsageError

DONE, FAILED = "done.jsonl", "failed.jsonl"
_KEY_LENGTH = 32  # hexadecimal digits: 128 bits, so that no two of any number of items meet by chance

Record = dict[str, Any]


def content_key(*parts: Any) -> str:
    """The key of what ``parts`` (JSON values) say: equal parts, equal key, whatever the order of mappings.

    Raises:
        TypeError, ValueError: a part is no JSON value.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


class Store:
    """A folder with the logs of a run; several processes may add to it at once.

    Args:
        folder: made where it does not exist.

    Raises:
        UsageError: the folder or a log in it cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._done: set[str] = set()
        self._at: dict[str, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.read()
        except OSError as error:
            raise UsageError(f"{folder} cannot be used for results ({error.strerror or error}).") from None

    def read(self) -> None:
        """Read the log anew, to which other processes may have added."""
        for record in records(self.folder / DONE):
            self._add(record)

    def _add(self, record: Record) -> None:
        key, place = record["key"], record.get("out")
        if record.get("gone"):
            self._done.discard(key)
            if isinstance(place, str) and self._at.get(place) == key:
                del self._at[place]
            return
        if isinstance(place, str):
            self._done.discard(self._at.get(place, key))
            self._at[place] = key
        self._done.add(key)

    def at(self, place: str) -> str | None:
        """The key of the finished item whose result lies there."""
        return self._at.get(place)

    def __contains__(self, key: object) -> bool:
        """Whether the item with this key is finished."""
        return key in self._done

    def __len__(self) -> int:
        """How many items are finished."""
        return len(self._done)

    def done(self) -> Iterator[Record]:
        """The records of finished items, the first of each key since its files were there, in the order in which they
        were finished."""
        found: dict[str, Record] = {}
        for record in records(self.folder / DONE):
            if record.get("gone"):
                found.pop(record["key"], None)
            elif record["key"] in self._done:
                found.setdefault(record["key"], record)
        yield from found.values()

    def failed(self) -> dict[str, Record]:
        """The last failure of each item that has not been finished since, by key."""
        last: dict[str, Record] = {}
        for record in records(self.folder / FAILED):
            if record.get("gone"):
                last = {key: one for key, one in last.items() if one.get("out") != record.get("out")}
            elif record["key"] not in self._done:
                last[record["key"]] = record
        return last

    def finish(self, key: str, record: Record) -> None:
        """Say that an item is finished; all of its files must be in place.

        Raises:
            UsageError: the log cannot be written.
        """
        if key in self._done:
            return
        record = {"key": key, **record}
        append(self.folder / DONE, record)
        self._add(record)

    def forget(self, key: str, place: str) -> None:
        """Say that the files of a finished item are gone, so that it counts as finished no longer.

        Raises:
            UsageError: the log cannot be written.
        """
        record = {"key": key, "out": place, "gone": True}
        append(self.folder / DONE, record)
        self._add(record)

    def settle(self, key: str, place: str) -> None:
        """Take back what failed at a place with other contents than those of ``key``, which it has again.

        Raises:
            UsageError: the log cannot be written.
        """
        append(self.folder / FAILED, {"key": key, "out": place, "gone": True})

    def fail(self, key: str, record: Record, error: str) -> None:
        """Say that an item failed, and why in one sentence.

        Raises:
            UsageError: the log cannot be written.
        """
        append(self.folder / FAILED, {"key": key, **record, "error": " ".join(error.split())})


def records(path: Path) -> Iterator[Record]:
    """The records of a log. A line that a kill cut off is none: its item counts as not finished."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and isinstance(record.get("key"), str):
                yield record


def append(path: Path, record: Record) -> None:
    """Add a line and sync it: one write to the end of the file, so that lines of several processes do not mix."""
    line = json.dumps(record, allow_nan=False).encode() + b"\n"
    try:
        with open(path, "a+b", buffering=0) as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line  # behind a line that was cut off, or that another process is writing
            file.write(line)
            os.fsync(file.fileno())
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror or error}); check the folder.") from error
