"""``priorpaint adapt``: a prior that has learned a picture, or the pictures of a folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from priorpaint.errors import Cancelled, UsageError
from priorpaint.training.defaults import CROPS

from .options import Device, MaskOptions, PriorSpec, Quiet, Threads, use_threads, with_options
from .running import PICTURE_SUFFIXES, PageOption, RangeOption, pictures_in
from .terminal import echo, echo_files

if TYPE_CHECKING:
    from priorpaint.inpainting.adapting import KnownPart
    from priorpaint.priors.native.prior import LoadedPrior

RECORD = "adapted.json"

Source = Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture, or a folder of similar ones.")]
MaskFile = Annotated[
    Path | None,
    typer.Argument(metavar="MASK", help="Its mask: white = hidden; or a folder of NAME.png or NAME_mask.png."),
]
Out = Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="Folder for the prior.")]


@with_options(MaskOptions)
def adapt(
    masking: MaskOptions,
    picture: Source,
    mask: MaskFile = None,
    out: Out = Path("prior"),
    prior: PriorSpec = "photos",
    crops: Annotated[
        int | None, Option(metavar="N", min=1, help=f"Crops of 64x64 pixels to learn; default: {CROPS}.")
    ] = None,
    seed: Annotated[int, Option(metavar="N", min=0, help="Of crops and noise.")] = 0,
    value_range: RangeOption = "auto",
    page: PageOption = None,
    device: Device = None,
    threads: Threads = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace a prior that is there already.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a prior a while longer on the known part of a picture, so that it can continue what is in it.

    The results are weights.safetensors, the prior, and adapted.json, which says of what it was made. Use it with:
    priorpaint inpaint PICTURE MASK --prior FOLDER. What is hidden has no influence. Without a mask, or other options
    that say what is hidden, whole pictures are learned.
    """
    from priorpaint.imaging import check_results
    from priorpaint.inpainting.adapting import known_part
    from priorpaint.priors.loading import load_prior
    from priorpaint.training.adaptation import Learned, learnable, save_adapted
    from priorpaint.training.adaptation import adapt as learn
    from priorpaint.training.tasks import WEIGHTS

    from .progress import AdaptingDisplay
    from .stopping import signals

    jobs = _jobs(picture, mask)
    check_results(out, [out / WEIGHTS, out / RECORD], overwrite=overwrite)
    use_threads(threads)
    base = learnable(load_prior(prior, device=device))
    parts: dict[Path, KnownPart] = {}
    for file, own in jobs.items():
        hidden: dict[str, Any] = {"mask": None} if own is None and masking == MaskOptions() else masking.arguments(own)
        parts[file] = known_part(file, channels=base.image_shape[0], value_range=value_range, page=page, **hidden)
        for warning in parts[file].warnings:
            echo(f"Warning: {warning}", err=True)
    begun = time.monotonic()
    with signals() as cancel, AdaptingDisplay(quiet=quiet) as display:

        def show(learned: Learned) -> None:
            display(learned.crops, learned.total, learned.seconds_left)

        values, known = [part.values for part in parts.values()], [part.known for part in parts.values()]
        try:
            own_prior = learn(base, values, known, crops=crops or CROPS, seed=seed, cancel=cancel, on_progress=show)
        except Cancelled:
            display.stopped()
            raise typer.Exit(cancel.exit_code) from None
        weights = save_adapted(own_prior, out)
    _record(out / RECORD, own_prior, jobs, time.monotonic() - begun)
    echo_files([weights, out / RECORD])
    if not quiet:
        echo(f"Use it with: priorpaint inpaint PICTURE MASK --prior {out}", err=True)


def _record(path: Path, prior: LoadedPrior, jobs: dict[Path, Path | None], seconds: float) -> None:
    """Write what the prior was made of."""
    import torch

    from priorpaint import __version__
    from priorpaint.imaging import write_text_atomic
    from priorpaint.training.adaptation import facts_in

    about = {
        "sha256": prior.hash,
        **(facts_in(prior) or {}),
        "pictures": [str(file) for file in jobs],
        "masks": [None if mask is None else str(mask) for mask in jobs.values()],
        "seconds": round(seconds, 1),
        "threads": torch.get_num_threads(),
        "versions": {"priorpaint": __version__, "torch": torch.__version__},
    }
    write_text_atomic(path, json.dumps(about, indent=2) + "\n")


def _jobs(picture: Path, mask: Path | None) -> dict[Path, Path | None]:
    """Pictures with their masks.

    Raises:
        UsageError: there is no picture, or no mask for one.
    """
    if not picture.is_dir():
        if mask is not None and mask.is_dir():
            raise UsageError(f"{mask} is a folder, and {picture} is one picture; name its mask.")
        return {picture: mask}
    files = pictures_in(picture)
    if mask is None or not mask.is_dir():
        return dict.fromkeys(files, mask)
    return {file: _mask_of(file, mask) for file in files}


def _mask_of(file: Path, folder: Path) -> Path:
    """The mask of a picture in a folder of masks."""
    names = {f"{file.stem}{suffix}" for suffix in PICTURE_SUFFIXES}
    names |= {f"{file.stem}_mask{suffix}" for suffix in PICTURE_SUFFIXES}
    found = sorted(path for path in folder.iterdir() if path.name in names)
    if len(found) != 1:
        there = "no mask" if not found else f"more than one mask ({', '.join(path.name for path in found)})"
        raise UsageError(f"there is {there} for {file.name} in {folder}; call it {file.stem}.png.")
    return found[0]
