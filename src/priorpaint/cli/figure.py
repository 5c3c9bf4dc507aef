"""``priorpaint figure``: figures of papers, on any prior, picture and mask."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from priorpaint.errors import UsageError

from .options import Quiet, Threads, read_settings, use_threads
from .terminal import echo_files


def figure(
    name: Annotated[str | None, typer.Argument(metavar="FIGURE", help="Its name; --list shows them.")] = None,
    pictures: Annotated[list[Path] | None, typer.Argument(metavar="PICTURES", help="Picture files.")] = None,
    mask: Annotated[
        list[str] | None,
        Option(metavar="KIND|FILE", help="A kind of `priorpaint masks`, or a mask file; one for all or one a picture."),
    ] = None,
    mask_seed: Annotated[int, Option(min=0, metavar="N", help="Seed of masks of a kind.")] = 0,
    prior: Annotated[str, Option(metavar="NAME|PATH", help="See `priorpaint priors`; or a path.")] = "photos",
    size: Annotated[
        int | None, Option(min=16, metavar="SIDE", help="Square that pictures become, for a prior of any size.")
    ] = None,
    samples: Annotated[int | None, Option("-n", "--samples", min=1, metavar="N", help="Of each picture.")] = None,
    seed: Annotated[int, Option(metavar="N", help="Same seed, same figure.")] = 0,
    iterations: Annotated[int | None, Option(min=1, metavar="N", help="Of VIPaint's fit; few are quick.")] = None,
    steps: Annotated[
        int | None, Option(min=1, metavar="N", help="Of VIPaint's phase 2 and of RED-diff; few are quick.")
    ] = None,
    levels: Annotated[
        list[int] | None, Option(min=1, metavar="K", help="Of VIPaint; for vipaint-convergence repeatable.")
    ] = None,
    every: Annotated[
        int | None, Option(min=1, metavar="N", help="Iterations between two drawings; default: a fifth of all.")
    ] = None,
    label: Annotated[list[int] | None, Option(metavar="CLASS", help="For classes; repeatable; default: four.")] = None,
    guidance: Annotated[float, Option(metavar="WEIGHT", help="Of the class (classifier-free guidance).")] = 1.0,
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="A setting of VIPaint; repeatable.")
    ] = None,
    lpips: Annotated[
        Path | None, Option(metavar="WEIGHTS", help="vipaint-convergence: LPIPS in place of the error.")
    ] = None,
    out: Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="Folder for NAME.png and NAME.json.")] = Path(
        "figures"
    ),
    overwrite: Annotated[bool, Option("--overwrite", help="Replace results that already exist.")] = False,
    device: Annotated[str | None, Option(metavar="DEVICE", help="cpu or cuda; default: the GPU if any.")] = None,
    threads: Threads = None,
    listing: Annotated[bool, Option("--list", help="List the figures and exit.")] = False,
    quiet: Quiet = False,
) -> None:
    """Draw a figure of the VIPaint paper with your prior, your pictures and your masks.

    FOLDER/FIGURE.png is the figure; FOLDER/FIGURE.json has its numbers and all that repeats it.
    """
    from priorpaint.imaging import check_results, save_picture, write_text_atomic
    from priorpaint.imaging.writing import make_folder
    from priorpaint.lab.figures import FIGURES, Request, read_examples
    from priorpaint.lab.figures.base import Settings
    from priorpaint.lab.figures.examples import check_masks
    from priorpaint.lab.theory.figure import require_matplotlib
    from priorpaint.metrics import LPIPS
    from priorpaint.priors.loading import load_prior

    from .progress import CellDisplay

    if listing:
        width = max(map(len, FIGURES))
        typer.echo("\n".join(f"{one.name:<{width}}  {one.about} ({one.source})" for one in FIGURES.values()))
        return
    if name not in FIGURES:
        said = "name a figure" if name is None else f"{name!r} is not a figure"
        raise UsageError(f"{said}; the figures are {', '.join(FIGURES)} (--list).")
    wanted = FIGURES[name]
    chosen = Settings(
        samples, seed, iterations, steps, tuple(levels or ()), every, tuple(label or ()), guidance,
        read_settings(settings),
    )  # fmt: skip
    wanted.check(chosen)
    pairs = check_masks(pictures or [], mask or ["rotated"])
    picture, numbers = out / f"{name}.png", out / f"{name}.json"
    check_results(out, [picture, numbers], overwrite=overwrite)
    if wanted.plots:
        require_matplotlib()
    elif lpips is not None:
        raise UsageError(f"the figure {name} measures no LPIPS; leave --lpips out.")
    use_threads(threads)
    distance = None if lpips is None else LPIPS(lpips)
    loaded = load_prior(prior, device=device)
    examples = read_examples(pairs, loaded, size=size, mask_seed=mask_seed)
    make_folder(out)  # before the work, which would be lost without it
    begun, nfe = time.monotonic(), loaded.nfe.copy()
    with CellDisplay(quiet=quiet) as display:
        drawn = wanted.draw(Request(loaded, examples, chosen, distance, display.advance))
    spent = loaded.nfe - nfe
    about = {
        "figure": name,
        "source": wanted.source,
        "prior": {"name": loaded.name, "sha256": loaded.hash},
        "pictures": [{"name": file.name, "mask": Path(kind).name} for file, kind in pairs],
        "hidden": [round(1 - float(known.mean()), 6) for known in examples.known],
        "mask_seed": mask_seed,
        "size": list(examples.x.shape[-2:]),
        "settings": asdict(chosen),
        "nfe": asdict(spent),
        "seconds": round(time.monotonic() - begun, 2),
    }
    save_picture(drawn.image, picture)
    write_text_atomic(numbers, json.dumps({**about, **drawn.numbers}, indent=1) + "\n")
    echo_files([picture, numbers])
