"""A plan that the command line runs: progress on stderr, results into files as they are finished, names on stdout."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from priorpaint.errors import PriorpaintError, UsageError, show_bytes

from .options import (
    Device,
    GuidanceScale,
    Offline,
    Precision,
    PriorFlags,
    PriorSpec,
    Quiet,
    Threads,
    read_settings,
    use_threads,
)
from .terminal import echo_files

if TYPE_CHECKING:
    from PIL.Image import Image

    from priorpaint.inpainting.events import Event
    from priorpaint.inpainting.plans import Plan
    from priorpaint.inpainting.record import Record
    from priorpaint.inpainting.result import Output, Result

    from .progress import Display
    from .stopping import Signals

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
RangeOption = Annotated[
    str,
    Option("--range", metavar="auto|full|MIN,MAX", help="Stored values that are black and white to the prior."),
]
PageOption = Annotated[int | None, Option("--page", metavar="N", min=1, help="Page of a TIFF with several.")]
# Pictures of these formats may have values that PNG does not hold.
_DEEP_SUFFIXES = (".tif", ".tiff", ".npy")
_LONG_SECONDS = 3600.0
_WRITING = 0.02, 1e-7  # seconds that a file takes, and a byte of pixels
# Fields of these options that say what becomes of the results; the others are arguments of a plan.
_OWN = ("out", "settings", "format", "overwrite", "resume", "read_back", "threads", "quiet", "as_json")


@dataclass(frozen=True)
class PlanOptions:
    """Options of all commands that run plans.

    Raises:
        UsageError: some that cannot be meant.
    """

    out: Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="Folder for the results.")] = Path("out")
    num_samples: Annotated[
        int, Option("-n", "--samples", metavar="N", min=1, max=100_000, help="How many results.")
    ] = 4
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
    read_back: Annotated[
        bool,
        Option(
            " /--no-read-back",
            show_default=False,
            help="Do not decode and compare what was written; saves time on large pictures.",
        ),
    ] = True
    batch_size: Annotated[int | None, Option(metavar="N", min=1, help="Results computed together.")] = None
    max_memory: Annotated[
        str | None, Option(metavar="SIZE", help="Limit for weights and activations, such as 4GB.")
    ] = None
    device: Device = None
    precision: Precision = "float32"
    threads: Threads = None
    quiet: Quiet = False
    resume: Annotated[
        bool, Option("--resume", help="Go on with this very run, which was interrupted: draw what is missing.")
    ] = False
    as_json: Annotated[bool, Option("--json", help="Print run.json instead of the file names.")] = False

    def __post_init__(self) -> None:
        if not self.out.is_dir() and self.out.suffix.lower() in (*PICTURE_SUFFIXES, ".npy"):
            raise UsageError(f"-o takes a folder, and {self.out} looks like a file; leave the suffix out.")
        if self.resume and self.overwrite:
            raise UsageError("--resume keeps what is finished and --overwrite replaces it; leave one of them out.")
        if self.negative_prompt is not None and self.guidance_scale == 1:
            raise UsageError("--negative-prompt has weight only with guidance; add --guidance 5, for example.")


@dataclass(frozen=True)
class JobOptions(PlanOptions):
    """Options of the commands that run one plan."""

    yes: Annotated[bool, Option("--yes", help="Start even what takes longer than an hour.")] = False


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder, by name.

    Raises:
        UsageError: there is none.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not files:
        raise UsageError(f"there is no picture in {folder}; give files, or a folder of PNG or JPEG files.")
    return files


def plan_arguments(options: PlanOptions, own: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of a plan, and settings of its method.

    Raises:
        UsageError: a setting has the name of an argument.
    """
    names = [one.name for one in fields(PlanOptions) if one.name not in _OWN]
    arguments = own | {name: getattr(options, name) for name in names}
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
    from priorpaint.inpainting.result import Output, suffix_for

    from .progress import Display
    from .stopping import signals as taken_signals

    early = format or ("same" if image.suffix.lower() in _DEEP_SUFFIXES else "png")
    if options.resume:
        Output(out, image.stem).check_resumable()
    elif early.lower() != "same":  # all but that is told before a prior is loaded, which may take long
        Output(out, image.stem, suffix_for(early)).check(samples, overwrite=overwrite)
    ready = plan(**arguments, **settings)
    output = Output(out, image.stem, suffix_for(format, ready.picture), options.read_back)
    with ExitStack() as stack:
        signals = stack.enter_context(taken_signals())
        if options.resume:
            record, finished = stack.enter_context(output.resumed(samples, ready.info, ready.looks, ready.known))
        else:
            reserved = output.reserved(samples, ready.info, overwrite=overwrite, picture=ready.looks)
            record, finished = stack.enter_context(reserved), []
        display = stack.enter_context(Display(samples, quiet=options.quiet))
        _Run(ready, output, record, signals, display, options)(finished)


