"""``priorpaint restore``: super-resolution, deblurring, denoising and colours for a picture file."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .running import check_options, run

Image = Annotated[Path, typer.Argument(metavar="PICTURE", help="What was measured: the small, blurred, grey picture.")]
OperatorName = Annotated[
    str, typer.Option("--operator", metavar="NAME", help="What happened to it; `priorpaint operators` lists them.")
]
OperatorSettings = Annotated[
    list[str] | None,
    typer.Option("--set-operator", metavar="KEY=VALUE", help="A setting of the operator; repeatable."),
]
Noise = Annotated[
    float, typer.Option("--noise", metavar="STD", help="Standard deviation of its noise, values from -1 to 1.")
]
Method = Annotated[
    str | None, typer.Option(metavar="NAME", help="See `priorpaint methods`; default: by operator and noise.")
]


def restore(
    image: Image,
    operator: OperatorName,
    operator_settings: OperatorSettings = None,
    sigma_y: Noise = 0.0,
    out: options.Out = Path("out"),
    samples: options.Samples = 4,
    seed: options.Seed = 0,
    method: Method = None,
    settings: options.Settings = None,
    prior: options.PriorName = "photos",
    label: options.Label = None,
    prompt: options.Prompt = None,
    negative_prompt: options.NegativePrompt = None,
    guidance: options.Guidance = 1.0,
    fit: options.Fit = "windows",
    prior_flags: options.PriorFlags = None,
    offline: options.Offline = False,
    format: options.Format = "png",
    overwrite: options.Overwrite = False,
    batch_size: options.BatchSize = None,
    max_memory: options.MaxMemory = None,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    as_json: options.AsJson = False,
) -> None:
    """Restore a small, blurred, noisy or grey picture, several times, and write the results into a folder.

    The results have the names that `priorpaint inpaint` gives.
    """
    check_options(out, negative_prompt, guidance)
    options.use_threads(threads)
    from priorpaint.inpainting.restoration import plan_restoration

    arguments = options.with_settings(
        settings,
        y=image,
        operator=operator,
        operator_settings=options.read_settings(operator_settings, "--set-operator", "factor=2"),
        sigma_y=sigma_y,
        prior=prior,
        method=method,
        num_samples=samples,
        seed=seed,
        batch_size=batch_size,
        device=device,
        label=label,
        prompt=prompt,
        negative_prompt=negative_prompt,
        guidance_scale=guidance,
        max_memory=max_memory,
        fit=fit,
        prior_flags=prior_flags,
        offline=offline,
    )
    job = partial(plan_restoration, **arguments)
    run(job, image, samples, out, format, overwrite=overwrite, quiet=quiet, as_json=as_json)


def operators() -> None:
    """List the operators that `priorpaint restore` takes, with their settings."""
    from inspect import signature

    from priorpaint.operators import OPERATORS

    width = max(map(len, OPERATORS))
    for name, cls in OPERATORS.items():
        typer.echo(f"{name:<{width}}  {cls.title}; settings: {', '.join(signature(cls).parameters) or 'none'}")
