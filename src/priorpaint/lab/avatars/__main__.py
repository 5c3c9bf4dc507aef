"""``python -m priorpaint.lab.avatars``: training pictures, and the pictures of the documentation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from priorpaint.errors import UsageError, run_module

from .figures import comparison_sheet, posterior_sheet, sheet
from .writing import write

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.command("write")
def _write(
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    num: Annotated[int, typer.Option(help="How many pictures.")] = 50_000,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    classes: Annotated[str | None, typer.Option(help="A part, such as hair: one folder for each option.")] = None,
    scale: Annotated[int, typer.Option(help="Pixels along a side of a cell: 2 = 32x32 pictures, 4 = 64x64.")] = 2,
) -> None:
    """Write independent avatars as PNG files, 32x32 where not said otherwise, for `priorpaint train`."""
    write(folder, num, seed, classes=classes, scale=scale)
    typer.echo(f"{num} avatars are in {folder}")


@app.command("sheet")
def _sheet(
    file: Annotated[Path, typer.Argument(help="The picture to write.")],
    num: Annotated[int, typer.Option(min=1, help="How many avatars.")] = 48,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    posterior: Annotated[bool, typer.Option("--posterior", help="Exact posteriors under six masks instead.")] = False,
    method: Annotated[
        str | None, typer.Option(help="Beside exact samples under six masks, those of a method NAME[:KEY=VALUE,...].")
    ] = None,
    prior: Annotated[str, typer.Option(help="Prior of the method; exact: the denoiser without a network.")] = "avatars",
) -> None:
    """Write a contact sheet."""
    if file.suffix.lower() != ".png" or not os.access(file.parent, os.W_OK):
        raise UsageError(f"{file} cannot be written; name a PNG file (.png) in a folder that exists.")
    if method is not None:
        from priorpaint.solvers import parse_method, solver  # writing pictures takes no methods

        from .prior import avatar_prior

        name, settings = parse_method(method)
        run = solver(name, **settings)
        picture = comparison_sheet(seed, avatar_prior(prior), run, name=f"{run.title}, prior {prior}")
    else:
        picture = posterior_sheet(seed) if posterior else sheet(num, seed)
    picture.save(file, optimize=True)


def main() -> None:
    """Run it; an error is one sentence."""
    run_module(app, "priorpaint.lab.avatars")


if __name__ == "__main__":
    main()
