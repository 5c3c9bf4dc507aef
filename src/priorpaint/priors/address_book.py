"""Names that a user gave to priors of their own: one small JSON file in the user's data folder.

The folder is ``$PRIORPAINT_HOME``, else the system's place for an application's data.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import PriorError, UsageError
from ..imaging.writing import write_text_atomic

FILE = "priors.json"
FORMAT = 1
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A prior that the user named.

    Attributes:
        spec: what ``load_prior`` takes; paths are absolute.
        flags: what the format cannot say about itself.
        sha256: of the files when the name was given, in hexadecimal; None where they were not read (``--no-check``).
    """

    spec: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None


def home() -> Path:
    """The folder of the user's own priors; it may not exist."""
    chosen = os.environ.get("PRIORPAINT_HOME")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home() / "AppData" / "Roaming")) / "priorpaint"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "priorpaint"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "priorpaint"


def entries() -> dict[str, Entry]:
    """All names.

    Raises:
        PriorError: the file is damaged.
    """
    path = home() / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise PriorError(f"{path} cannot be read ({error}); repair or remove it.") from None
    try:
        table = json.loads(text)
        if table["format"] != FORMAT:
            raise PriorError(f"{path} has format {table['format']}, this version reads {FORMAT}; update priorpaint.")
        return {str(name): _entry(str(name), one) for name, one in table["priors"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise PriorError(f"{path} is damaged; repair or remove it.") from None


def _entry(name: str, one: Mapping[str, Any]) -> Entry:
    """An entry of the file. Without a SHA-256 it was never read; a value that is none, such as null, is no such wish.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: it is none.
    """
    digest, flags = one.get("sha256", "0" * 64), dict(one["flags"])
    if not isinstance(one["spec"], str) or not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest):
        raise ValueError("a name, spec or SHA-256 of another form")
    if any(isinstance(part, (dict, list)) for value in flags.values() for part in _parts(value)):
        raise ValueError("a flag is a value or a list of values")
    return Entry(one["spec"], flags, digest if "sha256" in one else None)


def _parts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def add(name: str, entry: Entry, *, taken: tuple[str, ...] = (), overwrite: bool = False) -> None:
    """Give a prior a name.

    Args:
        name: letters, digits, dots, dashes and underscores.
        entry: what it stands for.
        taken: names that are in use elsewhere.
        overwrite: replace an entry of that name.

    Raises:
        UsageError: the name is taken or of another form.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is not a name for a prior; use up to 64 letters, digits, dots, dashes, underscores."
        )
    known = entries()
    if name in taken:
        raise UsageError(f"{name} is the name of an embedded prior; choose another one.")
    if name in known and not overwrite:
        raise UsageError(f"{name} stands for {known[name].spec} already; choose another name or pass --overwrite.")
    _write({**known, name: entry})


def remove(name: str) -> None:
    """Forget a name; the model's files stay.

    Raises:
        UsageError: there is no such name.
    """
    known = entries()
    if name not in known:
        raise UsageError(f"there is no prior of your own called {name!r}; `priorpaint priors list` shows them.")
    _write({key: entry for key, entry in known.items() if key != name})


def _write(table: Mapping[str, Entry]) -> None:
    path = home() / FILE
    priors = {name: asdict(entry) for name, entry in sorted(table.items())}
    for one in priors.values():
        if one["sha256"] is None:
            del one["sha256"]
    value = {"format": FORMAT, "priors": priors}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(path, json.dumps(value, indent=1) + "\n")
    except (OSError, UsageError) as error:
        raise PriorError(f"{path} cannot be written ({error}); set PRIORPAINT_HOME to another folder.") from None
