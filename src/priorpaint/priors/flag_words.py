"""Flags of a checkpoint: as a mapping, or as the command line that a model's README gives."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ..errors import UsageError

_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def parse_flags(flags: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Flags by name.

    Args:
        flags: a mapping, or text such as ``--image_size 64 --class_cond True --attention_resolutions 32,16,8`` or
            ``image_size=64 class_cond=true``; dashes inside names count as underscores.

    Returns:
        Values as int, float, bool, None or str.

    Raises:
        UsageError: the text cannot be taken apart, or it is something else.
    """
    if flags is None:
        return {}
    if not isinstance(flags, str | Mapping):
        raise UsageError(f"flags are a mapping of names to values, or text such as '--image_size 64', not {flags!r}.")
    if not isinstance(flags, str):
        return {str(key): value for key, value in flags.items()}
    try:
        words = shlex.split(flags)
    except ValueError as error:
        raise UsageError(f"the flags {flags!r} cannot be read ({error}); write --name value.") from None
    values: dict[str, Any] = {}
    waiting: str | None = None
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") or (waiting is None and equals):
            key = _key(name, flags)
            values[key], waiting = (_value(value), None) if equals else (True, key)
        elif waiting is not None:
            values[waiting], waiting = _value(word), None
        else:
            raise UsageError(f"in the flags, {word!r} follows no name; write --name value.")
    return values


def _key(name: str, flags: str) -> str:
    key = name.replace("-", "_")
    if not key.isidentifier():
        raise UsageError(f"{name!r} in the flags {flags!r} is not the name of a flag; write --name value.")
    return key


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
