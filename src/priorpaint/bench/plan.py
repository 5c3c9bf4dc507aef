"""A benchmark with everything decided: pictures, prior and settings, and the cells that follow from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..batch.store import content_key
from ..errors import UsageError
from ..imaging import write_text_atomic
from ..operators import Operator
from ..operators import operator as make_operator
from ..solvers import Cost, Solver
from ..solvers import solver as make_solver
from .grid import MethodSpec, OperatorSpec, Paper
from .pictures import Shape

PLAN = "plan.json"
_VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriorEntry(_Part):
    """The prior, by what loads it and by the hash of its files, with the condition that it is under."""

    spec: str
    digest: str
    name: str
    flags: dict[str, Any] | None = None
    guidance: float = 1.0


class PictureEntry(_Part):
    """A picture: its file below the folder, the hash of its prepared values, and its class where it has one."""

    name: str
    digest: str
    label: int | None = None


class LeftOut(_Part):
    """A picture file that cannot be used, or a method that cannot run on an operator, and why."""

    name: str
    error: str
    operator: str | None = None


class Condition(_Part):
    """What is measured of a picture, and how.

    Attributes:
        mask: the kind of mask; None for other operators.
        operator: its label.
        name, settings: of the operator.
        sigma_y: standard deviation of the noise.
    """

    mask: str | None
    operator: str
    name: str
    settings: dict[str, Any]
    sigma_y: float

    @property
    def case(self) -> str:
        """What tables call it: the kind of mask, or the operator."""
        return self.mask or self.operator

    def made(self) -> Operator:
        """The operator of one without a mask."""
        return make_operator(self.name, **self.settings)


@dataclass(frozen=True)
class ProblemCase:
    """One picture under one condition and seed; ``key`` is a hash of all that it is made of."""

    key: str
    picture: PictureEntry
    condition: Condition
    seed: int


@dataclass(frozen=True)
class CellCase:
    """One method on one problem; ``key`` is a hash of all that its samples depend on."""

    key: str
    problem: ProblemCase
    method: MethodSpec

    @property
    def about(self) -> dict[str, Any]:
        """What the logs say of it."""
        condition = self.problem.condition
        return {
            "problem": self.problem.key,
            "picture": self.problem.picture.name,
            "mask": condition.mask,
            "operator": condition.operator,
            "method": self.method.label,
            "name": self.method.name,
            "settings": self.method.settings,
            "seed": self.problem.seed,
        }


class Plan(_Part):
    """A benchmark with everything decided, as plan.json holds it.

    Attributes:
        name, title, downloads, paper: of the `Grid`.
        images: the folder of the pictures.
        shape: (C, H, W) of every picture.
        pictures: those that are used; ``left_out`` cannot be read, and ``repeated`` are the same as an earlier one.
        conditions: masks first, then other operators; ``masks`` and ``operators`` are their labels.
        methods: with all their settings, whatever the mode; ``unmasked`` are those for operators without a mask, where
            a method decides otherwise there (`Solver.settled`).
        skipped: methods that cannot run on an operator with this prior, or, without an operator, at all.
        files: hashes of the files that settings name, by path, so that a key is of their contents.
        versions: of what computes the samples.
    """

    version: int = _VERSION
    name: str
    title: str
    downloads: tuple[str, ...]
    paper: Paper | None
    prior: PriorEntry
    images: str
    shape: Shape
    pictures: tuple[PictureEntry, ...]
    left_out: tuple[LeftOut, ...] = ()
    repeated: tuple[LeftOut, ...] = ()
    masks: tuple[str, ...]
    operators: tuple[OperatorSpec, ...]
    conditions: tuple[Condition, ...]
    methods: tuple[MethodSpec, ...]
    unmasked: tuple[MethodSpec, ...] = ()
    skipped: tuple[LeftOut, ...] = ()
    files: dict[str, str] = {}
    seeds: tuple[int, ...]
    samples: int
    settings: str
    metrics: tuple[str, ...]
    versions: dict[str, str]

    def problems(self) -> Iterator[ProblemCase]:
        """Every problem, picture by picture."""
        for picture in self.pictures:
            for condition in self.conditions:
                about = condition.model_dump(exclude={"operator"})
                for seed in self.seeds:
                    key = content_key("problem", picture.digest, list(self.shape), about, seed)
                    yield ProblemCase(key, picture, condition, seed)

    def cells(self) -> Iterator[CellCase]:
        """Every cell, picture by picture and problem by problem."""
        prior = [self.prior.digest, self.prior.flags, self.prior.guidance]
        methods = {condition.case: self.methods_on(condition) for condition in self.conditions}
        for problem in self.problems():
            for method in methods[problem.condition.case]:
                settings = {name: self.files.get(str(value), value) for name, value in method.settings.items()}
                asked = [method.name, settings, self.samples, problem.picture.label]
                yield CellCase(content_key("cell", problem.key, prior, asked), problem, method)

    def methods_on(self, condition: Condition) -> list[MethodSpec]:
        """The methods that can run under a condition, with their settings there."""
        unable = {left.name for left in self.skipped if left.operator == condition.operator}
        methods = self.unmasked if self.unmasked and condition.mask is None else self.methods
        return [method for method in methods if method.label not in unable]

    @property
    def num_cells(self) -> int:
        """How many cells there are."""
        a_picture = sum(len(self.methods_on(condition)) for condition in self.conditions)
        return len(self.pictures) * len(self.seeds) * a_picture

    def cost_of(self, method: MethodSpec) -> Cost:
        """Network evaluations of a cell."""
        return solver_of(method).cost(self.samples)

    def write(self, folder: Path) -> None:
        """Into plan.json of a folder."""
        write_text_atomic(folder / PLAN, self.model_dump_json(indent=1) + "\n")

    @staticmethod
    def read(folder: Path) -> Plan:
        """The plan in a folder.

        Raises:
            UsageError: there is none that can be read.
        """
        path = folder / PLAN
        try:
            return Plan.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"there is no benchmark in {folder} ({error.strerror or error}).") from None
        except ValidationError:
            raise UsageError(f"{path} is not a plan of this version; use another folder.") from None


def solver_of(method: MethodSpec) -> Solver:
    """The solver of a planned method."""
    return make_solver(method.name, **method.settings)
