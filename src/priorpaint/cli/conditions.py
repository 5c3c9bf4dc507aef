"""Options about a prior and the condition that it is asked for, of the commands that work on a prior alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from typer import Option

from priorpaint.errors import UsageError

from .options import Device, GuidanceScale, Offline, PriorFlags, PriorSpec

if TYPE_CHECKING:
    from priorpaint.priors import Prior


@dataclass(frozen=True)
class PriorOptions:
    """Which prior, under which condition, on which machine."""

    prior: PriorSpec = "photos"
    label: Annotated[
        int | None, Option(metavar="CLASS", help="Class of the pictures, for priors that know classes.")
    ] = None
    prompt: Annotated[
        str | None, Option(metavar="WORDS", help="What the pictures show, for priors that take text.")
    ] = None
    guidance_scale: GuidanceScale = 1.0
    prior_flags: PriorFlags = None
    offline: Offline = False
    device: Device = None

    def load(self, precision: str | None = None) -> Prior:
        """The prior, under its condition, in a precision of `load_prior`.

        Raises:
            PriorpaintError: there is no such prior, it cannot be read, or it takes no such condition.
        """
        from priorpaint.priors import CFGPrior
        from priorpaint.priors.loading import dtype_named, load_prior

        dtype = dtype_named(precision)
        prior = load_prior(self.prior, flags=self.prior_flags, device=self.device, dtype=dtype, offline=self.offline)
        if self.label is None and self.prompt is None and self.guidance_scale == 1:
            prior.condition()  # a prior that needs a class says so now
            return prior
        return CFGPrior(prior, label=self.label, prompt=self.prompt, scale=self.guidance_scale)

    def facts(self, prior: Prior) -> dict[str, Any]:
        """What was asked for and loaded, in JSON values."""
        asked = {"label": self.label, "prompt": self.prompt, "guidance_scale": self.guidance_scale}
        return {"prior": {"name": prior.name, "spec": self.prior, "sha256": prior.hash}, **asked}


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of WIDTHxHEIGHT, or of one number for both.

    Raises:
        UsageError: a text of another form.
    """
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text.lower())
    if found is None:
        raise UsageError(f"--size is WIDTHxHEIGHT in pixels, such as 96x64, or one number for both, not {text!r}.")
    return int(found[2] or found[1]), int(found[1])
