"""``priorpaint theory``: the experiment of RePaint+'s Appendix B, for any linear model."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from priorpaint.errors import UsageError

if TYPE_CHECKING:
    from priorpaint.lab.theory.appendix_b import Outcome
    from priorpaint.lab.theory.model import LinearModel

FIGURE, NUMBERS = "theory.png", "theory.json"


def theory(
    k: Annotated[int, Option(min=1, metavar="K", help="Dimension of the manifold.")] = 1,
    d: Annotated[int, Option(min=2, metavar="D", help="Coordinates of an image.")] = 2,
    known: Annotated[
        int | None, Option(min=0, metavar="N", help="How many coordinates are known; default: half.")
    ] = None,
    mask: Annotated[
        str | None, Option(metavar="DIGITS", help="Which coordinates are known: d digits, 1 = known, such as 10.")
    ] = None,
    basis: Annotated[
        str,
        Option(
            metavar="random|diagonal|auto",
            help="random, diagonal (k = 1: along (1, ..., 1)), or auto: diagonal if k = 1.",
        ),
    ] = "auto",
    beta: Annotated[
        float, Option(metavar="VARIANCE", help="Noise variance of the two-state process, in (0, 1).")
    ] = 0.9,
    rounds: Annotated[
        int | None,
        Option(min=1, metavar="N", help="Rounds of resampling; default: what --tolerance needs, at most 1000."),
    ] = None,
    tolerance: Annotated[float, Option(metavar="ERROR", help="Target root-mean-square error of an image.")] = 1e-10,
    samples: Annotated[int, Option(min=1, metavar="N", help="Images per repetition.")] = 1000,
    seeds: Annotated[int, Option(min=1, metavar="N", help="Repetitions, each with its own images and noise.")] = 20,
    seed: Annotated[int, Option(metavar="N", help="Seed of the manifold, mask, images and noise.")] = 0,
    out: Annotated[
        Path | None,
        Option("-o", "--out", metavar="FOLDER", help=f"Folder for {FIGURE} (needs the extra plot) and {NUMBERS}."),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace results that already exist.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the numbers as JSON instead of the table.")] = False,
) -> None:
    """Show on a linear manifold that RePaint is biased and RePaint+ exact, with the rate that theory predicts.

    Images are x = A z with z ~ N(0, I_k); what is unknown of them is filled in by RePaint, by RePaint and one more step
    of the reverse SDE, and by RePaint+.
    """
    from priorpaint.lab.theory.appendix_b import enough_rounds, run
    from priorpaint.lab.theory.figure import draw, require_matplotlib

    if not tolerance > 0:
        raise UsageError(f"--tolerance is an error > 0, not {tolerance}.")
    if out is not None:
        _check(out, overwrite)
        require_matplotlib()
    model = _model(k, d, known, mask, basis, seed)
    count = rounds or enough_rounds(model, tolerance)
    outcome = run(model, beta=beta, samples=samples, rounds=count, seeds=seeds, seed=seed)
    settings = {"beta": beta, "rounds": count, "tolerance": tolerance, "samples": samples, "seeds": seeds, "seed": seed}
    numbers = _numbers(model, outcome, settings)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(model, outcome, out / FIGURE)
        (out / NUMBERS).write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(numbers, indent=2))
        return
    _show(model, outcome, numbers)
    if out is not None:
        typer.echo(f"{out / FIGURE}\n{out / NUMBERS}")


def _check(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out takes a folder, and {out} is a file.")
    there = [name for name in (FIGURE, NUMBERS) if (out / name).exists()]
    if there and not overwrite:
        raise UsageError(f"{' and '.join(there)} already exist in {out}; use --overwrite or another folder.")


def _model(k: int, d: int, known: int | None, mask: str | None, basis: str, seed: int) -> LinearModel:
    import torch

    from priorpaint.lab.theory.model import LinearModel

    if mask is not None and known is not None:
        raise UsageError("--mask takes the place of --known; leave one of them out.")
    if mask is not None and (len(mask) != d or set(mask) - {"0", "1"}):
        raise UsageError(f"--mask takes {d} digits (as many as --d), 1 for known and 0 for hidden, not {mask!r}.")
    if basis not in ("auto", "random", "diagonal"):
        raise UsageError(f"--basis is auto, random or diagonal, not {basis!r}.")
    if basis == "diagonal" and k != 1:
        raise UsageError(f"--basis diagonal is a line; it takes --k 1, not {k}.")
    model = LinearModel.random(d, k, (d + 1) // 2 if known is None else known, seed=seed)
    chosen = model.known if mask is None else torch.tensor([digit == "1" for digit in mask])
    if k == 1 and basis != "random":
        return LinearModel(torch.full((d, 1), d**-0.5, dtype=torch.float64), chosen)
    return LinearModel(model.A, chosen)


def _numbers(model: LinearModel, outcome: Outcome, settings: dict[str, Any]) -> dict[str, Any]:
    """All that is printed, drawn and needed to run it again."""
    from priorpaint.lab.theory.acceleration import chebyshev_rounds
    from priorpaint.lab.theory.appendix_b import expected_error
    from priorpaint.lab.theory.two_state import rounds_needed

    start, tolerance = expected_error(model, 0), settings["tolerance"]
    needed = {
        "plain": rounds_needed(start, tolerance, model.rho) if model.rho < 1 else None,
        "chebyshev": chebyshev_rounds(start, tolerance, model.rho) if model.rho < 1 else None,
        "conjugate gradients": model.k if model.rho < 1 else None,
    }
    return {
        "d": model.d,
        "k": model.k,
        "known": model.known.int().tolist(),
        "rho": model.rho,
        "settings": settings,
        "rounds_needed": needed,
        "table": [asdict(row) for row in outcome.rows],
        "curves": outcome.curves,
        "predicted": outcome.predicted,
        "A": model.A.tolist(),
    }


def _show(model: LinearModel, outcome: Outcome, numbers: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    settings, needed = numbers["settings"], numbers["rounds_needed"]
    table = Table(
        title=f"d = {model.d}, k = {model.k}, {int(model.known.sum())} known, beta = {settings['beta']:g}; "
        f"{settings['rounds']} rounds, {settings['samples']} images, {settings['seeds']} seeds"
    )
    table.add_column("method")
    for heading in ("error (Frobenius norm)", "rms of an image", "predicted"):
        table.add_column(heading, justify="right")
    for row in outcome.rows:
        table.add_row(row.method, f"{row.norm:.4g} +- {row.std:.1g}", f"{row.rms:.4g}", f"{row.predicted:.4g}")
    console = Console()
    console.print(table)
    if model.rho == 1:
        lost = round(float(model.invisible.trace()))
        typer.echo(
            f"rho = 1: {lost} of {model.k} directions of the manifold cannot be seen in the known coordinates and are "
            "never recovered; reveal more of them."
        )
        return
    typer.echo(
        f"rho = {model.rho:.6g}; rounds for an rms error of {settings['tolerance']:g}: at most {needed['plain']} "
        f"(Theorem 4), {needed['chebyshev']} with Chebyshev, {needed['conjugate gradients']} with conjugate gradients."
    )
