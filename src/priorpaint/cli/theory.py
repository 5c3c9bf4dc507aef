"""``priorpaint theory``: what RePaint+ and a lecture on DDPM and RePaint state, beside Monte Carlo."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from priorpaint.errors import UsageError

if TYPE_CHECKING:
    from priorpaint.lab.theory.appendix_b import Outcome as AppendixB
    from priorpaint.lab.theory.appendix_b import Row
    from priorpaint.lab.theory.check import Check, Outcome
    from priorpaint.lab.theory.model import LinearModel

APPENDIX_B = "appendix-b"
_MODEL = {"k": 4, "d": 32, "known": None, "mask": None, "basis": "auto"}
# The options that an experiment takes, and their defaults.
OPTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType({
    APPENDIX_B: {**_MODEL, "k": 1, "d": 2, "beta": 0.9, "rounds": None, "tolerance": 1e-10, "samples": 1000,
                 "seeds": 20},
    "noisy": {**_MODEL, "beta": 0.5, "rounds": 100, "samples": 1000, "training": 100_000},
    "masks": {"k": 4, "d": 32, "basis": "auto", "beta": 0.5, "rounds": 100, "samples": 200, "training": 100_000,
              "masks": 100},
    "states": {**_MODEL, "k": 3, "d": 8, "samples": 1000, "calls": 1000},
    "marginals": {**_MODEL, "k": 1, "d": 2, "basis": "random", "beta": 0.9, "samples": 1000},
    "lecture": {"samples": 10_000},
})  # fmt: skip


def theory(
    experiment: Annotated[
        str,
        Option(
            metavar="|".join(OPTIONS),
            help="appendix-b: RePaint and RePaint+ on a linear manifold; noisy: Theorem 6 with a learned generator; "
            "masks: one generator for many masks; states: resample or take smaller steps; marginals: Figures 3 and 4; "
            "lecture: what the slides on DDPM and RePaint state.",
        ),
    ] = APPENDIX_B,
    k: Annotated[int | None, Option(min=1, metavar="K", help="Dimension of the manifold.")] = None,
    d: Annotated[int | None, Option(min=2, metavar="D", help="Coordinates of an image.")] = None,
    known: Annotated[
        int | None, Option(min=0, metavar="N", help="How many coordinates are known; default: half.")
    ] = None,
    mask: Annotated[
        str | None, Option(metavar="DIGITS", help="Which coordinates are known: d digits, 1 = known, such as 10.")
    ] = None,
    basis: Annotated[
        str | None,
        Option(
            metavar="random|diagonal|auto",
            help="random (default of marginals), diagonal (k = 1: along (1, ..., 1)), or auto: diagonal if k = 1.",
        ),
    ] = None,
    beta: Annotated[
        float | None, Option(metavar="VARIANCE", help="Noise variance of the two-state process, in (0, 1).")
    ] = None,
    rounds: Annotated[
        int | None,
        Option(
            min=1,
            metavar="N",
            help="Rounds of resampling; appendix-b: by default what --tolerance needs, at most 1000.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None, Option(metavar="ERROR", help="appendix-b: target root-mean-square error of an image.")
    ] = None,
    samples: Annotated[int | None, Option(min=20, metavar="N", help="Images, of each repetition or mask.")] = None,
    seeds: Annotated[
        int | None, Option(min=1, metavar="N", help="appendix-b: repetitions, each with its own images and noise.")
    ] = None,
    training: Annotated[
        int | None, Option(metavar="N", help="noisy, masks: samples that the generator is learned from.")
    ] = None,
    masks: Annotated[int | None, Option(min=1, metavar="N", help="masks: how many random masks.")] = None,
    calls: Annotated[
        int | None, Option(metavar="10|100|1000", help="states: network calls to be spent on states and rounds.")
    ] = None,
    seed: Annotated[int, Option(metavar="N", help="Seed of the manifold, mask, images and noise.")] = 0,
    out: Annotated[
        Path | None,
        Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for theory-EXPERIMENT.png (needs the extra plot) and theory-EXPERIMENT.json.",
        ),
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace results that already exist.")] = False,
    as_json: Annotated[bool, Option("--json", help="Print the numbers as JSON instead of the table.")] = False,
) -> None:
    """Put what theory says beside Monte Carlo: RePaint is biased, RePaint+ exact, at a known rate, and why.

    Images are x = A z with z ~ N(0, I_k). Each row of a table is a statement: the number or bound that theory has, what
    was measured with its standard error, and whether both agree.
    """
    given = {"k": k, "d": d, "known": known, "mask": mask, "basis": basis, "beta": beta, "rounds": rounds,
             "tolerance": tolerance, "samples": samples, "seeds": seeds, "training": training, "masks": masks,
             "calls": calls}  # fmt: skip
    settings = _settings(experiment, given) | {"seed": seed}
    from priorpaint.lab.theory.figure import require_matplotlib

    if out is not None:
        _check(out, experiment, overwrite)
        require_matplotlib()
    if experiment == APPENDIX_B:
        _appendix_b(settings, out, as_json)
    else:
        _experiment(experiment, settings, out, as_json)


def _settings(experiment: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What the experiment takes, with its defaults."""
    if experiment not in OPTIONS:
        raise UsageError(f"--experiment is one of {', '.join(OPTIONS)}, not {experiment!r}.")
    takes = OPTIONS[experiment]
    if wrong := [f"--{name}" for name, value in given.items() if value is not None and name not in takes]:
        options = ", ".join(f"--{name}" for name in takes)
        raise UsageError(f"{wrong[0]} is not an option of the experiment {experiment}; it takes {options} and --seed.")
    return {name: default if given[name] is None else given[name] for name, default in takes.items()}


