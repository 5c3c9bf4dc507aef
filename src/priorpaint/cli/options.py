"""Options that more than one command takes, and how their texts are read."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
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
Precision = Annotated[
    str,
    typer.Option(
        metavar="float32|bfloat16", help="Of the network; bfloat16 is faster where processor or GPU has it, and rounds."
    ),
]
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


@dataclass(frozen=True)
class MaskOptions:
    """Options of all commands that make a hole: how, beside the mask file.

    Raises:
        UsageError: some that cannot be meant.
    """

    box: Annotated[
        list[str] | None, typer.Option("--box", metavar="X,Y,W,H", help="Repaint this box (pixels); repeatable.")
    ] = None
    mask_means: Annotated[str, typer.Option(metavar="repaint|keep", help="What white means in the mask.")] = "repaint"
    mask_from_alpha: Annotated[
        bool, typer.Option("--mask-from-alpha", help="Repaint what is transparent, with its soft rim.")
    ] = False
    mask_from: Annotated[
        str | None,
        typer.Option("--mask-from", metavar="nan", help="nan: repaint the values that are not numbers."),
    ] = None
    mask_color: Annotated[
        list[str] | None,
        typer.Option(
            "--mask-color",
            metavar="COLOR",
            help='Take this colour ("#ffff00") or stored value (15) of the mask for white; without a mask, repaint it '
            "in the picture; repeatable.",
        ),
    ] = None
    mask_diff: Annotated[
        Path | None, typer.Option("--mask-diff", metavar="PICTURE", help="Repaint where the picture differs from this.")
    ] = None
    tolerance: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="Of --mask-color and --mask-diff, of 255; default: 20, or 0 of a value."),
    ] = None
    turn_mask: Annotated[
        bool, typer.Option("--turn-mask", help="Turn the mask as the picture's EXIF orientation turns the picture.")
    ] = False
    invert: Annotated[bool, typer.Option("--invert", help="Repaint what would stay, and keep the rest.")] = False
    grow: Annotated[
        int, typer.Option(metavar="N", help="Make the hole larger by N pixels (smaller where N is negative).")
    ] = 0
    feather: Annotated[
        int, typer.Option(metavar="N", help="Blend with the picture's own pixels, N pixels into the hole.")
    ] = 0
    extend: Annotated[
        str | None,
        typer.Option(metavar="L,T,R,B", help="Paint beyond the borders: pixels on the left, above, right, below."),
    ] = None

    def arguments(self, mask: Path | None) -> dict[str, Any]:
        """Arguments of a plan, with the mask file that was named; - is what stdin holds.

        Raises:
            UsageError: options that contradict each other or cannot be read.
        """
        from priorpaint.imaging.masks import parse_box, parse_sides

        self._check(mask)
        return {
            "mask": "alpha" if self.mask_from_alpha else self.mask_from or (_piped() if str(mask) == "-" else mask),
            "boxes": [parse_box(text) for text in self.box or ()],
            "mask_means": self.mask_means,
            "mask_color": self.mask_color or None,
            "mask_diff": self.mask_diff,
            "tolerance": self.tolerance,
            "turn_mask": self.turn_mask,
            "invert": self.invert,
            "grow": self.grow,
            "feather": self.feather,
            "extend": None if self.extend is None else parse_sides(self.extend),
        }

    def _check(self, mask: Path | None) -> None:
        if self.mask_from not in (None, "nan"):
            raise UsageError(
                f"--mask-from takes nan, not {self.mask_from!r}; for transparency there is --mask-from-alpha."
            )
        own = "--mask-from-alpha" if self.mask_from_alpha else self.mask_from and f"--mask-from {self.mask_from}"
        if own and mask is not None:
            raise UsageError(f"{own} takes the place of a mask file; leave one of them out.")
        if self.mask_from_alpha and self.mask_from:
            raise UsageError("--mask-from-alpha and --mask-from nan are two ways to say what to repaint; choose one.")
        given = mask is not None or own or self.box or self.mask_color or self.mask_diff
        if not given and self.extend is None:
            raise UsageError(
                "there is nothing to repaint; give a mask file, --box X,Y,W,H or --mask-from-alpha (or "
                "--mask-from nan, --mask-color, --mask-diff or --extend)."
            )
        if mask is None and self.mask_means != "repaint":
            raise UsageError("--mask-means is about a mask file; everything else is always repainted (or --invert it).")
        if self.invert and self.mask_means == "keep":
            raise UsageError("--invert and --mask-means keep turn the mask round twice; leave one of them out.")
        if self.tolerance is not None and not (self.mask_color or self.mask_diff):
            raise UsageError("--tolerance is for --mask-color and --mask-diff; leave it out.")


def _piped() -> bytes:
    """What stdin holds.

    Raises:
        UsageError: nothing, or it is a terminal.
    """
    data = b"" if sys.stdin.isatty() else sys.stdin.buffer.read()
    if not data:
        raise UsageError("the mask - comes from a pipe and nothing came; use it as in: cat mask.png | priorpaint ...")
    return data


def with_options(*groups: type[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator for a command whose first arguments are dataclasses of options: their fields become options.

    They come behind the command's own, and those of the first dataclass come last.
    """

    def decorated(command: Callable[..., None]) -> Callable[..., None]:
        own = list(signature(command, eval_str=True).parameters.values())[len(groups) :]
        members = [_parameters(group) for group in groups]
        of_groups = [parameter for parameters in reversed(members) for parameter in parameters]
        parameters = [*(parameter.replace(kind=_KEYWORD) for parameter in own), *of_groups]

        @wraps(command)
        def run(**values: Any) -> None:
            options = [
                group(**{parameter.name: values.pop(parameter.name) for parameter in of_group})
                for group, of_group in zip(groups, members, strict=True)
            ]
            command(*options, **values)

        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorated


def _parameters(group: type[Any]) -> list[Parameter]:
    """The fields of a dataclass of options as parameters of a command."""
    hints = get_type_hints(group, include_extras=True)
    defaults = {one.name: Parameter.empty if one.default is MISSING else one.default for one in fields(group)}
    return [Parameter(name, _KEYWORD, default=defaults[name], annotation=hints[name]) for name in defaults]
