"""Flags that a user gives for what a checkpoint cannot say: words or values, checked and named in every error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import Field, TypeAdapter

from ...errors import UsageError

_T = TypeVar("_T")
_WHOLE = TypeAdapter(int)
_POSITIVE: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1)])
_NUMBER: TypeAdapter[float] = TypeAdapter(Annotated[float, Field(gt=0, allow_inf_nan=False)])
_TRUTH = TypeAdapter(bool)
_NUMBERS = TypeAdapter(tuple[float, ...])


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

    def __bool__(self) -> bool:
        return bool(self._values)

    def whole(self, name: str) -> int | None:
        """A whole number."""
        return self._read(name, _WHOLE, "a whole number")

    def positive(self, name: str) -> int | None:
        """A whole number of at least 1."""
        return self._read(name, _POSITIVE, "a whole number of at least 1")

    def number(self, name: str) -> float | None:
        """A positive number."""
        return self._read(name, _NUMBER, "a positive number")

    def truth(self, name: str) -> bool | None:
        """True or False."""
        return self._read(name, _TRUTH, "True or False")

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """Numbers between commas, or a list; None where absent or empty."""
        value = self._values.get(name)
        parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
        if value is None or value == "" or not len(parts):
            return None
        return self._read(name, _NUMBERS, "a list such as 1,2,4", parts)

    def _read(self, name: str, kind: TypeAdapter[_T], expected: str, parts: Any = None) -> _T | None:
        """The flag, or its ``parts``, as a value of this type; None where it is absent."""
        value = self._values.get(name)
        if value is None:
            return None
        try:
            if isinstance(value, bool) and kind is not _TRUTH:
                raise ValueError
            return kind.validate_python(value if parts is None else parts)
        except ValueError:  # of pydantic, too
            raise UsageError(f"the flag {name} is {expected}, not {value!r}.") from None

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
