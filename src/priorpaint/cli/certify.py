"""``priorpaint certify``: every method against exact posteriors."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from priorpaint.errors import UsageError

if TYPE_CHECKING:
    from priorpaint.lab.certify.results import Cell, Certificate

    from .progress import CellDisplay
    from .stopping import Signals

_PAGE, _PAGE_IMAGES = Path("docs/results"), Path("docs/images")


def certify(
    method: Annotated[
        list[str] | None, typer.Option("--method", metavar="NAME[:KEY=VALUE,...]", help="Repeatable; default: all.")
    ] = None,
    problem: Annotated[
        list[str] | None,
        typer.Option(
            "--problem",
            metavar="NAME|FAMILY|all",
            help="Problem, family (M25) or all; repeatable; default: the standard set.",
        ),
    ] = None,
    budget: Annotated[
        list[int] | None,
        typer.Option("--budget", min=1, metavar="NFE", help="Network evaluations per sample; default: 50, 200, 1000."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Draws per problem; default: 3, and 1 for budgets above 200.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("-n", "--samples", min=2, metavar="N", help="Samples per draw; default: 512 (pictures: 32)."),
    ] = None,
    calibration: Annotated[bool, typer.Option(help="Run the rank test at a budget of 200.")] = True,
    workers: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes; default: one per core, at most 8.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the JSON file, page and figures.")
    ] = None,
    figures: Annotated[bool, typer.Option(help="Draw figures (needs matplotlib).")] = True,
    write_docs: Annotated[
        bool, typer.Option("--write-docs", help="Write tables and figures into docs/ of this checkout.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Keep the cells of an earlier run that this one does not replace.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Pictures: repeat every run recorded in the folder's JSON files.")
    ] = False,
    suite: Annotated[
        str,
        typer.Option(
            metavar="standard|pictures", help="`standard`: small exact problems; `pictures`: half-hidden pictures."
        ),
    ] = "standard",
    subject: Annotated[
        str | None,
        typer.Option(metavar="avatars|fashion|all", help="Pictures: what they show; default: avatars."),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            "--mask", metavar="KIND|all", help="Pictures: a kind of mask, or all; repeatable; default: halves."
        ),
    ] = None,
    pictures: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pictures: test pictures per mask; default: 64.")
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH|exact",
            help="Pictures: a prior trained on the subject; default for avatars: `exact`, the denoiser without a "
            "network, and for fashion: `fashion`.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures: folder of Fashion-MNIST; default: the Debian package's."),
    ] = None,
    lpips: Annotated[
        Path | None, typer.Option(metavar="WEIGHTS", help="Pictures: file of LPIPS weights, to measure LPIPS as well.")
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List the problems (pictures: the masks) and exit.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate as JSON instead of tables.")] = False,
) -> None:
    """Measure methods against posteriors that are known exactly.

    Tables go to stdout, progress to stderr. Ctrl-C keeps the cells that are finished.
    """
    if suite not in ("standard", "pictures"):
        raise UsageError(f"the suites are standard and pictures, not {suite!r}.")
    if listing:
        _list(suite)
        return
    if write_docs and not _PAGE.parent.is_dir():
        raise UsageError("--write-docs writes into docs/; run it in a checkout of priorpaint, or use -o FOLDER.")
    folders = [folder for folder in (out, _PAGE if write_docs else None) if folder is not None]
    from .progress import CellDisplay
    from .stopping import signals

    if suite == "pictures":
        from .certify_pictures import Request, run  # the subjects are loaded for this suite only

        if problem or (budget and len(budget) > 1):
            raise UsageError("the suite of pictures has masks in place of problems, and one budget a run.")
        if seeds or workers or not calibration or not figures:
            raise UsageError("--seeds, --workers, --no-calibration and --no-figures belong to the standard suite.")
        targets = tuple((folder, _PAGE_IMAGES if folder == _PAGE else folder) for folder in folders)
        asked = (subject, method, mask, budget[0] if budget else None, pictures, samples, prior, data, lpips)
        with signals() as cancel, CellDisplay(quiet=quiet) as display:
            request = Request(*asked, targets, update, again, _command())
            cells = [cell for report in run(request, display, cancel, as_json=as_json) for cell in report.cells]
        _exit(display, cancel, "", [cell.status for cell in cells])
        return
    if mask or pictures or lpips or subject or data or prior or again:
        raise UsageError(
            "--subject, --mask, --pictures, --prior, --data, --lpips and --again belong to --suite pictures."
        )
    if figures and folders:
        from priorpaint.lab.certify.plots import require

        require()  # before minutes of work
    from rich.console import Console

    from priorpaint.lab.certify.problems import STANDARD
    from priorpaint.lab.certify.report import show
    from priorpaint.lab.certify.run import NUM_SAMPLES
    from priorpaint.lab.certify.run import certify as run_certify

    with signals() as cancel, CellDisplay(quiet=quiet) as display:
        certificate = run_certify(
            method or None,
            problem or STANDARD,
            sorted(set(budget)) if budget else None,
            seeds=seeds,
            num_samples=samples or NUM_SAMPLES,
            calibrated=calibration,
            workers=workers or min(8, _cores()),
            report=lambda done, total, cell: display.advance(done, total, _sentence(cell)),
            cancel=cancel,
        )
    if not certificate.cells:
        display.say("Stopped: no cell is finished.")
        raise typer.Exit(cancel.exit_code)
    for folder in folders:
        _save(certificate, folder, figures=figures, update=update)
    if as_json:
        print(certificate.to_json(), end="")
    else:
        show(certificate, Console(width=None if sys.stdout.isatty() else 200))
    where = f" and in {', '.join(map(str, folders))}" if folders else ""
    _exit(display, cancel, where, [cell.status for cell in certificate.cells])


def _exit(display: CellDisplay, cancel: Signals, where: str, statuses: list[str]) -> None:
    """End with the code of a run that was stopped, or that has failed cells."""
    from priorpaint.lab.certify.results import FAILED

    if cancel.cancelled:
        display.say(f"Stopped: {display.done} of {display.total} cells are finished{where}.")
        raise typer.Exit(cancel.exit_code)
    if FAILED in statuses:
        raise typer.Exit(1)


def _save(certificate: Certificate, folder: Path, *, figures: bool, update: bool) -> None:
    from priorpaint.lab.certify.results import Certificate
    from priorpaint.lab.certify.saving import save

    existing, commands = folder / "certification.json", [_command()]
    if update and existing.exists():
        before = Certificate.read(existing)
        commands = list(dict.fromkeys([*before.setup.get("commands", []), *commands]))
        certificate = before.merged(certificate)
    certificate = replace(certificate, setup={**certificate.setup, "commands": commands})
    pictures = _PAGE_IMAGES if folder == _PAGE else folder
    for path in save(certificate, folder, figures=figures, pictures=pictures, command="`, then `".join(commands)):
        print(path, file=sys.stderr)


def _command() -> str:
    """What was typed, for the page: of paths only the last part, which is all that means something elsewhere."""
    return "priorpaint " + " ".join(shlex.quote(_last_part(word)) for word in sys.argv[1:])


def _last_part(word: str) -> str:
    return Path(word).name if "/" in word and not {":", "="} & set(word) else word  # hf:OWNER/NAME is not a path


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
