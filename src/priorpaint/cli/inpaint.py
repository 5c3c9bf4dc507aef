"""``priorpaint inpaint``: the main job. What it runs is imported once the options are read, for quick answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from priorpaint.errors import UsageError

from .options import with_options
from .running import JobOptions, PageOption, RangeOption, run

Image = Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture: PNG, JPEG, WebP, TIFF, BMP or .npy.")]
MaskFile = Annotated[Path | None, typer.Argument(metavar="MASK", help="The mask, of the same size: white = repaint.")]
Method = Annotated[str | None, Option(metavar="NAME", help="See `priorpaint methods`; default: ddnm.")]
Boxes = Annotated[list[str] | None, Option("--box", metavar="X,Y,W,H", help="Repaint this box (pixels); repeatable.")]
MaskMeans = Annotated[str, Option(metavar="repaint|keep", help="What white means in the mask.")]
MaskFrom = Annotated[str | None, Option(metavar="nan", help="nan: repaint the values that are not numbers.")]
FromAlpha = Annotated[bool, Option("--mask-from-alpha", help="Repaint what is transparent.")]


@with_options(JobOptions)
def inpaint(
    options: JobOptions,
    image: Image,
    mask: MaskFile = None,
    method: Method = None,
    box: Boxes = None,
    mask_means: MaskMeans = "repaint",
    mask_from_alpha: FromAlpha = False,
    mask_from: MaskFrom = None,
    value_range: RangeOption = "auto",
    page: PageOption = None,
) -> None:
    """Fill in a part of a picture, several times, and write the results into a folder.

    The results are STEM_0.png, STEM_1.png, ... (the completions), STEM_mean.png, STEM_uncertainty.png and .npy,
    STEM_sheet.png (everything at a glance) and run.json (all that reproduces them), STEM being the picture's name.
    In a folder that holds another picture's run.json, it is STEM_run.json.
    """
    _check_mask(mask, box, mask_from_alpha, mask_means, mask_from)
    from priorpaint.imaging import parse_box
    from priorpaint.inpainting.api import plan

    boxes, hole = [parse_box(text) for text in box or ()], "alpha" if mask_from_alpha else mask_from or mask
    about = {"boxes": boxes, "mask_means": mask_means, "value_range": value_range, "page": page}
    run(plan, image, options, image=image, mask=hole, method=method, **about)


def _check_mask(mask: Path | None, box: list[str] | None, alpha: bool, means: str, mask_from: str | None) -> None:
    """Options about the hole that contradict each other.

    Raises:
        UsageError: they do.
    """
    if mask_from not in (None, "nan"):
        raise UsageError(f"--mask-from takes nan, not {mask_from!r}; for transparency there is --mask-from-alpha.")
    if (alpha or mask_from) and mask is not None:
        option = "--mask-from-alpha" if alpha else f"--mask-from {mask_from}"
        raise UsageError(f"{option} takes the place of a mask file; leave one of them out.")
    if alpha and mask_from:
        raise UsageError("--mask-from-alpha and --mask-from nan are two ways to say what to repaint; choose one.")
    if mask is None and not alpha and not mask_from and not box:
        raise UsageError("there is nothing to repaint; give a mask file, --box X,Y,W,H or --mask-from-alpha.")
    if mask is None and means != "repaint":
        raise UsageError("--mask-means is about a mask file; boxes and transparent pixels are always repainted.")
