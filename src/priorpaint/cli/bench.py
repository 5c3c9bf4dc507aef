"""``priorpaint bench``: pictures x masks and operators x methods x seeds, from a suite or a TOML file to a report."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer import Option

from priorpaint.errors import Cancelled, UsageError

from .options import Device, Offline, Quiet, Threads, use_threads, with_options
from .terminal import echo, echo_files
from .workers import processes

if TYPE_CHECKING:
    from priorpaint.batch import Store
    from priorpaint.bench.features import FeatureNetwork
    from priorpaint.bench.grid import Grid
    from priorpaint.bench.plan import Plan
    from priorpaint.priors.base import Prior

    from .progress import GridDisplay
    from .stopping import Signals

SOME_FAILED = 3
FASHION = "fashion"
Source = Annotated[str | None, typer.Argument(metavar="SUITE|GRID.toml", help="See --list; or a file of your own.")]
Texts = list[str] | None


@dataclass(frozen=True)
class BenchOptions:
    """Options of ``priorpaint bench``; those that say what is run take the place of what the grid says."""

    prior: Annotated[str | None, Option(metavar="NAME|PATH", help="See `priorpaint priors`; or a path.")] = None
    images: Annotated[Path | None, Option(metavar="FOLDER", help="The pictures, also in folders below it.")] = None
    out: Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="Folder of the store and the report.")] = Path(
        "bench"
    )
    resume: Annotated[bool, Option("--resume", help="Go on: no finished cell is computed again.")] = False
    mask: Annotated[Texts, Option(metavar="KIND", help="A kind of masks; repeatable.")] = None
    operator: Annotated[Texts, Option(metavar="NAME:KEY=VALUE,...", help="See `priorpaint operators`; repeatable.")] = (
        None
    )
    method: Annotated[
        Texts, Option(metavar="NAME:KEY=VALUE,...", help="A method, or 'LABEL = NAME:...'; repeatable.")
    ] = None
    seed: Annotated[list[int] | None, Option(metavar="N", help="Of masks, noise and samples; repeatable.")] = None
    samples: Annotated[int | None, Option("-n", "--samples", metavar="N", min=1, help="Of each picture.")] = None
    settings: Annotated[
        str | None,
        Option(metavar="reference|paper|default|budget=N", help="The authors', ours, or for N evaluations."),
    ] = None
    sigma_y: Annotated[
        float | None, Option("--noise", metavar="STD", help="Of the measurement, values from -1 to 1.")
    ] = None
    pictures: Annotated[int | None, Option(metavar="N", min=1, help="Only the first N pictures.")] = None
    metric: Annotated[Texts, Option(metavar="NAME", help="A metric of the report; repeatable.")] = None
    lpips: Annotated[Path | None, Option(metavar="FILE", help="Weights of LPIPS, for metrics and losses.")] = None
    features: Annotated[Path | None, Option(metavar="FILE|fashion", help="A network, for Frechet and KID.")] = None
    label: Annotated[
        str | None, Option(metavar="CLASS|folder", help="Class of the pictures, or that of their folder.")
    ] = None
    guidance: Annotated[float, Option(metavar="WEIGHT", help="Of the label; 1 = the plain condition.")] = 1.0
    size: Annotated[
        int | None, Option(metavar="PIXELS", min=16, help="Side of the pictures, for priors of any size.")
    ] = None
    prior_flags: Annotated[
        str | None, Option("--flags", metavar="FLAGS", help="What the prior's format cannot say.")
    ] = None
    offline: Offline = False
    limit: Annotated[int | None, Option(metavar="N", min=1, help="Compute at most N cells now.")] = None
    dry_run: Annotated[bool, Option("--dry-run", help="Only say what would be run, and about how long.")] = False
    listing: Annotated[bool, Option("--list", help="List the suites, with what they need.")] = False
    batch_size: Annotated[int | None, Option(metavar="N", min=1, help="Samples computed together.")] = None
    device: Device = None
    threads: Threads = None
    workers: Annotated[
        int | None, Option(metavar="N", min=1, max=1024, help="Processes that compute cells; default: this one alone.")
    ] = None
    quiet: Quiet = False
    as_json: Annotated[bool, Option("--json", help="Print report.json, or with --dry-run the numbers.")] = False

    @property
    def changes(self) -> dict[str, Any]:
        """The fields of the grid that were given."""
        given = {
            "masks": self.mask,
            "operators": self.operator,
            "methods": self.method,
            "seeds": self.seed,
            "metrics": self.metric,
            "samples": self.samples,
            "settings": self.settings,
            "sigma_y": self.sigma_y,
            "pictures": self.pictures,
        }
        return {name: value for name, value in given.items() if value not in (None, [])}


@with_options(BenchOptions)
def bench(options: BenchOptions, source: Source = None) -> None:
    """Compare methods on pictures whose truth is known, and write a report with tables and sheets.

    Every finished cell (a method on a picture under a mask or an operator) is stored at once: Ctrl-C or a crash loses
    the cell in flight, and --resume goes on. The report is report.md, report.html and report.json in the folder.
    """
    from priorpaint.bench.grid import read_grid

    if options.listing:
        _list_suites()
        return
    if source is None:
        raise UsageError("name a suite (priorpaint bench --list) or a .toml file of your own.")
    grid = read_grid(source).changed(**options.changes)
    prior, plan = _planned(grid, options)
    _say_plan(plan)
    if options.dry_run:
        _estimate(plan, prior, options)
        return
    _run(plan, prior, options)


def _planned(grid: Grid, options: BenchOptions) -> tuple[Prior, Plan]:
    """The prior and the plan; everything that can be refused is refused here."""
    if options.prior is None or options.images is None:
        raise UsageError(" ".join([f"{grid.name} needs --prior NAME and --images FOLDER.", *grid.downloads]))
    label = options.label
    if label is not None and label != "folder" and not label.isdecimal():
        raise UsageError(f"--label takes the number of a class, or the word folder, not {label!r}.")
    if label is None and options.guidance != 1:
        raise UsageError("--guidance is the weight of a label; add --label.")
    use_threads(options.threads)
    from priorpaint.bench.measure import check_metrics
    from priorpaint.bench.planning import make_plan
    from priorpaint.bench.run import open_store
    from priorpaint.priors.loading import load_prior

    if not options.dry_run:
        open_store(options.out, resume=options.resume)
    prior = load_prior(options.prior, flags=options.prior_flags, device=options.device, offline=options.offline)
    plan = make_plan(
        grid, prior, options.images, label=label if label in (None, "folder") else int(label),
        guidance=options.guidance, size=options.size, lpips=options.lpips,
    )  # fmt: skip
    check_metrics(plan, lpips=options.lpips, features=_features(options))
    return prior, plan


def _features(options: BenchOptions) -> FeatureNetwork | None:
    """The network of features: a file, or by its name the embedded classifier of garments."""
    from priorpaint.bench.features import FeatureNetwork, digest_of_file

    if options.features is None:
        return None
    if str(options.features) != FASHION:
        return FeatureNetwork.read(options.features)
    from priorpaint.lab.fashion.classifier import EMBEDDED, classifier

    return FeatureNetwork("fashion-classifier", digest_of_file(EMBEDDED), classifier().features)


def _say_plan(plan: Plan) -> None:
    for left in (*plan.left_out, *plan.repeated):
        echo(f"Warning: {left.error}", err=True)
    for left in plan.skipped:
        where = f" on {left.operator}" if left.operator else ""
        echo(f"Warning: {left.name} is left out{where}: {left.error}", err=True)


def _estimate(plan: Plan, prior: Prior, options: BenchOptions) -> None:
    """What the cells that are not finished yet would take."""
    from priorpaint.batch import Store
    from priorpaint.batch.store import DONE
    from priorpaint.bench.run import seconds_a_call, work

    from .progress import clock

    store: Store | None = Store(options.out) if (options.out / DONE).exists() else None
    left = [cell for cell in plan.cells() if store is None or cell.key not in store]
    costs = [plan.cost_of(cell.method) for cell in left]
    forward, backward = sum(cost.forward for cost in costs), sum(cost.backward for cost in costs)
    seconds = work(plan, store) * seconds_a_call(plan, prior)
    if options.as_json:
        numbers = {"cells": plan.num_cells, "left": len(left), "nfe_forward": forward, "nfe_backward": backward}
        print(json.dumps({**numbers, "seconds": round(seconds, 1)}, indent=1))
        return
    typer.echo(
        f"{plan.num_cells} cells ({len(plan.pictures)} pictures, {len(plan.conditions)} masks and operators, "
        f"{len(plan.methods)} methods, {len(plan.seeds)} seeds, {plan.samples} samples each); {len(left)} to compute"
    )
    typer.echo(f"network evaluations: {forward} without and {backward} with a gradient")
    typer.echo(f"about {clock(seconds)} on {prior.device}, and the metrics after that")


def _run(plan: Plan, prior: Prior, options: BenchOptions) -> None:
    from priorpaint.batch import Store
    from priorpaint.bench.run import run_bench, work, work_of, worker

    from .progress import GridDisplay
    from .stopping import signals

    assert options.images is not None
    store = Store(options.out)
    display = GridDisplay(plan.num_cells, work_of(plan), work(plan, store), quiet=options.quiet)
    kept, cells = sum(cell.key in store for cell in plan.cells()), plan.num_cells
    if len(store):
        display.say(f"{kept} of {cells} cells are finished already; the folder has {len(store) - kept} others.")
    executor = None
    if options.workers is not None:
        spec = {"spec": options.prior, "flags": options.prior_flags, "offline": options.offline}
        make = partial(worker, plan, spec, options.out, options.images, options.batch_size)
        executor = processes(make, options.workers, options.device, options.threads)
    with signals() as cancel:
        with display:
            outcome = run_bench(
                plan, prior, store, options.images, executor=executor,
                batch_size=options.batch_size, limit=options.limit, on_event=display, cancel=cancel,
            )  # fmt: skip
        if outcome.cancelled:
            _stopped(display, options, cancel)
        _report(store, options, display, cancel, str(prior.device))
    if outcome.failed or plan.left_out:
        raise typer.Exit(SOME_FAILED)


def _report(store: Store, options: BenchOptions, display: GridDisplay, cancel: Signals, device: str) -> None:
    """The second pass, and what it wrote."""
    from priorpaint.bench.measure import measure
    from priorpaint.bench.report import write_report

    from .progress import PassDisplay

    try:
        with PassDisplay(quiet=options.quiet) as passing:
            passed = measure(
                store.folder, lpips=options.lpips, features=_features(options), device=device,
                report=passing, cancel=cancel,
            )  # fmt: skip
    except Cancelled:
        _stopped(display, options, cancel)
    for sentence in (*passed.damaged.values(), *passed.left_out.values()):
        display.say(f"Note: {sentence}")
    files = write_report(store.folder)
    if options.as_json:
        print((store.folder / "report.json").read_text(encoding="utf-8"), end="")
        return
    echo_files(files)


def _stopped(display: GridDisplay, options: BenchOptions, cancel: Signals) -> NoReturn:
    display.say(
        f"Stopped: {display.finished} of {display.cells} cells are finished and in {options.out}; --resume goes on."
    )
    raise typer.Exit(cancel.exit_code)


def _list_suites() -> None:
    from priorpaint.bench.grid import read_grid, suites

    for name in suites():
        grid = read_grid(name)
        typer.echo(f"{name}\n  {grid.title}")
        for line in grid.downloads:
            typer.echo(f"  - {line}")