@dataclass(frozen=True)
class _Run:
    """A plan on its way into files."""

    plan: Plan
    output: Output
    record: Record
    signals: Signals
    display: Display
    options: JobOptions

    def __call__(self, finished: list[Image]) -> None:
        """Draw what is missing behind the completions that are finished."""
        from priorpaint.inpainting.plans import Stopped

        if self.record.complete:
            self._show(self.output.files(len(finished)))
            return
        self._tell()
        self._plan(len(finished))
        try:
            result = self.plan.run(self._on_event, self.signals, finished)
        except Stopped as stopped:
            self._say_count("Stopped")
            if stopped.result is not None:
                self._finish(stopped.result)
            raise typer.Exit(self.signals.exit_code) from None
        except PriorpaintError as error:
            if self.record.finished:
                self._say_count("Failed")
            # Where a completion could not be written, the summary cannot be either.
            if error.result is not None and self.record.finished == len(error.result.images):
                self._finish(error.result)
            raise
        self._finish(result)

    def _tell(self) -> None:
        """What the user should hear before the work, such as of a mask that is the wrong way round."""
        from priorpaint.imaging import lossy

        if self.plan.known.any() and lossy(self.output.completion(0)):
            self.display.say("Note: JPEG cannot keep the known pixels bit-identical; --format png does.")
        for sentence in self.record.told:
            self.display.say(f"Note: {sentence}")
        for warning in self.plan.warnings:
            self.display.say(f"Warning: {warning}")

    def _plan(self, finished: int) -> None:
        """Say what the work takes.

        Raises:
            UsageError: more than an hour, and nobody said yes.
        """
        from .progress import duration

        samples = len(self.plan.seeds)
        left, yes, quiet = samples - finished, self.options.yes, self.options.quiet
        if not left or (yes and quiet):
            return
        memory, disk = show_bytes(self.plan.memory()), show_bytes(self.plan.disk())
        writing = left * _WRITING[0] + self.plan.disk() * _WRITING[1]
        seconds = self.plan.seconds() * left / samples + writing
        some = f"{left} of {samples} samples" if finished else f"{samples} sample{'s' * (samples > 1)}"
        needs = f"{some}, about {duration(seconds)}, {memory} of memory, at most {disk} on disk"
        if seconds > _LONG_SECONDS and not yes:
            raise UsageError(
                f"this run is long: {needs}; add --yes to start it, or take fewer samples (-n), fewer steps (--set "
                "steps=N) or a smaller hole."
            )
        if not quiet:
            self.display.say(f"Plan: {needs}.")
        self.display.finished = finished

    def _on_event(self, event: Event) -> None:
        from priorpaint.inpainting.events import Completion, Step

        if isinstance(event, Step):
            self.display.step(event.done / event.total, event.seconds_left)
        elif isinstance(event, Completion):
            self.output.write_completion(event.index, event.image, self.plan.picture)
            self.record.sample()
            self.display.sample()

    def _say_count(self, word: str) -> None:
        count = self.record.finished
        where = f" and in {self.output.folder}." if count else "."
        self.display.say(f"{word}: {count} of {len(self.plan.seeds)} completions are finished{where}")

    def _finish(self, result: Result) -> None:
        """Write the summary, and again what somebody removed meanwhile; say on stdout what there is."""
        files = self.output.files(len(result.images))[: len(result.images)]
        for index, file in enumerate(files):
            if not file.exists():
                self.output.write_completion(index, result.images[index], self.plan.picture)
        self._show(files + self.output.write_summary(result, self.record))

    def _show(self, files: list[Path]) -> None:
        if self.options.as_json:
            print(self.record.text().rstrip())
        else:
            echo_files(files)
