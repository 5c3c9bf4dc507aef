"""``priorpaint inpaint``: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from torch import Tensor

from priorpaint.errors import PriorpaintError, UsageError
from priorpaint.imaging import lossy, parse_box, read_picture
from priorpaint.imaging.writing import FORMATS
from priorpaint.inpainting.api import Stopped, choose_solver
from priorpaint.inpainting.api import inpaint as run_inpaint
from priorpaint.inpainting.inputs import hole_of
from priorpaint.inpainting.result import (
    Output,
    Result,
    stem_of,
    suffix_for,
)

from .options import Threads
from .progress import Display
from .stopping import signals as taken_signals


def inpaint(
    image: Annotated[Path, typer.Argument(help="The picture: PNG, JPEG, WebP, TIFF or BMP.")],
    mask: Annotated[Path | None, typer.Argument(help="The mask, of the same size: white = repaint.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")] = Path("out"),
    samples: Annotated[int, typer.Option("-n", "--samples", min=1, help="How many completions.")] = 4,
    seed: Annotated[int, typer.Option(help="Same seed, same completions.")] = 0,
    method: Annotated[str | None, typer.Option(help="See `priorpaint methods`; default: ddnm.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; repeatable.")
    ] = None,
    prior: Annotated[str, typer.Option(help="See `priorpaint priors`; or a path.")] = "photos",
    label: Annotated[int | None, typer.Option(help="Class of the picture, for priors that know classes.")] = None,
    prompt: Annotated[str | None, typer.Option(help="What the picture shows, for priors that take text.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What it shall not show.")] = None,
    guidance: Annotated[
        float, typer.Option(help="Weight of label or prompt (classifier-free guidance); 1 = the plain condition.")
    ] = 1.0,
    fit: Annotated[
        str, typer.Option(help="How a prior of a fixed size sees other pictures: windows or resize.")
    ] = "windows",
    prior_flags: Annotated[
        str | None, typer.Option("--flags", help="What the prior's format cannot say, as in the model's README.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Fetch nothing; hub models come from the cache.")] = False,
    box: Annotated[
        list[str] | None, typer.Option("--box", metavar="X,Y,W,H", help="Repaint this box (pixels); repeatable.")
    ] = None,
    mask_means: Annotated[str, typer.Option(help="What white means in the mask: repaint or keep.")] = "repaint",
    mask_from_alpha: Annotated[bool, typer.Option("--mask-from-alpha", help="Repaint what is transparent.")] = False,
    format: Annotated[str, typer.Option(help="png, jpg, webp (lossless), tiff, or same (as the picture).")] = "png",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace results that exist already.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Completions computed together.")] = None,
    max_memory: Annotated[
        str | None, typer.Option("--max-memory", help="Limit for weights and activations, such as 4GB.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; default: the GPU where there is one.")] = None,
    threads: Threads = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show no progress.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json instead of the file names.")] = False,
) -> None:
    """Fill in a part of a picture, several times, and write the results into a folder.

    The results are STEM_0.png, STEM_1.png, ... (the completions), STEM_mean.png, STEM_uncertainty.png and .npy,
    STEM_sheet.png (everything at a glance) and run.json (all that reproduces them), STEM being the picture's name.
    In a folder that holds another picture's run.json, it is STEM_run.json.
    """
    if mask_from_alpha and mask is not None:
        raise UsageError("--mask-from-alpha takes the place of a mask file; leave one of them out.")
    if not out.is_dir() and out.suffix.lower() in FORMATS:
        raise UsageError(f"-o takes a folder, and {out} looks like a file; leave the suffix out.")
    if mask is None and not mask_from_alpha and not box:
        raise UsageError("there is nothing to repaint; give a mask file, --box X,Y,W,H or --mask-from-alpha.")
    if mask is None and mask_means != "repaint":
        raise UsageError("--mask-means is about a mask file; boxes and transparent pixels are always repainted.")
    if negative_prompt is not None and guidance == 1:
        raise UsageError("--negative-prompt has weight only with guidance; add --guidance 5, for example.")
    boxes = [parse_box(text) for text in box or ()]
    params = dict(_setting(text) for text in settings or ())
    choose_solver(method, params)  # a wrong setting is told before the picture is read
    _use_threads(threads)
    picture = read_picture(image)
    output = Output(out, stem_of(image), suffix_for(picture, format))
    output.check(picture, samples, overwrite=overwrite)
    hole = hole_of(picture, "alpha" if mask_from_alpha else mask, boxes, mask_means)
    with taken_signals() as signals, Display(samples, quiet=quiet) as display:
        if lossy(output.completion(0)):
            display.say("Note: JPEG cannot keep the known pixels bit-identical; --format png does.")

        for warning in hole.warnings:  # before the work: a mask that is the wrong way round is seen at once
            display.say(f"Warning: {warning}")

        def callback(step: int, total: int, _: Tensor) -> None:
            display.step(step / total)
            signals.check()

        written = 0

        def keep(number: int, completion: Image.Image) -> None:
            nonlocal written
            output.make_folder()
            output.write_completion(number, completion, picture)
            written = number + 1
            display.sample()

        try:
            result = run_inpaint(
                picture,
                "alpha" if mask_from_alpha else mask,
                prior,
                method,
                samples,
                seed,
                boxes=boxes,
                mask_means=mask_means,
                batch_size=batch_size,
                callback=callback,
                on_sample=keep,
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
        except Stopped as stopped:
            kept = 0 if stopped.result is None else len(stopped.result.images)
            display.say(f"Stopped: {kept} of {samples} completions are finished" + (f" and in {out}." if kept else "."))
            if stopped.result is not None:
                _finish(output, stopped.result, as_json=as_json)
            raise typer.Exit(128 + signals.received) from None
        except PriorpaintError as error:
            # Where a completion could not be written, the summary cannot be either.
            if error.result is not None and written == len(error.result.images):
                display.say(f"Failed: {len(error.result.images)} of {samples} completions are finished and in {out}.")
                _finish(output, error.result, as_json=as_json)
            raise
        for warning in (each for each in result.warnings if each not in hole.warnings):
            display.say(f"Warning: {warning}")
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
