"""``priorpaint likelihood``: how likely a prior finds pictures, in bits a value."""

from __future__ import annotations

import json
import math
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from priorpaint.errors import Cancelled, CancelToken, UsageError, printable

from .conditions import PriorOptions
from .options import Quiet, Threads, use_threads, with_options
from .terminal import echo_files

if TYPE_CHECKING:
    from torch import Tensor

    from priorpaint.priors import Prior

_MOST_STEPS = 100_000
_MOST_EXACT = 4096  # values of a picture whose Jacobian is computed row by row
_WHICH = ("both", "bound", "ode")


@with_options(PriorOptions)
def likelihood(
    prior_options: PriorOptions,
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE...", help="Pictures of the prior's size.")],
    which: Annotated[str, Option(metavar="both|bound|ode", help="What to compute.")] = "both",
    steps: Annotated[int, Option(metavar="N", min=1, max=_MOST_STEPS, help="Steps of the bound's time grid.")] = 100,
    spacing: Annotated[
        str | None, Option(metavar="NAME", help="Spacing of the grids, such as karras; default: the schedule's own.")
    ] = None,
    variance: Annotated[
        str, Option(metavar="small|large|learned", help="Variance of the bound's ancestral steps.")
    ] = "small",
    draws: Annotated[int, Option(metavar="N", min=1, max=10_000, help="Draws of the noise, for the bound.")] = 1,
    ode_steps: Annotated[int, Option(metavar="N", min=2, max=_MOST_STEPS, help="Steps of the ODE's time grid.")] = 40,
    rule: Annotated[str, Option(metavar="rk4|heun", help="How the ODE is solved: order 4, or order 2.")] = "rk4",
    probes: Annotated[int, Option(metavar="N", min=1, max=10_000, help="Random probes of the ODE's divergence.")] = 2,
    exact_trace: Annotated[
        bool, Option("--exact-trace", help=f"The exact divergence, for pictures of up to {_MOST_EXACT} values.")
    ] = False,
    seed: Annotated[int, Option(metavar="N", help="Seed of noise and probes.")] = 0,
    batch_size: Annotated[int, Option(metavar="N", min=1, help="Pictures computed together.")] = 8,
    out: Annotated[Path | None, Option("-o", "--out", metavar="FILE", help="Write all terms as JSON.")] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the file of --out.")] = False,
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Annotated[bool, Option("--json", help="Print the JSON instead of the table.")] = False,
) -> None:
    """Measure how likely a prior finds pictures: the variational bound and the probability-flow ODE.

    All numbers are bits a value (a channel of a pixel; of a latent prior, a number of its latent): fewer is likelier.
    The bound is L_T + sum of L_(t-1) + L_0; of 8-bit pictures it bounds -log2 of their probability. The ODE's density
    is that of the picture with noise inside its 8-bit steps.
    """
    if which not in _WHICH:
        raise UsageError(f"--which is {', '.join(_WHICH[:-1])} or {_WHICH[-1]}, not {which!r}.")
    if variance not in ("small", "large", "learned"):
        raise UsageError(f"--variance is small, large or learned, not {variance!r}.")
    if rule not in ("rk4", "heun"):
        raise UsageError(f"--rule is rk4 or heun, not {rule!r}.")
    if out is not None and out.exists() and not overwrite:
        raise UsageError(f"{out} already exists; use --overwrite or another name.")
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"the folder {out.parent} does not exist; make it first.")
    use_threads(threads)
    from priorpaint.diffusion.schedules import SPACINGS

    from .progress import Display
    from .stopping import signals

    if spacing not in (None, *SPACINGS):
        raise UsageError(f"--spacing is {', '.join(SPACINGS)}, not {spacing!r}.")
    prior = prior_options.load()
    if variance == "learned" and not prior.learned_variance:
        raise UsageError(f"the prior {prior.name} has learned no variance; use --variance small or large.")
    loaded = [(path, _read(path, prior)) for path in pictures]
    if exact_trace and max(x.numel() for _, x in loaded) > _MOST_EXACT:
        raise UsageError(f"--exact-trace is for pictures of up to {_MOST_EXACT} values; use --probes for these.")
    for count in (steps, ode_steps):  # a grid that the schedule has not is refused now
        prior.schedule.grid(count, spacing)
    bound = {"steps": steps, "spacing": spacing, "variance": variance, "draws": draws, "seed": seed}
    ode = {"steps": ode_steps, "spacing": spacing, "rule": rule, "seed": seed}
    ode["probes"] = None if exact_trace else probes
    asked = {key: value for key, value in (("bound", bound), ("ode", ode)) if which in ("both", key)}
    rows: list[dict[str, Any]] = []
    with signals() as cancel, Display(len(loaded), quiet=quiet, what="pictures") as display:
        try:
            for batch in _batches(loaded, batch_size):
                rows += _measured(prior, batch, asked, cancel)
                display.sample(len(batch))
        except Cancelled:
            display.say(f"Stopped: {len(rows)} of {len(loaded)} pictures are finished.")
    if rows:
        report = {**prior_options.facts(prior), "space": "latents" if prior.latent else "pixels", **asked, "rows": rows}
        _tell(report, out, as_json=as_json)
    if cancel.cancelled:
        raise typer.Exit(cancel.exit_code)


