"""Every method on half hidden pictures: the run behind `priorpaint certify --suite pictures`."""

from __future__ import annotations

import json
import math
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ....diffusion.rng import derive
from ....errors import Cancelled, CancelToken, UsageError
from ....metrics import LPIPS
from ....operators import Inpainting
from ....priors.base import Prior
from ....solvers import SOLVERS, Solver
from ....solvers.budgets import at_budget, settings_of
from ..cells import Method, checking, plain, sentence
from ..results import DONE, FAILED, NOT_APPLICABLE, finite
from .masks import HALVES, SIZE
from .subject import Case, Subject, enlarged, shrunk
from .subjects import subject as _subject

BUDGET, PICTURES, SAMPLES, SHOWN = 200, 64, 32, 4
METHODS = (
    "vipaint:preset=exact,levels=2",
    "vipaint:preset=projected,levels=2",
    "vipaint:preset=langevin,levels=2",
    "vipaint:preset=langevin,levels=4",
)
_VERSION = 3


@dataclass(frozen=True)
class PictureCell:
    """One method under one kind of mask.

    Attributes:
        method, mask: which cell.
        pictures, samples: how many, and completions of each.
        budget: network evaluations a completion that it was given; None leaves the method's settings as they are.
        command: what was typed to make it.
        weights: SHA-256 of the prior's file; empty for a prior without one.
        lpips: the network that LPIPS was measured with; empty where it was not.
        status: ``done``, ``not applicable`` or ``failed``.
        note: one sentence where it is not done, or where the mask had another name then.
        settings: of the method.
        measures: of its completions (the subject's dataclass), None where it is not done.
        forward, backward: network evaluations a completion without and with a gradient, as the prior counted them.
        seconds: CPU seconds a completion.
    """

    method: str
    mask: str
    pictures: int
    samples: int
    budget: int | None = None
    command: str = ""
    weights: str = ""
    lpips: str = ""
    status: str = DONE
    note: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    measures: Any = None
    forward: float = 0.0
    backward: float = 0.0
    seconds: float = 0.0

    @property
    def size(self) -> tuple[int, int, int | None]:
        """Pictures, completions of each, budget."""
        return self.pictures, self.samples, self.budget

    @property
    def shared(self) -> tuple[int, int, int | None, str]:
        """What the cells of one table share: their size, and the prior's weights."""
        return *self.size, self.weights

    def comparable(self, other: PictureCell) -> bool:
        """Whether the two may stand in one table; a cell without LPIPS may stand beside any."""
        same_lpips = self.lpips == other.lpips or not (self.lpips and other.lpips)
        return self.shared == other.shared and same_lpips


