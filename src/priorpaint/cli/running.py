"""A plan that the command line runs: progress on stderr, results into files as they are finished, names on stdout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from priorpaint.errors import PriorpaintError, UsageError

from .options import (
    Device,
    GuidanceScale,
    Offline,
    PriorFlags,
    PriorSpec,
    Quiet,
    Threads,
    read_settings,
    use_threads,
)
from .terminal import echo_files

if TYPE_CHECKING:
    from priorpaint.inpainting.api import Plan
    from priorpaint.inpainting.events import Event
    from priorpaint.inpainting.result import Output, Result

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".npy")
RangeOption = Annotated[
    str,
    Option("--range", metavar="auto|full|MIN,MAX", help="Stored values that are black and white to the prior."),
]
PageOption = Annotated[int | None, Option("--page", metavar="N", min=1, help="Page of a TIFF with several.")]
# Pictures of these formats may have values that PNG does not hold.
_DEEP_SUFFIXES = (".tif", ".tiff", ".npy")
# Fields of `JobOptions` that say what becomes of the results; the others are arguments of a plan.
_OWN = ("out", "settings", "format", "overwrite", "threads", "quiet", "as_json")


@dataclass(frozen=True)
class JobOptions:
    """Options of all commands that run a plan.

    Raises:
        UsageError: some that cannot be meant.
    """

    out: Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="Folder for the results.")] = Path("out")
    num_samples: Annotated[int, Option("-n", "--samples", metavar="N", min=1, help="How many results.")] = 4
    seed: Annotated[int, Option(metavar="N", help="Same seed, same results.")] = 0
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="A setting of the method; repeatable.")
    ] = None
    prior: PriorSpec = "photos"
    label: Annotated[
        int | None, Option(metavar="CLASS", help="Class of the picture, for priors that know classes.")
    ] = None
    prompt: Annotated[
        str | None, Option(metavar="WORDS", help="What the picture shows, for priors that take text.")
    ] = None
    negative_prompt: Annotated[str | None, Option(metavar="WORDS", help="What to avoid.")] = None
    guidance_scale: GuidanceScale = 1.0
    classifier: Annotated[
        Path | None,
        Option(metavar="FILE", help="A classifier of noisy pictures (guided-diffusion, .pt) that guides to --label."),
    ] = None
    classifier_scale: Annotated[float, Option(metavar="WEIGHT", help="Weight of the classifier.")] = 1.0
    classifier_noise: Annotated[
        str | None,
        Option(metavar="linear|cosine", help="Noise levels of the classifier's training; default: the prior's own."),
    ] = None
    fit: Annotated[str, Option(metavar="windows|resize", help="How a prior of a fixed size sees other pictures.")] = (
        "windows"
    )
    prior_flags: PriorFlags = None
    offline: Offline = False
    format: Annotated[
        str | None,
        Option(metavar="FORMAT", help="png (default), jpg, webp (lossless), tiff, npy, or same (as the picture)."),
    ] = None
    overwrite: Annotated[bool, Option("--overwrite", help="Replace results that exist already.")] = False
    batch_size: Annotated[int | None, Option(metavar="N", min=1, help="Results computed together.")] = None
    max_memory: Annotated[
        str | None, Option(metavar="SIZE", help="Limit for weights and activations, such as 4GB.")
    ] = None
    device: Device = None
    threads: Threads = None
    quiet: Quiet = False
    as_json: Annotated[bool, Option("--json", help="Print run.json instead of the file names.")] = False

    def __post_init__(self) -> None:
        if not self.out.is_dir() and self.out.suffix.lower() in PICTURE_SUFFIXES:
            raise UsageError(f"-o takes a folder, and {self.out} looks like a file; leave the suffix out.")
        if self.negative_prompt is not None and self.guidance_scale == 1:
            raise UsageError("--negative-prompt has weight only with guidance; add --guidance 5, for example.")


def plan_arguments(options: JobOptions, own: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of a plan, and settings of its method.

    Raises:
        UsageError: a setting has the name of an argument.
    """
    arguments = own | {name: value for name, value in asdict(options).items() if name not in _OWN}
    settings = read_settings(options.settings)
    for key in settings.keys() & arguments.keys():
        raise UsageError(f"the method has no setting {key!r}; `priorpaint methods NAME` lists those that it has.")
    return arguments, settings


def run(plan: Callable[..., Plan], image: Path, options: JobOptions, /, **own: Any) -> None:
    """Make a plan for the picture in a file and run it.

    Args:
        plan: of `inpaint` or `restore`.
        own: its arguments that not all such commands have.

    Raises:
        UsageError: a setting has the name of an argument; or the results cannot be written where they should, which is
            told before any work.
        Exit: it was stopped; what is finished is kept.
    """
    use_threads(options.threads)
    arguments, settings = plan_arguments(options, own)
    out, format, samples, overwrite = options.out, options.format, options.num_samples, options.overwrite
    from priorpaint.imaging import lossy
    from priorpaint.inpainting.api import Stopped
    from priorpaint.inpainting.events import Completion, Step
    from priorpaint.inpainting.result import Output, suffix_for

    from .progress import Display
    from .stopping import signals as taken_signals

    early = format or ("same" if image.suffix.lower() in _DEEP_SUFFIXES else "png")
    if early.lower() != "same":  # all but that is told before a prior is loaded, which may take long
        Output(out, image.stem, suffix_for(early)).check(samples, overwrite=overwrite)
    ready, written = plan(**arguments, **settings), 0
    output = Output(out, image.stem, suffix_for(format, ready.picture))
    lost = output.check(samples, overwrite=overwrite, picture=ready.picture)
    with taken_signals() as signals, Display(samples, quiet=options.quiet) as display:
        if ready.known.any() and lossy(output.completion(0)):
            display.say("Note: JPEG cannot keep the known pixels bit-identical; --format png does.")
        for sentence in lost:
            display.say(f"Note: {sentence}")
        for warning in ready.warnings:  # before the work: a mask that is the wrong way round is seen at once
            display.say(f"Warning: {warning}")

        def on_event(event: Event) -> None:
            nonlocal written
            if isinstance(event, Step):
                display.step(event.done / event.total)
            elif isinstance(event, Completion):
                output.write_completion(event.index, event.image, ready.picture)
                written = event.index + 1
                display.sample()

        try:
            result = ready.run(on_event, signals)
        except Stopped as stopped:
            finished = 0 if stopped.result is None else len(stopped.result.images)
            folder = f" and in {output.folder}." if finished else "."
            display.say(f"Stopped: {finished} of {samples} completions are finished{folder}")
            if stopped.result is not None:
                _finish(output, stopped.result, as_json=options.as_json)
            raise typer.Exit(signals.exit_code) from None
        except PriorpaintError as error:
            # Where a completion could not be written, the summary cannot be either.
            if error.result is not None and written == len(error.result.images):
                display.say(f"Failed: {written} of {samples} completions are finished and in {output.folder}.")
                _finish(output, error.result, as_json=options.as_json)
            raise
        _finish(output, result, as_json=options.as_json)


def _finish(output: Output, result: Result, *, as_json: bool) -> None:
    """Write the summary and say on stdout what there is."""
    output.write_summary(result)
    files = output.files(len(result.images))
    if as_json:
        print(files[-1].read_text(encoding="utf-8").rstrip())
    else:
        echo_files(files)
