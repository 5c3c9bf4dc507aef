"""``priorpaint certify``: every method against exact posteriors."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from .certify_options import CertifyOptions
from .options import with_options
from .terminal import echo

if TYPE_CHECKING:
    from priorpaint.lab.certify.results import Cell, Certificate

    from .progress import CellDisplay
    from .stopping import Signals


@with_options(CertifyOptions)
def certify(options: CertifyOptions) -> None:
    """Measure methods against posteriors that are known exactly.

    Tables go to stdout, progress to stderr. Ctrl-C keeps the cells that are finished.
    """
    if options.listing:
        _list(options.suite)
        return
    from .progress import CellDisplay
    from .stopping import signals

    if options.suite == "pictures":
        from .certify_pictures import run  # the subjects are loaded for this suite only

        with signals() as cancel, CellDisplay(quiet=options.quiet) as display:
            reports = run(options, _command(), display, cancel)
        _exit(display, cancel, "", [cell.status for report in reports for cell in report.cells])
        return
    if options.figures and options.folders:
        from priorpaint.lab.certify.plots import require

        require()  # before minutes of work
    from rich.console import Console

    from priorpaint.lab.certify.problems import STANDARD
    from priorpaint.lab.certify.report import show
    from priorpaint.lab.certify.run import NUM_SAMPLES
    from priorpaint.lab.certify.run import certify as run_certify

    with signals() as cancel, CellDisplay(quiet=options.quiet) as display:
        certificate = run_certify(
            options.method or None,
            options.problem or STANDARD,
            sorted(set(options.budget)) if options.budget else None,
            draws=options.draws,
            draw_seed=options.draw_seed,
            num_samples=options.samples or NUM_SAMPLES,
            calibrated=options.calibration,
            workers=options.workers or min(8, _cores()),
            report=lambda done, total, cell: display.advance(done, total, _sentence(cell)),
            cancel=cancel,
        )
    if not certificate.cells:
        display.say("Stopped: no cell is finished.")
        raise typer.Exit(cancel.exit_code)
    for folder, pictures in options.folders:
        _save(certificate, folder, pictures, options)
    if options.as_json:
        print(certificate.to_json(), end="")
    else:
        show(certificate, Console(width=None if sys.stdout.isatty() else 200))
    folders = ", ".join(str(folder) for folder, _ in options.folders)
    where = f" and in {folders}" if folders else ""
    _exit(display, cancel, where, [cell.status for cell in certificate.cells])


def _exit(display: CellDisplay, cancel: Signals, where: str, statuses: list[str]) -> None:
    """End with the code of a run that was stopped, or that has failed cells."""
    from priorpaint.lab.certify.results import FAILED

    if cancel.cancelled:
        display.say(f"Stopped: {display.done} of {display.total} cells are finished{where}.")
        raise typer.Exit(cancel.exit_code)
    if FAILED in statuses:
        raise typer.Exit(1)


def _save(certificate: Certificate, folder: Path, pictures: Path, options: CertifyOptions) -> None:
    from priorpaint.lab.certify.results import Certificate
    from priorpaint.lab.certify.saving import save

    existing, commands = folder / "certification.json", [_command()]
    if options.update and existing.exists():
        before = Certificate.read(existing)
        commands = list(dict.fromkeys([*before.setup.get("commands", []), *commands]))
        certificate = before.merged(certificate)
    certificate = replace(certificate, setup={**certificate.setup, "commands": commands})
    command = "`, then `".join(commands)
    for path in save(certificate, folder, figures=options.figures, pictures=pictures, command=command):
        echo(path, err=True)


def _command() -> str:
    """What was typed, for the page: of paths only the last part, which is all that means something elsewhere."""
    paths = {word for word in sys.argv[1:] if "/" in word and not {":", "="} & set(word)}  # hf:OWNER/NAME is not a path
    return shlex.join(["priorpaint", *(Path(word).name if word in paths else word for word in sys.argv[1:])])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _list(suite: str) -> None:
    if suite == "pictures":
        from .certify_pictures import list_masks

        typer.echo(list_masks())
        return
    from priorpaint.lab.certify.problems import PROBLEMS, STANDARD, problem

    width = max(map(len, PROBLEMS))
    for name in PROBLEMS:
        typer.echo(f"{name:<{width}} {'*' if name in STANDARD else ' '} {problem(name).about}")
    typer.echo("* in the standard set", err=True)


def _sentence(cell: Cell) -> str:
    """One that is finished."""
    from priorpaint.lab.certify.report import short_number
    from priorpaint.lab.certify.results import DONE

    spent = "as given" if cell.budget is None else f"NFE {cell.budget}"
    outcome = f"{cell.status} ({cell.note})"
    if cell.status == DONE:
        outcome = f"{short_number(cell.ratio)} x floor in {cell.seconds * len(cell.measures):.1f} CPU s"
    return f"{cell.method} {cell.problem} {spent}: {outcome}"
