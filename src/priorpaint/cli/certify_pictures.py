"""``priorpaint certify --suite pictures``: methods on half hidden pictures."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from priorpaint.certify.pictures.masks import HALVES
from priorpaint.certify.pictures.report import json_file, save, show
from priorpaint.certify.pictures.run import BUDGET, PICTURES, SAMPLES, PictureCell, PictureReport, certify_pictures
from priorpaint.certify.pictures.subject import SUBJECTS, Distance, Subject, subject
from priorpaint.certify.results import DONE
from priorpaint.errors import UsageError
from priorpaint.priors.base import Prior


@dataclass(frozen=True)
class Request:
    """What was asked for on the command line; None is the default.

    Attributes:
        methods: names; None is all of them.
        subject: ``avatars``, ``fashion`` or ``all``.
        masks: names, or ``all``; None is the four halves.
        budget: network evaluations a completion.
        pictures, samples: how many, and completions of each.
        prior: name or file of a network that was trained on such pictures, or for avatars ``exact``; None is the
            subject's own.
        data: folder of Fashion-MNIST; None is that of the Debian package.
        lpips: weights file of LPIPS.
        folders: (tables, sheets) where results are written.
        update: whether cells in the JSON that are not run again are kept.
        command: what was typed.
    """

    subject: str
    methods: list[str] | None
    masks: list[str] | None
    budget: int | None
    pictures: int | None
    samples: int | None
    prior: str | None
    data: Path | None
    lpips: Path | None
    folders: tuple[tuple[Path, Path], ...]
    update: bool
    command: str


def run(
    request: Request, say: Callable[[str], None], stop: Callable[[], bool], *, as_json: bool
) -> list[PictureReport]:
    """Run the suite for each subject, save what was asked for and print the tables.

    Raises:
        UsageError: unknown names.
        PriorError: the prior cannot be read.
    """
    names = SUBJECTS if request.subject == "all" else (request.subject,)
    if len(names) > 1 and request.prior is not None:
        raise UsageError("no prior knows all subjects; name one of them with --subject, or leave --prior out.")
    if request.data is not None and "fashion" not in names:
        raise UsageError("--data is the folder of Fashion-MNIST; it belongs to --subject fashion or all.")
    reports = []
    for kind, prior in [(kind, _prior(kind, request.prior)) for kind in map(subject, names)]:
        if not stop():
            reports.append(_run(request, kind, prior, say, stop, as_json=as_json))
    return reports


def _run(
    request: Request,
    kind: Subject,
    prior: Prior,
    say: Callable[[str], None],
    stop: Callable[[], bool],
    *,
    as_json: bool,
) -> PictureReport:
    def told(done: int, total: int, cell: PictureCell) -> None:
        say(f"{done}/{total} {cell.method} {kind.name} {cell.mask}: {_found(kind, cell)}")

    report = certify_pictures(
        prior,
        request.methods,
        _masks(kind, request.masks),
        subject=kind.name,
        data=request.data,
        budget=request.budget or BUDGET,
        pictures=request.pictures or PICTURES,
        num_samples=request.samples or SAMPLES,
        lpips=_lpips(request.lpips),
        report=told,
        stop=stop,
    )
    for folder, pictures in request.folders:
        merged = _merged(report, folder) if request.update else report
        for path in save(merged, folder, pictures=pictures, command=request.command):
            print(path, file=sys.stderr)
    if as_json:
        print(report.to_json(), end="")
    else:
        show(report, Console(width=None if sys.stdout.isatty() else 200))
    return report


def _masks(kind: Subject, names: list[str] | None) -> list[str]:
    if not names:
        return list(HALVES)
    return list(kind.masks) if "all" in names else names


def _prior(kind: Subject, asked: str | None) -> Prior:
    name = asked or kind.prior
    if name == "exact" and kind.name != "avatars":
        raise UsageError(f"only avatars have an exact denoiser; name a prior that was trained on {kind.name}.")
    from priorpaint.avatars.prior import avatar_prior

    return avatar_prior(name)


def _lpips(path: Path | None) -> Distance | None:
    if path is None:
        return None
    from priorpaint.metrics import LPIPS

    return LPIPS(path)


def _merged(report: PictureReport, folder: Path) -> PictureReport:
    """The report with the cells that are kept."""
    path = folder / json_file(report.name)
    if not path.is_file():
        return report
    before = PictureReport.from_json(path.read_text(encoding="utf-8"))
    if before.setup.get("prior") != report.setup["prior"]:
        raise UsageError(
            f"{path} was made with the prior {before.setup.get('prior')}, this run with {report.setup['prior']}; "
            "leave --update out, or use another folder."
        )
    return before.merged(report)


def _found(kind: Subject, cell: PictureCell) -> str:
    if cell.status != DONE or cell.measures is None:
        return f"{cell.status} ({cell.note})"
    values = [(column.title, column.value(cell.measures)) for column in kind.columns]
    shown = ", ".join(f"{title} {value:.3f}" for title, value in values if value is not None)
    return f"{shown} in {cell.seconds:.2f} CPU s a completion"
