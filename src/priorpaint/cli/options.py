"""Options that more than one command takes, and how their texts are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from priorpaint.errors import UsageError

Out = Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the results.")]
Samples = Annotated[int, typer.Option("-n", "--samples", metavar="N", min=1, help="How many results.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Same seed, same results.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of the method; repeatable.")
]
PriorName = Annotated[str, typer.Option("--prior", metavar="NAME|PATH", help="See `priorpaint priors`; or a path.")]
Label = Annotated[int | None, typer.Option(metavar="CLASS", help="Class of the picture, for priors that know classes.")]
Prompt = Annotated[str | None, typer.Option(metavar="WORDS", help="What the picture shows, for priors that take text.")]
NegativePrompt = Annotated[str | None, typer.Option(metavar="WORDS", help="What to avoid.")]
Guidance = Annotated[
    float,
    typer.Option(
        metavar="WEIGHT", help="Weight of label or prompt (classifier-free guidance); 1 = the plain condition."
    ),
]
Fit = Annotated[str, typer.Option(metavar="windows|resize", help="How a prior of a fixed size sees other pictures.")]
PriorFlags = Annotated[
    str | None,
    typer.Option("--flags", metavar="FLAGS", help="What the prior's format cannot say, as in the model's README."),
]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing; hub models come from the cache.")]
Format = Annotated[
    str, typer.Option(metavar="FORMAT", help="png, jpg, webp (lossless), tiff, or same (as the picture).")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace results that exist already.")]
BatchSize = Annotated[int | None, typer.Option(metavar="N", min=1, help="Results computed together.")]
MaxMemory = Annotated[
    str | None, typer.Option("--max-memory", metavar="SIZE", help="Limit for weights and activations, such as 4GB.")
]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu or cuda; default: the GPU where there is one.")]
# Beyond 1024 threads torch itself fails.
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, metavar="N", help="CPU threads; default: torch's choice.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print run.json instead of the file names.")]


def read_settings(texts: Sequence[str] | None, option: str = "--set", example: str = "steps=50") -> dict[str, Any]:
    """KEY=VALUE each; a value is none, a list such as [3, 4], or a text that the method or operator converts.

    Raises:
        UsageError: a text of another form.
    """
    settings: dict[str, Any] = {}
    for text in texts or ():
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise UsageError(f"{option} takes KEY=VALUE, such as {example}, not {text!r}.")
        settings[key] = None if value.lower() == "none" else value
        if value.startswith("["):
            try:
                settings[key] = json.loads(value)
            except ValueError:
                raise UsageError(f"{option} {text}: a list is written like [3, 4] or [[1, 2], [2, 1]].") from None
    return settings


def with_settings(texts: Sequence[str] | None, **arguments: Any) -> dict[str, Any]:
    """The arguments of a job, with the settings of its method beside them.

    Raises:
        UsageError: a setting has the name of an argument.
    """
    settings = read_settings(texts)
    for key in settings.keys() & arguments.keys():
        raise UsageError(f"the method has no setting {key!r}; `priorpaint methods NAME` lists those that it has.")
    return {**arguments, **settings}


def use_threads(threads: int | None) -> None:
    """Set torch's number of CPU threads, where one was given."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