def _experiment(name: str, settings: Mapping[str, Any], out: Path | None, as_json: bool) -> None:
    from importlib import import_module

    from priorpaint.lab.theory.panels import draw

    run = import_module(f"priorpaint.lab.theory.{name}").run
    rest = {key: value for key, value in settings.items() if key not in _MODEL}
    outcome: Outcome = run(**rest) if "d" not in settings else run(_model(settings), **rest)
    numbers = {
        "experiment": name,
        "title": outcome.title,
        "settings": dict(settings),
        "table": [_as_dict(check) for check in outcome.checks],
        "notes": outcome.notes,
        "curves": outcome.curves,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(name, outcome, _figure(out, name))
    _tell(numbers, outcome, out, as_json)


def _tell(numbers: dict[str, Any], outcome: Outcome, out: Path | None, as_json: bool) -> None:
    """Write the numbers, and print them or the table."""
    name = numbers["experiment"]
    text = json.dumps(numbers, indent=2, allow_nan=False)
    if out is not None:
        _numbers_file(out, name).write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
        return
    _print(outcome)
    if out is not None:
        typer.echo(f"{_figure(out, name)}\n{_numbers_file(out, name)}")


def _print(outcome: Outcome) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=outcome.title)
    for heading in ("statement", "of"):
        table.add_column(heading)
    for heading in ("theory", "Monte Carlo"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for check in outcome.checks:
        sign = "" if check.relation == "=" else "<= "
        theory = "" if check.theory is None else f"{sign}{_number(check.theory)}"
        table.add_row(check.statement, escape(check.case), theory, _measured(check), _verdict(check))
    Console().print(table)
    failed = sum(check.holds is False for check in outcome.checks)
    for note in outcome.notes:
        typer.echo(note)
    if failed:
        typer.echo(
            f"{failed} of {len(outcome.checks)} rows are off by more than 4 standard errors; take more --samples, or "
            "another --seed."
        )


def _number(value: float) -> str:
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e6 else f"{value:.4g}"


def _measured(check: Check) -> str:
    return _number(check.measured) + (f" +- {check.error:.1g}" if check.error else "")


def _verdict(check: Check) -> str:
    if check.holds is None:
        return "does not apply"
    good, bad = ("equal", "DIFFERS") if check.relation == "=" else ("below", "ABOVE")
    return good if check.holds else bad


def _as_dict(check: Check) -> dict[str, Any]:
    return {**asdict(check), "holds": check.holds}


def _figure(out: Path, name: str) -> Path:
    return out / f"theory-{name}.png"


def _numbers_file(out: Path, name: str) -> Path:
    return out / f"theory-{name}.json"


def _check(out: Path, name: str, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out takes a folder, and {out} is a file.")
    there = [path.name for path in (_figure(out, name), _numbers_file(out, name)) if path.exists()]
    if there and not overwrite:
        raise UsageError(f"{' and '.join(there)} already exist in {out}; use --overwrite or another folder.")


def _model(settings: Mapping[str, Any]) -> LinearModel:
    import torch

    from priorpaint.lab.theory.model import LinearModel

    k, d, basis, seed = (settings[name] for name in ("k", "d", "basis", "seed"))
    known, mask = settings.get("known"), settings.get("mask")
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


# -- Appendix B --------------------------------------------------------------------------------------------------------


def _appendix_b(settings: dict[str, Any], out: Path | None, as_json: bool) -> None:
    from priorpaint.lab.theory.appendix_b import enough_rounds, run
    from priorpaint.lab.theory.check import Outcome
    from priorpaint.lab.theory.figure import draw

    if not settings["tolerance"] > 0:
        raise UsageError(f"--tolerance is an error > 0, not {settings['tolerance']}.")
    model = _model(settings)
    settings["rounds"] = settings["rounds"] or enough_rounds(model, settings["tolerance"])
    made = run(model, **{name: settings[name] for name in ("beta", "samples", "rounds", "seeds", "seed")})
    numbers = _numbers(model, made, settings)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        draw(model, made, _figure(out, APPENDIX_B))
    title = (
        f"{model.describe()}, beta = {settings['beta']:g}; "
        f"{settings['rounds']} rounds, {settings['samples']} images, {settings['seeds']} seeds; rms error of an image"
    )
    shown = Outcome(title, [row.check for row in made.rows], {}, [_frobenius(made.rows), _needed(model, numbers)])
    _tell(numbers, shown, out, as_json)


def _numbers(model: LinearModel, made: AppendixB, settings: dict[str, Any]) -> dict[str, Any]:
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
        "experiment": APPENDIX_B,
        "d": model.d,
        "k": model.k,
        "known": model.known.int().tolist(),
        "rho": model.rho,
        "settings": settings,
        "rounds_needed": needed,
        "table": [{**_as_dict(row.check), "method": row.method, "norm": row.norm, "std": row.std} for row in made.rows],
        "curves": made.curves,
        "predicted": made.predicted,
        "A": model.A.tolist(),
    }


def _frobenius(rows: list[Row]) -> str:
    """The error as Table 1 has it, which prints 22.97, 27.61 and "negligible"."""
    norms = ", ".join(f"{row.method} {row.norm:.4g} +- {row.std:.1g}" for row in rows)
    return f"Frobenius norm of the error of all images, +- its standard deviation over the seeds: {norms}."


def _needed(model: LinearModel, numbers: dict[str, Any]) -> str:
    if model.rho == 1:
        lost = round(float(model.invisible.trace()))
        return (
            f"rho = 1: {lost} of {model.k} directions of the manifold cannot be seen in the known coordinates and are "
            "never recovered; reveal more of them."
        )
    needed = numbers["rounds_needed"]
    return (
        f"rho = {model.rho:.6g}; rounds for an rms error of {numbers['settings']['tolerance']:g}: at most "
        f"{needed['plain']} (Theorem 4), {needed['chebyshev']} with Chebyshev, {needed['conjugate gradients']} with "
        "conjugate gradients."
    )
