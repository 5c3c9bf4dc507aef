"""A plan that the command line runs: progress on stderr, results into files as they are finished, names on stdout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from priorpaint.errors import PriorpaintError, UsageError

if TYPE_CHECKING:
    from priorpaint.inpainting.api import Plan
    from priorpaint.inpainting.events import Event
    from priorpaint.inpainting.result import Output, Result

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def check_options(out: Path, negative_prompt: str | None, guidance: float) -> None:
    """Options of all such commands that cannot be meant.

    Raises:
        UsageError: there are some.
    """
    if not out.is_dir() and out.suffix.lower() in PICTURE_SUFFIXES:
        raise UsageError(f"-o takes a folder, and {out} looks like a file; leave the suffix out.")
    if negative_prompt is not None and guidance == 1:
        raise UsageError("--negative-prompt has weight only with guidance; add --guidance 5, for example.")


def run(
    plan: Callable[[], Plan],
    image: Path,
    samples: int,
    out: Path,
    format: str,
    *,
    overwrite: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Make a plan for the picture in a file and run it.

    Raises:
        UsageError: the results cannot be written where they should, which is told before any work.
        Exit: it was stopped; what is finished is kept.
    """
    from priorpaint.imaging import lossy
    from priorpaint.inpainting.api import Stopped
    from priorpaint.inpainting.events import Completion, Step
    from priorpaint.inpainting.result import Output, suffix_for

    from .progress import Display
    from .stopping import signals as taken_signals

    if format.lower() != "same":  # all but that is told before a prior is loaded, which may take long
        Output(out, image.stem, suffix_for(format)).check_files(samples, overwrite=overwrite)
    ready, written = plan(), 0
    output = Output(out, image.stem, suffix_for(format, ready.picture))
    output.check(ready.picture, samples, overwrite=overwrite)
    with taken_signals() as signals, Display(samples, quiet=quiet) as display:
        if ready.known.any() and lossy(output.completion(0)):
            display.say("Note: JPEG cannot keep the known pixels bit-identical; --format png does.")
        for warning in ready.warnings:  # before the work: a mask that is the wrong way round is seen at once
            display.say(f"Warning: {warning}")

        def on_event(event: Event) -> None:
            nonlocal written
            if isinstance(event, Step):
                display.step(event.done / event.total)
            elif isinstance(event, Completion):
                output.make_folder()
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
                _finish(output, stopped.result, as_json=as_json)
            raise typer.Exit(signals.exit_code) from None
        except PriorpaintError as error:
            # Where a completion could not be written, the summary cannot be either.
            if error.result is not None and written == len(error.result.images):
                display.say(f"Failed: {written} of {samples} completions are finished and in {output.folder}.")
                _finish(output, error.result, as_json=as_json)
            raise
        _finish(output, result, as_json=as_json)


def _finish(output: Output, result: Result, *, as_json: bool) -> None:
    """Write the summary and say on stdout what there is."""
    output.write_summary(result)
    files = output.files(len(result.images))
    print(files[-1].read_text(encoding="utf-8").rstrip() if as_json else "\n".join(map(str, files)))