@dataclass(frozen=True)
class PictureReport:
    """All cells of a run.

    Attributes:
        cells: in the order of masks and methods.
        floors: mask -> what completions score that cannot be better.
        setup: what reproduces the run, of several merged ones the last; ``setup["subject"]`` is the subject's name.
        shown: mask -> method (or a reference) -> (pictures, columns, C, 32, 32), for the sheets; not in the JSON.
    """

    cells: tuple[PictureCell, ...]
    floors: dict[str, Any]
    setup: dict[str, Any]
    shown: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)

    def cell(self, method: str, mask: str) -> PictureCell | None:
        """A cell, or None where it was not run."""
        return next((cell for cell in self.cells if (cell.method, cell.mask) == (method, mask)), None)

    @property
    def subject(self) -> Subject:
        """What the pictures are of."""
        return _subject(self.setup.get("subject", "avatars"))

    @property
    def name(self) -> str:
        """That of the subject, and of the prior where it is not the subject's own, in letters that a file may have."""
        prior = str(self.setup["prior"])
        if prior == self.subject.prior_name:
            return self.subject.name
        return f"{self.subject.name}-{re.sub(r'[^A-Za-z0-9]+', '-', prior).strip('-')}"

    @property
    def masks(self) -> list[str]:
        return list(self.floors)

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(cell.method for cell in self.cells))

    def merged(self, other: PictureReport) -> PictureReport:
        """These cells with those of ``other`` in their place or behind them; the setup is that of ``other``.

        The table of a mask compares like with like, so its cells of another number of pictures or completions, of
        another budget, of other weights of the prior, or with LPIPS of another network, are left out.
        """
        new = {cell.mask: cell for cell in other.cells}
        comparable = [cell for cell in self.cells if cell.comparable(new.get(cell.mask, cell))]
        cells = {(cell.method, cell.mask): cell for cell in (*comparable, *other.cells)}
        floors, shown = {**self.floors, **other.floors}, {**self.shown, **other.shown}
        return PictureReport(tuple(cells.values()), floors, other.setup, shown)

    def to_json(self) -> str:
        """All but the pictures, as text."""
        data = {
            "version": _VERSION,
            "setup": self.setup,
            "floors": {mask: asdict(floor) for mask, floor in self.floors.items()},
            "cells": [asdict(cell) for cell in self.cells],
        }
        return json.dumps(finite(data), indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> PictureReport:
        """The report that `to_json` wrote.

        Raises:
            UsageError: the text is something else.
        """
        try:
            data = json.loads(text)
            if data["version"] != _VERSION:
                raise UsageError(f"this report has version {data['version']}, not {_VERSION}; run certify again")
            kind = _subject(data["setup"].get("subject", "avatars"))
            floors = {mask: _measures(kind, values) for mask, values in data["floors"].items()}
            cells = [PictureCell(**{**cell, "measures": _measures(kind, cell["measures"])}) for cell in data["cells"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"this is not a report of pictures ({error}); run certify again") from None
        return PictureReport(tuple(cells), {mask: floor for mask, floor in floors.items() if floor}, data["setup"])


def all_methods() -> list[str]:
    """Every method of the registry, VIPaint with the settings for wide holes."""
    return [*sorted(set(SOLVERS) - {"vipaint"}), *METHODS]


def certify_pictures(
    prior: Prior,
    methods: Sequence[str | Solver | Method] | None = None,
    masks: Sequence[str] = HALVES,
    *,
    subject: str = "avatars",
    data: Path | None = None,
    budget: int | None = BUDGET,
    pictures: int = PICTURES,
    num_samples: int = SAMPLES,
    seed: int = 0,
    batch_size: int | None = 256,
    lpips: LPIPS | None = None,
    report: Callable[[int, int, PictureCell], None] | None = None,
    cancel: CancelToken | None = None,
) -> PictureReport:
    """Let methods complete half hidden pictures and judge what they make.

    Args:
        prior: what the methods get: a network, or for avatars `avatars.prior.ExactAvatars`, so that only their own
            error counts.
        methods: as in `certify.certify`; None is `all_methods`.
        masks: kinds of `imaging.mask_kinds.MASK_KINDS`, and the subject's own.
        subject: ``avatars`` or ``fashion``.
        data: folder of Fashion-MNIST; None is that of the Debian package.
        budget: network evaluations a completion; None runs methods with their settings as they are.
        pictures: test pictures of each mask.
        num_samples: completions of each.
        seed: of pictures, masks and samples.
        batch_size: rows computed together.
        lpips: `metrics.LPIPS`, if that distance to the truth shall be measured as well.
        report: called as report(done, total, cell) after each cell.
        cancel: looked at after every step of a solver; once it is cancelled, from any thread, the run ends, and the
            cells that are finished are returned.

    Raises:
        UsageError: unknown names, or numbers out of range.
    """
    if pictures < 1 or num_samples < 2:
        raise UsageError("the picture suite takes at least 1 picture and 2 completions of each")
    chosen = [Method.of(asked) for asked in (all_methods() if methods is None else methods)]
    kind = _subject(subject)
    _check_prior(prior, kind)
    kind.check_masks(list(masks))
    cases = [kind.draw(mask, pictures, seed, data) for mask in dict.fromkeys(masks)]
    cancel = CancelToken() if cancel is None else cancel
    task = _Task(prior, budget, num_samples, seed, batch_size, lpips, cancel)
    cells: list[PictureCell] = []
    floors: dict[str, Any] = {}
    shown: dict[str, dict[str, Tensor]] = {}
    for case in cases:
        floors[case.mask] = case.floor(num_samples, lpips)
        shown[case.mask] = case.references(SHOWN)
        for method, cell, samples in _runs(task, case, chosen):
            cells.append(cell)
            if samples is not None:
                shown[case.mask][method.label] = samples
            if report is not None:
                report(len(cells), len(cases) * len(chosen), cell)
        if cancel.cancelled:
            break
    setup = {
        "subject": kind.name,
        "prior": prior.name,
        "budget": budget,
        "pictures": pictures,
        "samples": num_samples,
        "seed": seed,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    return PictureReport(tuple(cells), floors, setup, shown)


@dataclass(frozen=True)
class _Task:
    """What is the same for all cells; the arguments of `certify_pictures`."""

    prior: Prior
    budget: int | None
    num_samples: int
    seed: int
    batch_size: int | None
    lpips: LPIPS | None
    cancel: CancelToken


def _runs(task: _Task, case: Case, methods: Sequence[Method]) -> Iterator[tuple[Method, PictureCell, Tensor | None]]:
    for method in methods:
        cell = PictureCell(
            method.label, case.mask, len(case.x), task.num_samples, task.budget, weights=task.prior.hash or "",
            lpips=task.lpips.name if task.lpips else "",
        )  # fmt: skip
        try:
            yield method, *_measured(task, cell, method, case)
        except Cancelled:
            return
        except UsageError as error:
            yield method, replace(cell, status=NOT_APPLICABLE, note=sentence(error)), None
        except Exception as error:  # whatever a method of somebody else raises
            yield method, replace(cell, status=FAILED, note=f"{type(error).__name__}: {sentence(error)}"), None


def _measured(task: _Task, cell: PictureCell, method: Method, case: Case) -> tuple[PictureCell, Tensor | None]:
    prior, scale = task.prior, _scale(task.prior)
    x, known = (enlarged(each, scale).to(prior.device) for each in (case.x, case.known))
    solver = method.solver.settled(prior, prior.latent_shape(*x.shape[2:]), True)
    if task.budget is not None:
        solver = at_budget(solver, task.budget, task.num_samples, fixed=method.fixed)
    operator = Inpainting(known)
    before, begun = prior.nfe.copy(), time.process_time()
    samples = solver.sample(
        prior,
        operator,
        operator(x),
        num_samples=task.num_samples,
        seed=[derive("picture samples", task.seed, row) for row in range(len(case.x))],
        batch_size=task.batch_size,
        callback=checking(lambda: task.cancel.cancelled),
    ).cpu()
    spent, seconds = prior.nfe - before, time.process_time() - begun
    count = len(case.x) * task.num_samples
    cell = replace(
        cell,
        settings={name: plain(value) for name, value in settings_of(solver).items()},
        forward=spent.forward / count,
        backward=spent.backward / count,
        seconds=seconds / count,
    )
    if not bool(samples.isfinite().all()):
        return replace(cell, status=FAILED, note="the samples are not finite"), None
    samples = shrunk(samples, scale)
    return replace(cell, measures=case.measure(samples, task.lpips)), samples[:, :SHOWN].clone()


def _check_prior(prior: Prior, kind: Subject) -> None:
    channels, *size = prior.image_shape
    sides = [SIZE * scale for scale in kind.scales]
    if channels != kind.channels or any(side not in (None, *sides) for side in size) or len(set(size)) > 1:
        raise UsageError(
            f"the prior {prior.name} has the shape {prior.image_shape}; {kind.name} need one with {kind.channels} "
            f"channel{'s' if kind.channels > 1 else ''} for {' or '.join(f'{side} x {side}' for side in sides)} pixels."
        )


def _scale(prior: Prior) -> int:
    """How many of the prior's pixels are the side of one of the subject's."""
    return (prior.image_shape[1] or SIZE) // SIZE


def _measures(kind: Subject, values: dict[str, float | None] | None) -> Any:
    if values is None:
        return None
    optional = {each.name for each in fields(kind.measures) if each.default is None}
    shown = {name: math.nan if value is None and name not in optional else value for name, value in values.items()}
    return kind.measures(**shown)
