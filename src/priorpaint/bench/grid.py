"""What a benchmark is asked to run: a suite that comes with the package, or a TOML file of the user's own."""

from __future__ import annotations

import re
import sys
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ..errors import UsageError
from ..solvers import parse_method

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SUITES = "bench/suites"
_BUDGET = re.compile(r"budget=([1-9][0-9]*)")
MODES = ("reference", "paper", "default", "budget=N")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MethodSpec(_Strict):
    """A method.

    Attributes:
        label: what tables call it.
        name: its key in ``SOLVERS``.
        settings: that no mode changes.
    """

    label: str
    name: str
    settings: dict[str, Any] = {}

    @staticmethod
    def of(method: str | dict[str, Any]) -> MethodSpec:
        """``NAME``, ``NAME:key=value,...``, ``LABEL = NAME:key=value,...`` or a table of a TOML file.

        The value ``<lpips>`` stands for the file of LPIPS weights that the run is given.

        Raises:
            UsageError: a text of another form.
        """
        if isinstance(method, dict):
            return MethodSpec(**{"label": method.get("name", ""), **method})
        label, _, text = method.rpartition(" = ")
        name, settings = parse_method(text.strip())
        return MethodSpec(label=label.strip() or method.strip(), name=name, settings=settings)


class OperatorSpec(_Strict):
    """A measurement of the whole picture, as `operators.operator` makes it from name and settings.

    Attributes:
        label: what tables call it.
        sigma_y: standard deviation of its noise, values from -1 to 1; None is that of the grid.
    """

    label: str
    name: str
    settings: dict[str, Any] = {}
    sigma_y: float | None = Field(None, ge=0, allow_inf_nan=False)

    @staticmethod
    def of(operator: str | dict[str, Any]) -> OperatorSpec:
        """As for methods; `MethodSpec.of`."""
        if isinstance(operator, dict):
            return OperatorSpec(**{"label": operator.get("name", ""), **operator})
        return OperatorSpec(**MethodSpec.of(operator).model_dump())


class PaperValue(_Strict):
    """A number that a paper printed: of a method (its label here) on a mask or on an operator."""

    method: str
    metric: str
    value: float
    mask: str | None = None
    operator: str | None = None


class Paper(_Strict):
    """The numbers of a paper's table, beside which the report puts the measured ones.

    Attributes:
        source: which paper and table.
        setting: on what they were measured.
        values: the numbers; none where only the design of the experiment is known.
    """

    source: str
    setting: str = ""
    values: tuple[PaperValue, ...] = ()


class Grid(_Strict):
    """A benchmark, before pictures and prior are known.

    Attributes:
        name: of the suite or file.
        title: what it measures, in one sentence.
        downloads: what must be fetched to run it as published, one sentence each.
        masks: kinds of `imaging.mask_generators`.
        operators: measurements of the whole picture.
        methods: what is compared.
        seeds: of masks, noise and samples; each makes a problem of its own.
        pictures: most pictures; None is all.
        samples: of each problem and method.
        settings: ``reference`` (or ``paper``), ``default`` or ``budget=N``.
        sigma_y: standard deviation of the noise in y.
        metrics: names of the second pass; none is its default.
        paper: published numbers.
    """

    name: str = "grid"
    title: str = ""
    downloads: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    operators: tuple[OperatorSpec, ...] = ()
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    pictures: int | None = Field(None, ge=1)
    samples: int = Field(10, ge=1)
    settings: str = "reference"
    sigma_y: float = Field(0.0, ge=0, allow_inf_nan=False)
    metrics: tuple[str, ...] = ()
    paper: Paper | None = None

    @field_validator("methods", mode="before")
    @classmethod
    def _methods(cls, methods: Any) -> Any:
        return [MethodSpec.of(one) if isinstance(one, str | dict) else one for one in _listed(methods)]

    @field_validator("operators", mode="before")
    @classmethod
    def _operators(cls, operators: Any) -> Any:
        return [OperatorSpec.of(one) if isinstance(one, str | dict) else one for one in _listed(operators)]

    @field_validator("methods", "operators", "masks", "seeds")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [getattr(value, "label", value) for value in values]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name!r} stands there twice; give each its own label")
        return values

    @field_validator("settings")
    @classmethod
    def _mode(cls, settings: str) -> str:
        if settings not in MODES[:-1] and _BUDGET.fullmatch(settings) is None:
            raise ValueError(f"{settings!r} is not one of {', '.join(MODES)}")
        return "reference" if settings == "paper" else settings

    @property
    def budget(self) -> int | None:
        """Network evaluations a sample that every method gets, where the settings say so."""
        found = _BUDGET.fullmatch(self.settings)
        return int(found[1]) if found else None

    def changed(self, **values: Any) -> Grid:
        """The grid with these fields in place of its own, checked again.

        Raises:
            UsageError: a value that cannot be used.
        """
        return _validated(self.name, {**dict(self), **values})


def read_grid(source: str) -> Grid:
    """A suite by name, or the grid in a TOML file.

    Raises:
        UsageError: no such suite or file, or one that is not a grid; the message says which line or value.
    """
    path = Path(source)
    if path.suffix.lower() != ".toml":
        if source not in suites():
            raise UsageError(
                f"there is no suite {source!r}; the suites are {', '.join(suites())}, and a grid of your own is a "
                ".toml file (docs/bench.md)."
            )
        return _parsed(source, (_folder() / f"{source}.toml").read_text(encoding="utf-8"))
    try:
        return _parsed(path.stem, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"{path} cannot be read ({said}).") from None


def suites() -> list[str]:
    """The names of all suites."""
    return sorted(path.name.removesuffix(".toml") for path in _folder().glob("*.toml"))


def _folder() -> Path:
    return Path(str(resources.files("priorpaint"))) / _SUITES


def _parsed(name: str, text: str) -> Grid:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name} is not valid TOML: {error}.") from None
    return _validated(name, {"name": name, **values})


def _validated(name: str, values: dict[str, Any]) -> Grid:
    try:
        grid = Grid(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the grid"
        said = str(first.get("ctx", {}).get("error") or first["msg"]).rstrip(".")
        if first["type"] == "extra_forbidden":
            said = f"it is not a field of a grid; the fields are {', '.join(Grid.model_fields)}"
        raise UsageError(f"{name}: {where}: {said}.") from None
    if not grid.masks and not grid.operators:
        raise UsageError(f"{name}: there is nothing to measure; give masks or operators.")
    return grid


def _listed(values: Any) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise ValueError("it must be a list")
    return list(values)
