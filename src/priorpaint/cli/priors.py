"""``priorpaint priors``: what priors come with the package, and what one file says about itself."""

from __future__ import annotations

from typing import Annotated

import typer

from priorpaint.priors.loading import PRIORS, embedded_file, load_prior


def priors(name: Annotated[str | None, typer.Argument(help="A prior or weights file, to see more.")] = None) -> None:
    """List the embedded priors, or what is known about one."""
    if name is None:
        width = max(map(len, PRIORS))
        for key, embedded in PRIORS.items():
            missing = "" if embedded_file(key).is_file() else " (its weights are missing from this installation)"
            typer.echo(f"{key:<{width}}  {embedded.description}{missing}")
        typer.echo("Any weights file or output folder of `priorpaint train` works as well: --prior PATH", err=True)
        return
    prior = load_prior(name, device="cpu")
    size = sum(weight.numel() for weight in prior.parameters())
    typer.echo(f"{prior.name}: {PRIORS[name].description if name in PRIORS else 'trained with priorpaint train'}")
    typer.echo(f"  file        {prior.source}")
    typer.echo(f"  sha256      {prior.hash}")
    typer.echo(f"  parameters  {size / 1e6:.2f} million")
    typer.echo(f"  pictures    {prior.shape[0]} channels, any size")
    typer.echo(f"  noise       sigma {prior.metadata.sigma_min:g} to {prior.metadata.sigma_max:g} (values in [-1, 1])")
    for key, value in prior.metadata.training.items():
        typer.echo(f"  training    {key}: {value}")
