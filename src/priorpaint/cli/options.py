"""Options that more than one command takes, and how their texts are read."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, get_type_hints

import typer

from priorpaint.errors import UsageError

_KEYWORD = Parameter.KEYWORD_ONLY
# Beyond 1024 threads torch itself fails.
Threads = Annotated[
    int | None, typer.Option(min=1, max=1024, metavar="N", help="CPU threads; default: torch's choice.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
Offline = Annotated[bool, typer.Option("--offline", help="Fetch nothing; hub models come from the cache.")]
Device = Annotated[str | None, typer.Option(metavar="DEVICE", help="cpu or cuda; default: the GPU where there is one.")]
GuidanceScale = Annotated[
    float,
    typer.Option(
        "--guidance",
        metavar="WEIGHT",
        help="Weight of label or prompt (classifier-free guidance); 1 = the plain condition.",
    ),
]
PriorSpec = Annotated[str, typer.Option(metavar="NAME|PATH", help="See `priorpaint priors`; or a path.")]
PriorFlags = Annotated[
    str | None,
    typer.Option("--flags", metavar="FLAGS", help="What the prior's format cannot say, as in the model's README."),
]


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
            except (ValueError, RecursionError):
                raise UsageError(f"{option} {text}: a list is written like [3, 4] or [[1, 2], [2, 1]].") from None
    return settings


def use_threads(threads: int | None) -> None:
    """Set torch's number of CPU threads, where one was given."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def with_options(group: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator for a command whose first argument is a dataclass of options: its fields become options, the last."""

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        hints = get_type_hints(group, include_extras=True)
        _, *own = signature(command, eval_str=True).parameters.values()
        defaults = {one.name: Parameter.empty if one.default is MISSING else one.default for one in fields(group)}
        of_group = [Parameter(name, _KEYWORD, default=defaults[name], annotation=hints[name]) for name in defaults]
        parameters = [*(parameter.replace(kind=_KEYWORD) for parameter in own), *of_group]

        @wraps(command)
        def run(**values: Any) -> None:
            options = group(**{parameter.name: values.pop(parameter.name) for parameter in of_group})
            command(options, **values)

        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorated
