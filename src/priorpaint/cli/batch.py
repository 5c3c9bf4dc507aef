"""``priorpaint batch``: many pictures, each of which is done or listed with its reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from .inpaint import Adapt, AdaptCrops, Method, Refine, refined
from .options import MaskOptions, use_threads, with_options
from .running import PageOption, PlanOptions, RangeOption, plan_arguments
from .terminal import echo, echo_files
from .workers import Workers, processes

if TYPE_CHECKING:
    from priorpaint.batch import Event, Outcome, Store
    from priorpaint.batch.entries import Entry
    from priorpaint.batch.pictures import Request
    from priorpaint.priors import Prior

SOME_FAILED = 3
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="FOLDER|GLOB|MANIFEST",
        help="A folder with all below it, a glob, pictures, or a manifest.",
    ),
]


@dataclass(frozen=True)
class BatchOptions(PlanOptions):
    """Options of ``priorpaint batch`` beside those of every plan."""

    overwrite: Annotated[
        bool, Option("--overwrite", help="Begin anew whatever the folder holds, and replace results.")
    ] = False
    resume: Annotated[
        bool, Option("--resume", help="Go on: no finished picture is computed again, unless it has changed.")
    ] = False
    as_json: Annotated[bool, Option("--json", help="Print events, a JSON object a line.")] = False
    mask: Annotated[Path | None, Option("--mask", metavar="FILE", help="One mask for all pictures.")] = None
    masks: Annotated[
        Path | None, Option("--masks", metavar="FOLDER", help="Masks with the tree and the names of the pictures.")
    ] = None
    mask_suffix: Annotated[
        str | None, Option(metavar="_mask", help="cat.jpg has the mask cat_mask.png, beside it or in --masks.")
    ] = None
    shard: Annotated[
        str | None, Option(metavar="I/N", help="Only part I of N, from 1; the parts may share one folder.")
    ] = None
    workers: Workers = None
    limit: Annotated[int | None, Option(metavar="N", min=1, help="Compute at most N pictures now.")] = None
    dry_run: Annotated[bool, Option("--dry-run", help="Only list the pictures, with what each would take.")] = False
    keep_going: Annotated[
        bool, Option("--keep-going/--stop-on-error", help="Whether to go on when a picture fails.")
    ] = True


@with_options(BatchOptions, MaskOptions)
def batch(
    options: BatchOptions,
    masking: MaskOptions,
    sources: Sources,
    method: Method = None,
    refine: Refine = None,
    adapt: Adapt = False,
    adapt_crops: AdaptCrops = None,
    value_range: RangeOption = "auto",
    page: PageOption = None,
) -> None:
    """Fill in parts of many pictures; every picture is done, or listed in failed.jsonl with its reason.

    The folder of the results mirrors that of the pictures; what is in it for each picture is what `priorpaint inpaint`
    gives, with STEM_run.json. summary.csv has a line a picture. Ctrl-C or a crash loses the pictures in flight, and
    --resume goes on. Exit code 0: all done; 3: some failed.
    """
    from priorpaint.batch.entries import MaskFiles, find_entries, parse_shard, sharded
    from priorpaint.batch.pictures import Request, open_store
    from priorpaint.errors import UsageError

    part = None if options.shard is None else parse_shard(options.shard)
    if part is not None and options.overwrite:
        raise UsageError(
            "--overwrite would remove what the other parts of --shard have done; empty the folder, and give --resume "
            "to all parts."
        )
    files = MaskFiles(options.mask, options.masks, options.mask_suffix)
    spared = [options.out, *([masking.mask_diff] if masking.mask_diff is not None else [])]
    entries = find_entries(sources, files, spared)
    own = _masking(masking, files.given, entries)
    own |= {
        "method": method,
        "refine": refined(refine),
        "value_range": value_range,
        "page": page,
        "adapt": (adapt_crops or adapt) and not options.dry_run,  # a list of pictures is no reason to learn them
    }
    arguments, settings = plan_arguments(options, own)
    request = Request.of(options.out, arguments, settings, options.format, options.read_back)
    entries = entries if part is None else sharded(entries, part)
    use_threads(options.threads)
    if options.dry_run:
        _list(request, entries, options, learns=bool(adapt_crops or adapt))
        return
    about = {"sources": sources, "method": method, "settings": settings, "prior": options.prior}
    store = open_store(options.out, about, resume=options.resume, overwrite=options.overwrite)
    prior = request.loaded("cpu")  # for its hash; each worker loads its own
    request.checked(prior, entries)
    _run(request, prior, entries, store, options)


def _masking(masking: MaskOptions, files: bool, entries: Sequence[Entry]) -> dict[str, Any]:
    """Arguments of a plan; ``mask`` is one that the pictures themselves have, or None.

    Raises:
        UsageError: options that contradict each other, or the manifest.
    """
    there = files or any(entry.mask is not None for entry in entries)
    arguments = masking.arguments(Path("mask.png") if there else None)
    return arguments if isinstance(arguments["mask"], str) else {**arguments, "mask": None}


def _run(request: Request, prior: Prior, entries: Sequence[Entry], store: Store, options: BatchOptions) -> None:
    from priorpaint.batch import run_all
    from priorpaint.batch.pictures import write_summary
    from priorpaint.priors.verify import doubts

    from .progress import BatchDisplay
    from .stopping import signals

    executor = processes(request.work, options.workers, options.device, options.threads)
    display = BatchDisplay(len(entries), options.num_samples, quiet=options.quiet)

    def hear(event: Event) -> None:
        display(event)
        if options.as_json and event.kind != "step":
            _tell(
                event.kind,
                **event.item.about,
                **(event.record or {}),
                **({"error": event.error} if event.error else {}),
            )

    with signals() as cancel:
        with display:
            for doubt in doubts(prior):
                display.say(f"Warning: {doubt}")
            if options.as_json:
                _tell("begin", pictures=len(entries), samples=options.num_samples, workers=len(executor.devices))
            outcome = run_all(
                store, request.items(prior, entries, store), executor,
                on_event=hear, cancel=cancel, limit=options.limit, stop_on_error=not options.keep_going,
            )  # fmt: skip
        summary = write_summary(store)
        _say_end(outcome, len(entries), summary, options)
        if outcome.cancelled:
            raise typer.Exit(cancel.exit_code)
    if outcome.failed:
        raise typer.Exit(SOME_FAILED)


def _say_end(outcome: Outcome, pictures: int, summary: Path, options: BatchOptions) -> None:
    finished = outcome.done + outcome.kept
    if options.as_json:
        _tell("end", **vars(outcome), pictures=pictures, summary=str(summary))
    else:
        echo_files([summary])
    failed = f", {outcome.failed} failed (see failed.jsonl)" if outcome.failed else ""
    word = "Stopped: " if outcome.cancelled else ""
    goes_on = "; --resume goes on" if finished + outcome.failed < pictures else ""
    if not options.quiet or outcome.failed or outcome.cancelled:
        echo(f"{word}{finished} of {pictures} pictures are finished and in {options.out}{failed}{goes_on}.", err=True)


def _list(request: Request, entries: Sequence[Entry], options: BatchOptions, *, learns: bool) -> None:
    """What each picture would take, and all of them; nothing is written."""
    from priorpaint.batch.pictures import Estimate, Painter

    from .progress import clock

    prior = request.loaded(options.device)
    request.checked(prior, entries)
    estimate, calls, total, failed = Estimate(Painter(request, prior)), 0, 0.0, 0
    for entry in entries:
        found = estimate.of(entry)
        if isinstance(found, str):
            failed += 1
            facts: dict[str, Any] = {"error": found}
            line = f"{entry.picture}: {found}"
        else:
            share, cost, seconds = found
            calls, total = calls + cost.forward + cost.backward, total + seconds
            facts = {"hole_share": round(share, 6), "nfe_forward": cost.forward, "nfe_backward": cost.backward}
            facts["seconds"] = round(seconds, 2)
            line = f"{entry.out}: {share:.1%} to repaint, {cost.forward + cost.backward} calls, {clock(seconds)}"
        if options.as_json:
            _tell("listed", picture=str(entry.picture), out=entry.out, **facts)
        else:
            echo(line)
    if options.as_json:
        _tell("end", pictures=len(entries), failed=failed, nfe=calls, seconds=round(total, 1))
    else:
        cannot = f", {failed} of which cannot be done" if failed else ""
        more = "; learning each picture (--adapt) comes on top" if learns else ""
        echo(
            f"{len(entries)} pictures{cannot}; {calls} calls of the prior, about {clock(total)} one after another{more}"
        )
    if failed:
        raise typer.Exit(SOME_FAILED)


def _tell(kind: str, **facts: Any) -> None:
    print(json.dumps({"event": kind, **facts}), flush=True)
