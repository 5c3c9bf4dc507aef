"""``priorpaint sample``: pictures that a prior makes up, with any sampler."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from priorpaint.errors import Cancelled, UsageError

from .conditions import PriorOptions, parse_size
from .options import Precision, Quiet, Threads, read_settings, use_threads, with_options
from .terminal import echo_files

if TYPE_CHECKING:
    from torch import Tensor

    from priorpaint.diffusion.samplers import Sampler

SHEET, RUN = "sheet.png", "run.json"
_BATCH = 16
_SHEET_CELL = 96  # pixels that a small picture is enlarged to on the sheet, about


@with_options(PriorOptions)
def sample(
    prior_options: PriorOptions,
    out: Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="Folder for the results.")] = Path("samples"),
    num: Annotated[int, Option("-n", "--samples", metavar="N", min=1, max=100_000, help="How many pictures.")] = 16,
    sampler: Annotated[
        str, Option(metavar="NAME", help="ddpm, ddim, heun, sde, ode, langevin or pc; `--list` says more.")
    ] = "heun",
    steps: Annotated[int | None, Option(metavar="N", help="Steps of the sampler; default: its own.")] = None,
    variance: Annotated[str | None, Option(metavar="small|large|learned", help="ddpm: variance of a step.")] = None,
    clip: Annotated[bool, Option("--clip", help="Clip each estimate of the picture to [-1, 1].")] = False,
    settings: Annotated[
        list[str] | None, Option("--set", metavar="KEY=VALUE", help="Another setting of the sampler; repeatable.")
    ] = None,
    size: Annotated[
        str | None, Option(metavar="WIDTHxHEIGHT", help="Size in pixels, for priors that know pictures of any size.")
    ] = None,
    seed: Annotated[int, Option(metavar="N", help="Same seed, same pictures.")] = 0,
    batch_size: Annotated[int, Option(metavar="N", min=1, help="Pictures computed together.")] = _BATCH,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace results that exist already.")] = False,
    listing: Annotated[bool, Option("--list", help="List the samplers with their settings, and do nothing.")] = False,
    precision: Precision = "float32",
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, Option("--json", help="Print run.json instead of the file names.")] = False,
) -> None:
    """Let a prior make up pictures, and write them into a folder.

    The results are sample_0.png, sample_1.png, ... (the pictures), sheet.png (all of them) and run.json (all that
    reproduces them, and what they cost). Ctrl-C keeps the batches that are finished.
    """
    if listing:
        _list()
        return
    use_threads(threads)
    from priorpaint.inpainting.forecast import Forecast

    from .progress import Display
    from .stopping import signals

    asked: dict[str, Any] = {"steps": steps, "variance": variance, "clip": clip or None}
    walk = _sampler(sampler, {key: value for key, value in asked.items() if value is not None}, settings)
    sides, names = parse_size(size), [f"sample_{i}.png" for i in range(num)]
    _check(out, [*names, SHEET, RUN], overwrite)
    prior = prior_options.load(precision)
    walk.check(latent=prior.latent, learned_variance=prior.learned_variance)
    prior.check_size(*_sides(prior.image_shape, sides))
    made: list[Any] = []
    begun, before, forecast = time.monotonic(), prior.nfe.copy(), Forecast({"": num})
    with signals() as cancel, Display(num, quiet=quiet, what="pictures") as display:

        def on_step(step: int, total: int, x_0: Tensor) -> None:
            forecast.step("", len(x_0) / total)
            display.step(forecast.share, forecast.seconds_left())
            cancel.check()

        try:
            while len(made) < num:
                rows = min(batch_size, num - len(made))
                part = prior.sample(rows, seed=seed, sampler=walk, size=sides, first=len(made), callback=on_step).cpu()
                made += _written(out, part, names[len(made) :])
                display.sample(rows)
        except Cancelled:
            display.say(f"Stopped: {len(made)} of {num} pictures are finished{f' and in {out}.' if made else '.'}")
    run = {
        **prior_options.facts(prior),
        "precision": precision,
        "sampler": {"name": sampler, **_plain(walk)},
        "seed": seed,
        "num": len(made),
        "size": None if sides is None else list(sides),
        "nfe": (prior.nfe - before).forward,
        "nfe_of_a_sample": walk.evaluations + 1,  # and the one for where it begins
        "seconds": round(time.monotonic() - begun, 3),
    }
    if made:
        _finish(out, made, names, run, as_json=as_json)
    if cancel.cancelled:
        raise typer.Exit(cancel.exit_code)


def _sampler(name: str, asked: dict[str, Any], texts: list[str] | None) -> Sampler:
    from priorpaint.diffusion.samplers import sampler

    more = read_settings(texts)
    twice = asked.keys() & more.keys()
    if twice:
        raise UsageError(f"{', '.join(sorted(twice))} is given as an option and with --set; leave one of them out.")
    return sampler(name, **asked, **more)


def _sides(shape: tuple[int, int | None, int | None], size: tuple[int, int] | None) -> tuple[int, int]:
    height, width = size or shape[1:]
    if height is None or width is None:
        raise UsageError("this prior knows pictures of any size; say which with --size, such as --size 64.")
    return height, width


def _check(out: Path, names: list[str], overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"-o takes a folder, and {out} is a file.")
    there = [name for name in names if (out / name).exists()]
    if there and not overwrite:
        raise UsageError(f"{there[0]} already exists in {out}; use --overwrite or another folder.")


def _written(out: Path, part: Tensor, names: list[str]) -> list[Any]:
    """Pictures (N, C, H, W) as files; returned as bytes (H, W, 3)."""
    from PIL import Image

    from priorpaint.imaging import save_picture
    from priorpaint.imaging.grids import to_pixels

    out.mkdir(parents=True, exist_ok=True)
    pictures, grey = list(to_pixels(part)), part.shape[1] == 1
    for picture, name in zip(pictures, names, strict=False):
        save_picture(Image.fromarray(picture[..., 0] if grey else picture), out / name)
    return pictures


def _finish(out: Path, made: list[Any], names: list[str], run: dict[str, Any], *, as_json: bool) -> None:
    """Sheet and run.json, and what is said on stdout."""
    import numpy as np

    from priorpaint.imaging import save_picture, write_text_atomic
    from priorpaint.imaging.grids import picture_grid

    scale = max(1, _SHEET_CELL // max(made[0].shape[:2]))
    columns = math.ceil(math.sqrt(len(made)))
    save_picture(picture_grid(np.stack(made), columns, gap=2 * scale, border=2 * scale, scale=scale), out / SHEET)
    text = json.dumps(run, indent=2)
    write_text_atomic(out / RUN, text + "\n")
    files = [out / name for name in (*names[: len(made)], SHEET, RUN)]
    if as_json:
        print(text)
    else:
        echo_files(files)


def _plain(walk: Sampler) -> dict[str, Any]:
    """The settings in JSON values; infinity as the text that `sampler` reads."""
    values = asdict(walk)
    return {key: str(value) if value == math.inf else value for key, value in values.items()}


def _list() -> None:
    from priorpaint.diffusion.samplers import SAMPLERS, explain

    for name, cls in SAMPLERS.items():
        typer.echo(f"{name}: {cls.title}")
        typer.echo(f"  network evaluations of a sample: {cls.cost_formula}, and 1 for where it begins")
        for key, (default, meaning) in explain(cls).items():
            typer.echo(f"  {key} = {'none' if default is None else default}: {meaning}")
