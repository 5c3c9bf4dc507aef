"""A prior under a condition: a class, a text, and classifier-free guidance (Ho and Salimans 2022)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from .base import Denoising, Prior, rows_of, times_of
from .info import Label
from .wrapped import WrappedPrior


class CFGPrior(WrappedPrior):
    """The denoiser of p(x | condition), or one that exaggerates the condition.

        D(x_t, t) = D_null + scale (D_given - D_null)      (Ho and Salimans 2022, Eq. 6, in terms of x_0)

    D_null is the denoiser without the condition, or under ``negative_prompt``. At scale 1 it has no weight and is not
    computed: one evaluation a row. At scale 0 only D_null is. At every other scale both run in one call of 2 N rows,
    which counts as 2 N evaluations. Above 1 the result is not the denoiser of any distribution: samples are more
    typical of the condition and less diverse.

    Args:
        inner: a prior that knows classes or takes text.
        label: class in 0 ... inner.classes - 1 of every row, or N of them, one a row: then every call must have N rows.
        prompt: what the picture shows.
        negative_prompt: what to avoid, in place of the empty text.
        scale: weight of the condition, finite.

    Raises:
        UsageError: the prior takes no such condition, or the scale asks for an unconditional denoiser that it has not.
    """

    def __init__(
        self,
        inner: Prior,
        *,
        label: Label | None = None,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        scale: float = 1.0,
    ) -> None:
        super().__init__(inner)
        if not math.isfinite(scale):
            raise UsageError(f"the guidance scale must be a finite number, not {scale}")
        if scale != 1 and label is None and prompt is None and negative_prompt is None:
            raise UsageError(f"a guidance scale of {scale:g} needs something to guide to; give a label or a prompt")
        self.label, self.prompt, self.negative_prompt, self.scale = label, prompt, negative_prompt, float(scale)
        self.full = inner.condition(label=label, prompt=prompt)
        self.null: Mapping[str, Tensor] = {}
        if negative_prompt is not None or self.scale != 1:
            self.null = self._unguided()
            self._check_pair()

    def _unguided(self) -> Mapping[str, Tensor]:
        """The state that guidance leads away from."""
        lacking = UsageError(
            f"guidance needs a state without a class, which the prior {self.name} does not have; leave guidance at "
            "1, or name a class that stands for none, where the model has one, with the flag null_class"
        )
        if not self.inner.info.null_state:
            raise lacking
        try:
            return self.inner.condition(prompt=self.negative_prompt)
        except UsageError:
            if self.label is None or self.negative_prompt is not None:
                raise
            raise lacking from None

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for, in JSON values."""
        label = None if self.label is None else torch.as_tensor(self.label).tolist()
        return {
            "label": label,
            "prompt": self.prompt,
            "negative_prompt": self.negative_prompt,
            "guidance_scale": self.scale,
        }

    @property
    def rows(self) -> int | None:
        """How many rows every call must have; None is any number."""
        counts = {len(value) for value in (*self.full.values(), *self.null.values())} - {1}
        return max(counts, default=None)

    def condition(self, *, label: Label | None = None, prompt: str | None = None) -> Mapping[str, Tensor]:
        if label is not None or prompt is not None:
            raise UsageError(f"the prior {self.name} is under a condition already; condition the prior inside")
        return {}

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        """The mean, and the variance that the network learned under the condition, where it learned any."""
        if self.scale == 1 or not self.null:
            return self.inner.evaluate(x_t, t, self.full)
        if self.scale == 0:
            return self.inner.evaluate(x_t, t, self.null)
        times = times_of(t, x_t).repeat(2)
        both = self.inner.evaluate(x_t.repeat(2, 1, 1, 1), times, self._both(len(x_t)))
        null, full = both.mean.chunk(2)
        share = None if both.variance_share is None else both.variance_share.chunk(2)[1]
        return Denoising(null + self.scale * (full - null), share)

    def _both(self, rows: int) -> Mapping[str, Tensor]:
        return {name: torch.cat([rows_of(g[name], rows) for g in (self.null, self.full)]) for name in self.full}

    def _check_pair(self) -> None:
        shapes = [{name: tuple(v.shape[1:]) for name, v in part.items()} for part in (self.full, self.null)]
        if shapes[0] != shapes[1]:
            raise UsageError(
                f"the prior {self.name} gives its condition and its unconditional state other shapes ({shapes[0]} and "
                f"{shapes[1]}), so they cannot be denoised together; use scale 1"
            )


def condition_inside(prior: Prior) -> CFGPrior | None:
    """The condition that a prior is under, however it is wrapped; None where there is none."""
    while isinstance(prior, WrappedPrior):
        if isinstance(prior, CFGPrior):
            return prior
        prior = prior.inner
    return None


def rescaled(prior: Prior, scale: float) -> Prior | None:
    """The prior with another guidance scale inside, or None where it is under no condition.

    Raises:
        UsageError: the scale asks for an unconditional denoiser that the prior has not.
    """
    if isinstance(prior, CFGPrior):
        ask = {"label": prior.label, "prompt": prior.prompt, "negative_prompt": prior.negative_prompt}
        return prior if prior.scale == scale else CFGPrior(prior.inner, **ask, scale=scale)  # type: ignore[arg-type]
    if not isinstance(prior, WrappedPrior):
        return None
    inner = rescaled(prior.inner, scale)
    if inner is None:
        return None
    around = copy.copy(prior)
    around.inner = inner
    return around
