"""``priorpaint masks``: masks of a kind for some pictures, as files in which white is to be repainted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from priorpaint.errors import UsageError

from .running import pictures_in
from .terminal import echo, echo_files

if TYPE_CHECKING:
    from PIL import Image

SHEET = "masks_sheet.png"
_CELL, _SHOWN = 192, 60  # the long side of a picture on the sheet, and the most that are on it


def masks(
    pictures: Annotated[
        list[Path] | None, typer.Argument(metavar="PICTURES", help="Picture files, and folders of them.")
    ] = None,
    kind: Annotated[str, Option(metavar="KIND", help="What is hidden; --list shows the kinds.")] = "random",
    seed: Annotated[int, Option(min=0, metavar="N", help="Same seed and picture name, same masks.")] = 0,
    num: Annotated[int, Option("--num", min=1, metavar="N", help="Masks of each picture.")] = 1,
    out: Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="Folder for the masks.")] = Path("masks"),
    overwrite: Annotated[bool, Option("--overwrite", help="Replace masks that exist already.")] = False,
    listing: Annotated[bool, Option("--list", help="List the kinds of masks and exit.")] = False,
) -> None:
    """Draw masks of a kind for pictures, of each one's size: white is to be repainted.

    A picture's masks are NAME_mask.png, or NAME_mask_0.png, NAME_mask_1.png, ...; masks_sheet.png shows them over the
    pictures. They depend on the seed and on NAME, so a picture gets the same ones in any folder and company.
    """
    from priorpaint.imaging import check_results, hole_overlay, mask_picture, read_picture, save_picture
    from priorpaint.imaging.mask_kinds import MASK_KINDS, mask_for
    from priorpaint.imaging.sheets import labelled_grid, thumbnail
    from priorpaint.imaging.writing import make_folder

    if listing:
        typer.echo(list_kinds())
        return
    if kind not in MASK_KINDS:
        raise UsageError(f"there is no kind of masks {kind!r}; the kinds are {', '.join(MASK_KINDS)} (--list).")
    jobs = {file: _names(file, out, num) for file in _files(pictures or [])}
    _check_owners(jobs)
    check_results(out, [out / SHEET, *(name for names in jobs.values() for name in names)], overwrite=overwrite)
    cells: list[tuple[str, Image.Image]] = []
    problems: list[str] = []
    for file, names in jobs.items():
        try:
            picture = read_picture(file)
            width, height = picture.size
            drawn = [mask_for(file.stem, kind, (height, width), seed, i) for i in range(num)]
        except UsageError as error:
            problems.append(str(error))
            continue
        for name, known in zip(names, drawn, strict=True):
            make_folder(out)
            save_picture(mask_picture(known), name)
            share = 1 - known.mean()
            echo(f"{name}  {share:.1%} hidden")
            if len(cells) < _SHOWN:
                cells.append((f"{name.stem}: {share:.1%}", thumbnail(hole_overlay(picture.image, known), _CELL)))
    if cells:
        save_picture(labelled_grid(cells), out / SHEET)
        echo_files([out / SHEET])
    for problem in problems:
        echo(problem, err=True)
    if problems:
        print(f"{len(problems)} of {len(jobs)} pictures have no mask.", file=sys.stderr)
        raise typer.Exit(1)


def list_kinds() -> str:
    """The kinds of masks with their sources, a line each."""
    from priorpaint.imaging.mask_kinds import MASK_KINDS

    width = max(map(len, MASK_KINDS))
    return "\n".join(
        f"{kind.name:<{width}}  {kind.about}" + (f" ({kind.source})" if kind.source else "")
        for kind in MASK_KINDS.values()
    )


def _files(sources: Sequence[Path]) -> list[Path]:
    """The pictures, folders replaced by what is in them.

    Raises:
        UsageError: nothing was given, something is missing, or a folder has no picture.
    """
    if not sources:
        raise UsageError("name the pictures that masks are for, or folders of them (or --list the kinds).")
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += pictures_in(source)
        elif source.exists():
            files.append(source)
        else:
            raise UsageError(f"{source} does not exist; check the path.")
    return list(dict.fromkeys(files))


def _names(file: Path, out: Path, num: int) -> list[Path]:
    endings = [""] if num == 1 else [f"_{i}" for i in range(num)]
    return [out / f"{file.stem}_mask{ending}.png" for ending in endings]


def _check_owners(jobs: dict[Path, list[Path]]) -> None:
    """Raise UsageError where two pictures would get the same files."""
    owners: dict[Path, Path] = {}
    for file, names in jobs.items():
        other = owners.setdefault(names[0], file)
        if other != file:
            raise UsageError(f"{other} and {file} would both get {names[0].name}; put them into different folders.")
