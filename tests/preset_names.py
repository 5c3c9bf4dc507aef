"""The presets that a method names itself."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

from priorpaint import SOLVERS


def preset_names(method: str) -> list[str]:
    """Of a method's setting ``preset``, whose type is a Literal, or a Literal or None; none where it has no such."""

    def words(hint: Any) -> list[str]:
        return [word for part in get_args(hint) for word in ([part] if isinstance(part, str) else words(part))]

    return words(get_type_hints(SOLVERS[method]).get("preset"))
