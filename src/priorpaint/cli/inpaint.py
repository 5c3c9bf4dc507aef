"""``priorpaint inpaint``: the main job. What it runs is imported once the options are read, for quick answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from priorpaint.errors import PriorpaintError, UsageError

from .options import Threads

if TYPE_CHECKING:
    from priorpaint.inpainting.api import Plan
    from priorpaint.inpainting.events import Event
    from priorpaint.inpainting.result import Output, Result

_PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")


def inpaint(
    image: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture: PNG, JPEG, WebP, TIFF or BMP.")],
    mask: Annotated[
        Path | None, typer.Argument(metavar="[MASK]", help="The mask, of the same size: white = repaint.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the results.")] = Path("out"),
    samples: Annotated[int, typer.Option("-n", "--samples", metavar="N", min=1, help="How many completions.")] = 4,
    seed: Annotated[int, typer.Option(metavar="N", help="Same seed, same completions.")] = 0,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="See `priorpaint methods`; default: ddnm.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; repeatable.")
    ] = None,
    prior: Annotated[str, typer.Option(metavar="NAME|PATH", help="See `priorpaint priors`; or a path.")] = "photos",
    label: Annotated[
        int | None, typer.Option(metavar="CLASS", help="Class of the picture, for priors that know classes.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the picture shows, for priors that take text.")
    ] = None,
    negative_prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What to avoid.")] = None,
    guidance: Annotated[
        float,
        typer.Option(
            metavar="WEIGHT", help="Weight of label or prompt (classifier-free guidance); 1 = the plain condition."
        ),
    ] = 1.0,
    fit: Annotated[
        str, typer.Option(metavar="windows|resize", help="How a prior of a fixed size sees other pictures.")
    ] = "windows",
    prior_flags: Annotated[
        str | None,
        typer.Option("--flags", metavar="FLAGS", help="What the prior's format cannot say, as in the model's README."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing; hub models come from the cache.")] = False,
    box: Annotated[
        list[str] | None, typer.Option("--box", metavar="X,Y,W,H", help="Repaint this box (pixels); repeatable.")
    ] = None,
    mask_means: Annotated[str, typer.Option(metavar="repaint|keep", help="What white means in the mask.")] = "repaint",
    mask_from_alpha: Annotated[bool, typer.Option("--mask-from-alpha", help="Repaint what is transparent.")] = False,
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="png, jpg, webp (lossless), tiff, or same (as the picture).")
    ] = "png",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist already.")] = False,
    batch_size: Annotated[int | None, typer.Option(metavar="N", min=1, help="Completions computed together.")] = None,
    max_memory: Annotated[
        str | None, typer.Option("--max-memory", metavar="SIZE", help="Limit for weights and activations, such as 4GB.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="cpu or cuda; default: the GPU where there is one.")
    ] = None,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json instead of the file names.")] = False,
) -> None:
    """Fill in a part of a picture, several times, and write the results into a folder.

    The results are STEM_0.png, STEM_1.png, ... (the completions), STEM_mean.png, STEM_uncertainty.png and .npy,
    STEM_sheet.png (everything at a glance) and run.json (all that reproduces them), STEM being the picture's name.
    In a folder that holds another picture's run.json, it is STEM_run.json.
    """
    _check(mask=mask, out=out, box=box, alpha=mask_from_alpha, means=mask_means)
    if negative_prompt is not None and guidance == 1:
        raise UsageError("--negative-prompt has weight only with guidance; add --guidance 5, for example.")
    from priorpaint.imaging import parse_box, read_picture
    from priorpaint.inpainting.api import plan
    from priorpaint.inpainting.method import choose_solver
    from priorpaint.inpainting.result import Output, stem_of, suffix_for

    boxes = [parse_box(text) for text in box or ()]
    params = dict(_setting(text) for text in settings or ())
    choose_solver(method, params)  # a wrong setting is told before the picture is read
    _use_threads(threads)
    picture = read_picture(image)
    output = Output(out, stem_of(image), suffix_for(picture, format))
    output.check(picture, samples, overwrite=overwrite)
    ready = plan(
        picture,
        "alpha" if mask_from_alpha else mask,
        prior,
        method,
        samples,
        seed,
        boxes=boxes,
        mask_means=mask_means,
        batch_size=batch_size,
        device=device,
        label=label,
        prompt=prompt,
        negative_prompt=negative_prompt,
        guidance_scale=guidance,
        max_memory=max_memory,
        fit=fit,
        prior_flags=prior_flags,
        offline=offline,
        **params,
    )
    _run(ready, output, quiet=quiet, as_json=as_json)


def _check(*, mask: Path | None, out: Path, box: list[str] | None, alpha: bool, means: str) -> None:
    """Options that contradict each other.

    Raises:
        UsageError: they do.
    """
    if alpha and mask is not None:
        raise UsageError("--mask-from-alpha takes the place of a mask file; leave one of them out.")
    if not out.is_dir() and out.suffix.lower() in _PICTURE_SUFFIXES:
        raise UsageError(f"-o takes a folder, and {out} looks like a file; leave the suffix out.")
    if mask is None and not alpha and not box:
        raise UsageError("there is nothing to repaint; give a mask file, --box X,Y,W,H or --mask-from-alpha.")
    if mask is None and means != "repaint":
        raise UsageError("--mask-means is about a mask file; boxes and transparent pixels are always repainted.")


def _run(ready: Plan, output: Output, *, quiet: bool, as_json: bool) -> None:
    """Run a plan with progress on stderr; completions become files as they are finished."""
    from priorpaint.imaging import lossy
    from priorpaint.inpainting.api import Stopped
    from priorpaint.inpainting.events import Completion, Step

    from .progress import Display
    from .stopping import signals as taken_signals

    samples, written = len(ready.seeds), 0
    with taken_signals() as signals, Display(samples, quiet=quiet) as display:
        if lossy(output.completion(0)):
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
            kept = 0 if stopped.result is None else len(stopped.result.images)
            folder = f" and in {output.folder}." if kept else "."
            display.say(f"Stopped: {kept} of {samples} completions are finished{folder}")
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
    if as_json:
        print(files[-1].read_text(encoding="utf-8"), end="")
        return
    print("\n".join(map(str, files)))


def _setting(text: str) -> tuple[str, Any]:
    """KEY=VALUE; the method checks the key and converts the value."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise UsageError(f"--set takes KEY=VALUE, such as steps=50, not {text!r}.")
    return key.strip(), None if value.strip().lower() == "none" else value.strip()


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
