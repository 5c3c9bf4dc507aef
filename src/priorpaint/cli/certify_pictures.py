"""``priorpaint certify --suite pictures``: methods on half hidden avatars."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from priorpaint.certify.pictures.avatars import Distance
from priorpaint.certify.pictures.masks import HALVES, MASKS
from priorpaint.certify.pictures.report import JSON_FILE, save, score, show
from priorpaint.certify.pictures.run import BUDGET, PICTURES, SAMPLES, PictureCell, PictureReport, certify_pictures
from priorpaint.certify.results import DONE
from priorpaint.errors import UsageError
from priorpaint.priors.base import Prior


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; None is the default.

    Attributes:
        methods: names; None is all of them.
        masks: names, or ``all``; None is the four halves.
        budget: network evaluations a completion.
        pictures, samples: how many, and completions of each.
        prior: ``exact``, or the name or file of a network that was trained on avatars.
        lpips: weights file of LPIPS.
        folders: (tables, sheets) where results are written.
        update: whether cells in the JSON that are not run again are kept.
        command: what was typed.
    """

    methods: list[str] | None
    masks: list[str] | None
    budget: int | None
    pictures: int | None
    samples: int | None
    prior: str
    lpips: Path | None
    folders: tuple[tuple[Path, Path], ...]
    update: bool
    command: str


def run(request: Request, say: Callable[[str], None], stop: Callable[[], bool], *, as_json: bool) -> PictureReport:
    """Run the suite, save what was asked for and print the tables.

    Raises:
        UsageError: unknown names.
    """

    def told(done: int, total: int, cell: PictureCell) -> None:
        say(f"{done}/{total} {cell.method} {cell.mask}: {_found(cell)}")

    report = certify_pictures(
        _prior(request.prior),
        request.methods,
        _masks(request.masks),
        budget=request.budget or BUDGET,
        pictures=request.pictures or PICTURES,
        num_samples=request.samples or SAMPLES,
        lpips=_lpips(request.lpips),
        report=told,
        stop=stop,
    )
    for folder, pictures in request.folders:
        for path in save(_merged(report, folder, request), folder, pictures=pictures, command=request.command):
            print(path, file=sys.stderr)
    if as_json:
        print(report.to_json(), end="")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 200))
    return report


def _masks(names: list[str] | None) -> list[str]:
    if not names:
        return list(HALVES)
    return list(MASKS) if "all" in names else names


def _prior(name: str) -> Prior:
    if name == "exact":
        from priorpaint.avatars.prior import ExactAvatars

        return ExactAvatars()
    from priorpaint.priors.loading import load_prior

    prior = load_prior(name)
    if prior.shape[0] != 3:
        raise UsageError(f"the prior {name} has {prior.shape[0]} channels; avatars need one for RGB pictures.")
    return prior


def _lpips(path: Path | None) -> Distance | None:
    if path is None:
        return None
    from priorpaint.metrics import LPIPS

    return LPIPS(path)


def _merged(report: PictureReport, folder: Path, request: Request) -> PictureReport:
    path = folder / JSON_FILE
    if not request.update or not path.is_file():
        return report
    before = PictureReport.from_json(path.read_text(encoding="utf-8"))
    if before.setup.get("prior") != report.setup["prior"]:
        raise UsageError(
            f"{path} was made with the prior {before.setup.get('prior')}, this run with {report.setup['prior']}; "
            "leave --update out, or use another folder."
        )
    return replace(before.merged(report), shown=report.shown)


def _found(cell: PictureCell) -> str:
    if cell.status != DONE or cell.measures is None:
        return f"{cell.status} ({cell.note})"
    found = cell.measures
    return (
        f"valid {found.valid:.2f}, TV {found.tv:.3f}, coverage {found.coverage:.2f}, score {score(found):.3f} "
        f"in {cell.seconds:.2f} CPU s a completion"
    )
