"""``python -m priorpaint.avatars``: training pictures, and the pictures of the documentation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from priorpaint.errors import PriorpaintError, UsageError

from .figures import posterior_sheet, sheet
from .writing import write

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, help=__doc__)


@app.command("write")
def _write(
    folder: Annotated[Path, typer.Argument(help="An empty or new folder.")],
    num: Annotated[int, typer.Option(help="How many pictures.")] = 50_000,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    classes: Annotated[str | None, typer.Option(help="A part, such as hair: one folder for each option.")] = None,
) -> None:
    """Write independent avatars as 32x32 PNG files for `priorpaint train`."""
    write(folder, num, seed, classes=classes)
    typer.echo(f"{num} avatars are in {folder}")


@app.command("sheet")
def _sheet(
    file: Annotated[Path, typer.Argument(help="The picture to write.")],
    num: Annotated[int, typer.Option(min=1, help="How many avatars.")] = 48,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
    posterior: Annotated[bool, typer.Option("--posterior", help="Exact posteriors under six masks instead.")] = False,
) -> None:
    """Write a contact sheet."""
    (posterior_sheet(seed) if posterior else sheet(num, seed)).save(file, optimize=True)


def main() -> None:
    """Run it; an error is one sentence."""
    try:
        app(prog_name="python -m priorpaint.avatars")
    except PriorpaintError as error:
        print(f"priorpaint.avatars: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)


if __name__ == "__main__":
    main()
