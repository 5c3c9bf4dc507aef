"""Operators by name and settings, and back."""

from __future__ import annotations

import inspect
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from ..errors import UsageError
from .base import OPERATORS, Operator

# Tensors with more values than this are data, such as masks, and not settings that one writes down, such as kernels.
_MOST_VALUES = 4096


def operator(name: str, /, **settings: Any) -> Operator:
    """An operator by name.

    Args:
        name: a key of ``OPERATORS``.
        settings: its arguments; strings are converted, as they come from a command line, and nested lists make tensors.

    Raises:
        UsageError: an unknown name or setting, or a value out of range; the message lists what exists.
    """
    if name not in OPERATORS:
        raise UsageError(
            f"there is no operator {name!r}; the operators are {', '.join(OPERATORS)} (see `priorpaint operators`)"
        )
    cls = OPERATORS[name]
    hints, known = get_type_hints(cls.__init__), inspect.signature(cls).parameters
    for key, value in settings.items():
        if key not in known:
            raise UsageError(f"{name} has no setting {key!r}; its settings are {', '.join(known) or 'none at all'}")
        hint = hints.get(key, Any)
        try:
            settings[key] = torch.as_tensor(value) if hint is Tensor else TypeAdapter(hint).validate_python(value)
        except (ValueError, TypeError, RuntimeError) as error:
            said = error.errors()[0]["msg"].lower() if isinstance(error, ValidationError) else str(error)
            raise UsageError(f"{name}: {key} = {value!r} is not valid: {said}") from None
    missing = [key for key, about in known.items() if about.default is about.empty and key not in settings]
    if missing:
        raise UsageError(f"{name} needs a value for {' and '.join(missing)}")
    return cls(**settings)


def settings_of(operator: Operator) -> dict[str, Any]:
    """Its arguments as JSON values, as far as it keeps them as attributes of the same names."""
    values = {key: getattr(operator, key, None) for key in inspect.signature(type(operator)).parameters}
    return {
        key: value.tolist() if isinstance(value, Tensor) else value
        for key, value in values.items()
        if isinstance(value, (int, float, str, tuple)) or (isinstance(value, Tensor) and value.numel() <= _MOST_VALUES)
    }
