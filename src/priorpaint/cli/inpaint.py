"""``priorpaint inpaint``: the main job. What it runs is imported once the options are read, for quick answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from .options import MaskOptions, read_settings, use_threads, with_options
from .running import JobOptions, PageOption, RangeOption, plan_arguments, run
from .terminal import echo, echo_files

if TYPE_CHECKING:
    from priorpaint.inpainting.plans import Plan

Image = Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture: PNG, JPEG, WebP, TIFF, BMP or .npy.")]
MaskFile = Annotated[
    Path | None, typer.Argument(metavar="MASK", help="The mask, of the same size: white = repaint; - is stdin.")
]
Method = Annotated[str | None, Option(metavar="NAME", help="See `priorpaint methods`; default: ddnm.")]
Adapt = Annotated[bool, Option("--adapt", help="Let the prior learn the known part of the picture first.")]
AdaptCrops = Annotated[
    int | None, Option(metavar="N", min=1, help="How many crops of 64x64 pixels of it; implies --adapt.")
]
Refine = Annotated[
    list[str] | None,
    Option("--refine", metavar="KEY=VALUE", help="As --set, for thin holes and the finer scales of wide ones."),
]
Preview = Annotated[
    bool, Option("--preview", help="Only write STEM_preview.png: the hole, tinted, and what the prior would see.")
]


@with_options(JobOptions, MaskOptions)
def inpaint(
    options: JobOptions,
    masking: MaskOptions,
    image: Image,
    mask: MaskFile = None,
    method: Method = None,
    refine: Refine = None,
    adapt: Adapt = False,
    adapt_crops: AdaptCrops = None,
    preview: Preview = False,
    value_range: RangeOption = "auto",
    page: PageOption = None,
) -> None:
    """Fill in a part of a picture, several times, and write the results into a folder.

    The results are STEM_0.png, STEM_1.png, ... (the completions), STEM_mean.png, STEM_uncertainty.png and .npy,
    STEM_sheet.png (everything at a glance) and run.json (all that reproduces them), STEM being the picture's name.
    In a folder that holds another picture's run.json, it is STEM_run.json.
    """
    own = {
        "image": image,
        "method": method,
        "refine": refined(refine),
        "value_range": value_range,
        "page": page,
        **masking.arguments(mask),
    }
    from priorpaint.inpainting.api import plan

    if preview:
        show(plan, image, options, own)
    elif adapt or adapt_crops is not None:
        run(_learning(plan, options.quiet), image, options, **own, adapt=adapt_crops or True)
    else:
        run(plan, image, options, **own)


def refined(texts: list[str] | None) -> dict[str, Any] | None:
    """What --refine says; None where nothing is said.

    Raises:
        UsageError: a text that is not KEY=VALUE.
    """
    return read_settings(texts, "--refine", "steps=12") or None


def _learning(plan: Callable[..., Plan], quiet: bool) -> Callable[..., Plan]:
    """The same, with a word about the learning, which Ctrl-C stops."""
    from priorpaint.inpainting.events import Adapting, Event
    from priorpaint.inpainting.plans import Stopped

    from .progress import AdaptingDisplay
    from .stopping import signals

    def planned(**arguments: Any) -> Plan:
        with signals() as cancel, AdaptingDisplay(quiet=quiet) as display:

            def hear(event: Event) -> None:
                if not isinstance(event, Adapting):
                    return
                if event.source is None:
                    display(event.crops, event.total, event.seconds_left)
                elif not quiet:
                    display.say(f"The prior has learned this picture before: {event.source}.")

            try:
                return plan(**arguments, on_event=hear, cancel=cancel)
            except Stopped:
                display.stopped()
                raise typer.Exit(cancel.exit_code) from None

    return planned


def show(plan: Callable[..., Plan], image: Path, options: JobOptions, own: dict[str, Any]) -> None:
    """Write the preview of a plan and say what it shows.

    Raises:
        UsageError: the file exists already or cannot be written.
    """
    from priorpaint.imaging import check_results, save_picture
    from priorpaint.imaging.writing import make_folder

    file = options.out / f"{image.stem}_preview.png"
    check_results(options.out, [file], overwrite=options.overwrite)
    use_threads(options.threads)
    arguments, settings = plan_arguments(options, own)
    ready = plan(**arguments, **settings)
    make_folder(options.out)
    save_picture(ready.preview(), file)
    for warning in ready.warnings:
        echo(f"Warning: {warning}", err=True)
    echo_files([file])
    echo(ready.about_hole())
