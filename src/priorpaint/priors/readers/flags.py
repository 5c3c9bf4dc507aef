"""Flags that a user gives for what a checkpoint cannot say: Python values, or the words of a command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from ...errors import UsageError
from .base import shown

_Known = TypeVar("_Known", bound="Flags")


def a_number(value: Any) -> Any:
    """Refuse a truth value where pydantic would take it for a number."""
    if isinstance(value, bool):  # which Python takes for 0 or 1
        raise PydanticCustomError("number", "input should be a number")
    return value


def _listed(value: Any) -> Any:
    parts = value.split(",") if isinstance(value, str) and value else value
    return (parts or None) if isinstance(parts, (str, list, tuple)) else [a_number(parts)]


Whole = Annotated[int, BeforeValidator(a_number)]
Positive = Annotated[int, Field(ge=1), BeforeValidator(a_number)]
Number = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(a_number)]
_Side = Annotated[float, Field(ge=0, le=65536)]
Numbers = Annotated[tuple[_Side, ...] | None, BeforeValidator(_listed)]  # a list, or words such as 1,2,4
HeadCount = Annotated[Positive | None, BeforeValidator(lambda value: None if str(value) == "-1" else value)]


class Flags(BaseModel):
    """The flags of a format, a field each; a reader's own have their names, values and meanings."""

    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)

    @classmethod
    def of(cls: type[_Known], values: Mapping[str, Any], format_name: str) -> _Known:
        """Flags by name; None is one that is not given.

        Raises:
            UsageError: an unknown flag, or one of another value, named.
        """
        try:
            return cls.model_validate({name: value for name, value in values.items() if value is not None})
        except ValidationError as error:
            wrong = error.errors()[0]
            if wrong["type"] == "extra_forbidden":
                known = ", ".join(sorted(cls.model_fields))
                raise UsageError(f"{format_name} has no flag {wrong['loc'][0]!r}; it takes {known}.") from None
            raise UsageError(f"the flag {wrong['loc'][0]} is {shown(wrong)}.") from None
