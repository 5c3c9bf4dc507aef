"""Flags that a user gives for what a checkpoint cannot say: words or values, checked and named in every error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ...errors import UsageError

_TRUE, _FALSE = ("true", "1", "yes", "t", "y"), ("false", "0", "no", "f", "n")


class Flags:
    """Typed access to flags; an absent or None flag gives the default.

    Args:
        values: name -> value, as Python values or as the words of a command line.
        known: names that are read; a flag of another name is an error.
        ignored: names that may be there, but say nothing about the network.
        format_name: for messages.
    """

    def __init__(
        self, values: Mapping[str, Any], known: Collection[str], ignored: Collection[str] = (), format_name: str = ""
    ) -> None:
        unknown = sorted(set(values) - set(known) - set(ignored))
        if unknown:
            raise UsageError(f"{format_name} has no flag {unknown[0]!r}; it takes {', '.join(sorted(known))}.")
        self._values = {name: value for name, value in values.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    def whole(self, name: str) -> int | None:
        """A whole number."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            if isinstance(value, bool) or int(value) != float(value):
                raise ValueError
            return int(value)
        except (TypeError, ValueError, OverflowError):
            raise UsageError(f"the flag {name} is a whole number, not {value!r}.") from None

    def positive(self, name: str) -> int | None:
        """A whole number of at least 1."""
        value = self.whole(name)
        if value is not None and value < 1:
            raise UsageError(f"the flag {name} is at least 1, not {value}.")
        return value

    def number(self, name: str) -> float | None:
        """A positive number."""
        value: Any = self._values.get(name)
        try:
            number = None if value is None else float(str(value))
        except (TypeError, ValueError):
            number = float("nan")
        if number is not None and not 0 < number < float("inf"):
            raise UsageError(f"the flag {name} is a positive number, not {value!r}.")
        return number

    def truth(self, name: str) -> bool | None:
        """True or False."""
        value = self._values.get(name)
        if value is None or isinstance(value, bool):
            return value
        word = str(value).strip().lower()
        if word in _TRUE + _FALSE:
            return word in _TRUE
        raise UsageError(f"the flag {name} is True or False, not {value!r}.")

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """Numbers between commas, or a list; None where absent or empty."""
        value = self._values.get(name)
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
        if value is None or value == "" or not len(parts):
            return None
        try:
            return tuple(float(str(part)) for part in parts)
        except (TypeError, ValueError):
            raise UsageError(f"the flag {name} is a list such as 1,2,4, not {value!r}.") from None

    def choice(self, name: str, of: Collection[str]) -> str | None:
        """One of some words."""
        value = self._values.get(name)
        if value is not None and value not in of:
            raise UsageError(f"the flag {name} is one of {', '.join(of)}, not {value!r}.")
        return value

    def text(self, name: str) -> str | None:
        """Any text."""
        value = self._values.get(name)
        return None if value is None else str(value)