def _read(path: Path, prior: Prior) -> Tensor:
    """A picture (1, C, H, W) in [-1, 1]."""
    from priorpaint.imaging import read_picture

    picture = read_picture(path)
    if picture.deep:
        raise UsageError(f"{path} has more than 8 bits a value, and the bound is for 8; convert it to 8 bits first.")
    width, height = picture.size
    prior.check_size(height, width)
    return picture.to_tensor(prior.image_shape[0])


def _batches(loaded: list[tuple[Path, Tensor]], size: int) -> list[list[tuple[Path, Tensor]]]:
    """Neighbours of one shape, up to ``size`` together."""
    runs = [list(run) for _, run in groupby(loaded, key=lambda one: one[1].shape)]
    return [run[first : first + size] for run in runs for first in range(0, len(run), size)]


def _measured(
    prior: Prior, batch: list[tuple[Path, Tensor]], asked: dict[str, dict[str, Any]], cancel: CancelToken
) -> list[dict[str, Any]]:
    """One row a picture, in bits a value."""
    import torch

    from priorpaint.priors.likelihood import bits_per_value, bound, density_bits, dithered, flow_log_prob

    x = torch.cat([each for _, each in batch]).to(prior.device)
    with torch.no_grad():
        z = prior.encode(x) if prior.latent else x
    rows: list[dict[str, Any]] = [{"picture": str(path)} for path, _ in batch]
    count, to_bits = z[0].numel(), bits_per_value if prior.latent else density_bits
    if "bound" in asked:
        found = bound(prior, z, **asked["bound"], decoder="gaussian" if prior.latent else "pixels", cancel=cancel)
        bits = [
            bits_per_value(each, found.values).tolist()
            for each in (found.prior, found.diffusion, found.reconstruction, found.total, found.standard_error)
        ]
        for row, top, terms, first, total, error in zip(rows, *bits, strict=True):
            row["bound"] = {
                "L_T": top, "L_diffusion": sum(terms), "L_0": first, "total": total, "standard_error": _number(error),
                "terms": terms,
            }  # fmt: skip
    if "ode" in asked:
        flow = flow_log_prob(
            prior, z if prior.latent else dithered(x, asked["ode"]["seed"]), **asked["ode"], cancel=cancel
        )
        values, errors = to_bits(-flow.log_prob, count).tolist(), bits_per_value(flow.standard_error, count).tolist()
        for row, value, error in zip(rows, values, errors, strict=True):
            row["ode"] = {"total": value, "standard_error": _number(error)}
    return rows


def _number(value: float) -> float | None:
    """None where it is not known: JSON has no NaN."""
    return None if math.isnan(value) else value


def _tell(report: dict[str, Any], out: Path | None, *, as_json: bool) -> None:
    from priorpaint.imaging import write_text_atomic

    text = json.dumps(report, indent=2)
    if out is not None:
        write_text_atomic(out, text + "\n")
    if as_json:
        typer.echo(text)
        return
    _show(report)
    if out is not None:
        echo_files([out])


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    unit = "latent value" if report["space"] == "latents" else "value"
    table = Table(title=Text(printable(f"{report['prior']['name']}: bits a {unit}, fewer is likelier")))
    table.add_column("picture", overflow="fold")
    headings = {"bound": ["L_T", "sum L_(t-1)", "L_0", "bound"], "ode": ["ODE"]}
    for key in (key for key in headings if key in report):
        for heading in headings[key]:
            table.add_column(heading, justify="right")
    for row in report["rows"]:
        cells: list[str | Text] = [Text(printable(Path(row["picture"]).name))]
        if "bound" in row:
            terms = row["bound"]
            cells += [f"{terms[key]:.4f}" for key in ("L_T", "L_diffusion", "L_0")] + [_with_error(terms)]
        if "ode" in row:
            cells.append(_with_error(row["ode"]))
        table.add_row(*cells)
    Console(width=None if Console().is_terminal else 120).print(table)


def _with_error(cell: dict[str, Any]) -> str:
    error = cell["standard_error"]
    return f"{cell['total']:.4f}" + (f" +- {error:.4f}" if error else "")
