"""``priorpaint methods``: what methods there are, and the settings of one."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from priorpaint.errors import UsageError

if TYPE_CHECKING:
    from priorpaint.solvers import Solver

_NEEDS = {
    "gradient": "gradients through the network (more memory and time)",
    "mask": "a mask",
    "linear": "any linear measurement, such as a mask",
}


def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show the settings of this method.")] = None,
) -> None:
    """List the methods, or the settings of one."""
    from priorpaint.inpainting.method import DEFAULT_METHOD
    from priorpaint.solvers import SOLVERS

    if name is None:
        width = max(map(len, SOLVERS))
        for key, cls in sorted(SOLVERS.items()):
            typer.echo(f"{key:<{width}}  {cls.about}{' [default]' if key == DEFAULT_METHOD else ''}")
        typer.echo("`priorpaint methods NAME` shows a method's paper, cost and settings.", err=True)
        return
    if name not in SOLVERS:
        raise UsageError(f"there is no method {name!r}; the methods are {', '.join(sorted(SOLVERS))}.")
    _show(name, SOLVERS[name])


def _show(name: str, cls: type[Solver]) -> None:
    from priorpaint.inpainting.coarse_to_fine import REFINE_RATIO
    from priorpaint.inpainting.method import (
        DEFAULT_METHOD,
        NARROW_SETTINGS,
        REFINE_SETTINGS,
        WIDE,
        WIDE_REFINE_SETTINGS,
        WIDE_SETTINGS,
    )
    from priorpaint.solvers import explain
    from priorpaint.solvers.reference import REFERENCE, REMAINS

    typer.echo(f"{name}: {cls.title}")
    typer.echo(f"  {cls.about}")
    typer.echo(f"  reference  {cls.reference}")
    typer.echo(f"  needs      {'; '.join(_NEEDS.get(need, need) for need in sorted(cls.needs))}")
    typer.echo(f"  cost       network evaluations of a sample: {cls.cost_formula}")
    typer.echo("  settings   (--set name=value)")
    hints = get_type_hints(cls)
    for setting, (_, default, meaning) in explain(cls).items():
        typer.echo(f"    {setting} = {_value(default)}  ({_kind(hints[setting])})")
        typer.echo(textwrap.fill(meaning, 100, initial_indent="        ", subsequent_indent="        "))
    if REFERENCE.get(name):
        typer.echo(f"  The authors' settings, --set preset=reference: {_list(REFERENCE[name])}")
    if name in REMAINS:
        said = f"What the published run does otherwise: {REMAINS[name]}"
        typer.echo(textwrap.fill(said, 100, initial_indent="  ", subsequent_indent="  "))
    if name == DEFAULT_METHOD:
        said = (
            f"Without --method it runs with {_list(NARROW_SETTINGS)}, and where a hole is more than {WIDE} pixels wide "
            f"with {_list(WIDE_SETTINGS)}. Thin holes start from a smooth fill, and finer scales of wide ones from the "
            f"coarser: they take the part below sigma = {REFINE_RATIO:g} of a grid with {_list(REFINE_SETTINGS)}, "
            f"where a hole is more than {WIDE} pixels wide {_list(WIDE_REFINE_SETTINGS)} (--refine)."
        )
        typer.echo(textwrap.fill(said, 100, initial_indent="  ", subsequent_indent="  "))


def _kind(hint: Any) -> str:
    """What a setting may be, in words: choices, a number, text, none."""
    if get_origin(hint) is Literal:
        return " | ".join(get_args(hint))
    if get_args(hint):
        return " | ".join(map(_kind, get_args(hint)))
    return {int: "whole number", float: "number", bool: "true | false", str: "text"}.get(hint, "none")


def _list(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_value(value)}" for key, value in settings.items())


def _value(default: Any) -> str:
    return "none" if default is None else str(default).lower() if isinstance(default, bool) else str(default)
