"""``priorpaint restore``: super-resolution, deblurring, denoising and colours for a picture file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Option

from .options import read_settings, with_options
from .running import JobOptions, PageOption, RangeOption, run

Image = Annotated[Path, typer.Argument(metavar="PICTURE", help="What was measured: the small, blurred, grey picture.")]
OperatorName = Annotated[
    str, Option("--operator", metavar="NAME", help="What happened to it; `priorpaint operators` lists them.")
]
OperatorSettings = Annotated[
    list[str] | None,
    Option("--set-operator", metavar="KEY=VALUE", help="A setting of the operator; repeatable."),
]
Noise = Annotated[float, Option("--noise", metavar="STD", help="Standard deviation of its noise, values from -1 to 1.")]
Method = Annotated[str | None, Option(metavar="NAME", help="See `priorpaint methods`; default: by operator and noise.")]


@with_options(JobOptions)
def restore(
    options: JobOptions,
    image: Image,
    operator: OperatorName,
    operator_settings: OperatorSettings = None,
    sigma_y: Noise = 0.0,
    method: Method = None,
    value_range: RangeOption = "full",
    page: PageOption = None,
) -> None:
    """Restore a small, blurred, noisy or grey picture, several times, and write the results into a folder.

    The results have the names that `priorpaint inpaint` gives.
    """
    from priorpaint.inpainting.restoration import plan_restoration

    settings = read_settings(operator_settings, "--set-operator", "factor=2")
    about: dict[str, Any] = {"operator": operator, "operator_settings": settings, "sigma_y": sigma_y}
    about |= {"value_range": value_range, "page": page}
    run(plan_restoration, image, options, y=image, method=method, **about)


def operators() -> None:
    """List the operators that `priorpaint restore` takes, with their settings."""
    from inspect import signature

    from priorpaint.operators import OPERATORS

    width = max(map(len, OPERATORS))
    for name, cls in OPERATORS.items():
        typer.echo(f"{name:<{width}}  {cls.title}; settings: {', '.join(signature(cls).parameters) or 'none'}")
