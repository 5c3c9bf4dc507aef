"""``priorpaint certify --suite pictures``: methods on half hidden pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from priorpaint.errors import CancelToken, UsageError
from priorpaint.lab.avatars.prior import avatar_prior
from priorpaint.lab.certify.pictures.masks import HALVES, about
from priorpaint.lab.certify.pictures.report import json_file, save, show
from priorpaint.lab.certify.pictures.run import (
    BUDGET,
    PICTURES,
    SAMPLES,
    PictureCell,
    PictureReport,
    all_methods,
    certify_pictures,
)
from priorpaint.lab.certify.pictures.subject import Subject
from priorpaint.lab.certify.pictures.subjects import SUBJECTS, subject
from priorpaint.lab.certify.results import DONE
from priorpaint.metrics import LPIPS

from .certify_options import CertifyOptions
from .progress import CellDisplay
from .terminal import echo

# In a report's setup: how its prior is asked for.
_ASKED = "asked_prior"


@dataclass(frozen=True)
class _Job:
    """One table: a mask of a subject, and the methods that run on it."""

    kind: Subject
    prior: str
    mask: str
    methods: list[str]
    budget: int | None
    pictures: int
    samples: int


def run(options: CertifyOptions, command: str, display: CellDisplay, cancel: CancelToken) -> list[PictureReport]:
    """Run the suite mask by mask, save what was asked for after each, and print the tables.

    Args:
        options: as given; with ``again`` they are those of the JSON files in the first folder.
        command: what was typed, for the page.

    Raises:
        UsageError: unknown names, or choices that do not go together.
        PriorError: the prior cannot be read.
    """
    jobs = list(_stored_jobs(options) if options.again else _jobs(options))
    for job in jobs:
        if job.prior == "exact" and job.kind.name != "avatars":
            raise UsageError(f"only avatars have an exact denoiser; name a prior that was trained on {job.kind.name}.")
    priors = {(job.kind.name, job.prior): avatar_prior(job.prior) for job in jobs}
    distance = None if options.lpips is None else LPIPS(options.lpips)
    before, total = 0, sum(len(job.methods) for job in jobs)
    reports: dict[tuple[str, str], PictureReport] = {}
    files: dict[Path, None] = {}
    for job in jobs:
        key = (job.kind.name, job.prior)

        def advance(done: int, _: int, cell: PictureCell, job: _Job = job, before: int = before) -> None:
            sentence = f"{cell.method} {job.kind.name} {cell.mask}: {_outcome(job.kind, cell)}"
            display.advance(before + done, total, sentence)

        report = certify_pictures(
            priors[key], job.methods, [job.mask], subject=job.kind.name, data=options.data, budget=job.budget,
            pictures=job.pictures, num_samples=job.samples, lpips=distance, report=advance, cancel=cancel,
        )  # fmt: skip
        report = replace(report, setup={**report.setup, _ASKED: job.prior})
        if report.cells:
            reports[key] = reports[key].merged(report) if key in reports else report
            for folder, pictures in options.folders:
                merged = _merged(reports[key], folder) if options.update or options.again else reports[key]
                files |= dict.fromkeys(save(merged, folder, pictures=pictures, command=command))
        if cancel.cancelled:
            break
        before += len(job.methods)
    for path in files:
        echo(path, err=True)
    for report in reports.values():
        if options.as_json:
            print(report.to_json(), end="")
        else:
            show(report, Console(width=None if sys.stdout.isatty() else 200))
    return list(reports.values())


def list_masks() -> str:
    """The masks of each subject, a line each."""
    kinds = list(SUBJECTS.values())
    masks = list(dict.fromkeys(mask for kind in kinds for mask in kind.masks))
    width = max(map(len, masks))
    return "\n".join(
        f"{mask:<{width}} {about(mask)} ({', '.join(kind.name for kind in kinds if mask in kind.masks)})"
        for mask in masks
    )


def _jobs(options: CertifyOptions) -> Iterator[_Job]:
    asked = options.subject or next(iter(SUBJECTS))
    names = tuple(SUBJECTS) if asked == "all" else (asked,)
    if len(names) > 1 and options.prior is not None:
        raise UsageError("no prior knows all subjects; name one of them with --subject, or leave --prior out.")
    if options.data is not None and "fashion" not in names:
        raise UsageError("--data is the folder of Fashion-MNIST; it belongs to --subject fashion or all.")
    methods = options.method or all_methods()
    size = (options.budget[0] if options.budget else BUDGET, options.pictures or PICTURES, options.samples or SAMPLES)
    for kind in map(subject, names):
        masks = list(dict.fromkeys(options.mask or HALVES))
        kind.check_masks([name for name in masks if name != "all"])
        for mask in kind.masks if "all" in masks else masks:
            yield _Job(kind, options.prior or kind.prior, mask, methods, *size)


def _stored_jobs(options: CertifyOptions) -> Iterator[_Job]:
    """What the reports in the first folder were made of."""
    choices = (options.method, options.mask, options.budget, options.pictures, options.samples, options.prior)
    if not options.folders or any(choices):
        raise UsageError(
            "--again runs what the JSON files of a folder hold: name the folder with -o (or --write-docs), and leave "
            "methods, masks, sizes and --prior to them."
        )
    folder = options.folders[0][0]
    files = sorted(folder.glob(json_file("*")))
    if not files:
        raise UsageError(f"there is no {json_file('*')} in {folder}; run the suite without --again first.")
    for file in files:
        report = PictureReport.from_json(file.read_text(encoding="utf-8"))
        if options.subject not in (None, "all", report.subject.name):
            continue
        if _ASKED not in report.setup:
            raise UsageError(f"{file} does not say how its prior {report.setup['prior']} is loaded; run it by hand.")
        for mask in report.masks:
            cells = [cell for cell in report.cells if cell.mask == mask]
            if options.lpips is None and any(cell.measures is not None and cell.measures.lpips for cell in cells):
                raise UsageError(f"{file} has LPIPS in the table of the mask {mask}; name its weights with --lpips.")
            if cells:
                pictures, samples, budget = cells[0].size
                methods = [cell.method for cell in cells]
                yield _Job(report.subject, report.setup[_ASKED], mask, methods, budget, pictures, samples)


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


def _outcome(kind: Subject, cell: PictureCell) -> str:
    if cell.status != DONE or cell.measures is None:
        return f"{cell.status} ({cell.note})"
    values = [(column.title, column.value(cell.measures)) for column in kind.columns]
    shown = ", ".join(f"{title} {value:.3f}" for title, value in values if value is not None)
    return f"{shown} in {cell.seconds:.2f} CPU s a completion"
