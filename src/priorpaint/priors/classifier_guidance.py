"""Classifier guidance: the prior of pictures that a classifier takes for a class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..diffusion.transitions import like, tweedie_scale
from ..errors import PriorError, UsageError
from .base import Denoising, Prior, times_of
from .wrapped import WrappedPrior

LogProb = Callable[[Tensor, Tensor], Tensor]
"""(x_t (N, C, H, W), t (N,) in the dtype of x_t) -> log p(c | x_t) (N,), differentiable in x_t."""


class ClassifierGuidedPrior(WrappedPrior):
    """D' = D + scale (sigma_t^2 / alpha_t) grad log p(c | x_t)  (Dhariwal and Nichol 2021, Algorithm 2; Eq. 14).

    At scale 1 it is the denoiser of p(x | c), if the classifier is the true one of noisy pictures; otherwise that of no
    distribution: above 1 samples are more typical of the class and less diverse. The classifier's work is not counted:
    ``nfe`` counts the network of ``inner``.

    The classifier may be of any c: a class, several, or none at all, such as the log-likelihood of a measurement.

    Args:
        inner: the prior; one that knows classes can be under its own condition (`CFGPrior`) at the same time.
        log_prob: log p(c | x_t), in the coordinates of ``inner``'s x_t and at its times.
        scale: weight of the classifier, finite.

    Raises:
        UsageError: the scale is not finite.
    """

    def __init__(self, inner: Prior, log_prob: LogProb, scale: float = 1.0) -> None:
        super().__init__(inner)
        if not math.isfinite(scale):
            raise UsageError(f"the classifier's scale must be a finite number, not {scale}")
        self.log_prob, self.scale = log_prob, float(scale)

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        """The guided mean, and the variance that the network learned, as the authors take it.

        Raises:
            PriorError: the classifier gives no number a row, or one without a gradient.
        """
        out, times = self.inner.evaluate(x_t, t, given), times_of(t, x_t)
        weight = like(self.scale * tweedie_scale(self.schedule, times), x_t)
        return replace(out, mean=out.mean + weight * self._gradient(x_t, times))

    def _gradient(self, x_t: Tensor, times: Tensor) -> Tensor:
        """grad log p(c | x_t), (N, C, H, W), itself differentiable where x_t is."""
        watched = torch.is_grad_enabled() and x_t.requires_grad
        # The fused kernels of attention have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH) if watched else nullcontext():
            x = x_t if watched else x_t.detach().requires_grad_()
            log_prob = self.log_prob(x, times.to(x))
            if log_prob.shape != (len(x),):
                raise PriorError(
                    f"a classifier for guidance returns one log-probability a row, ({len(x)},), not "
                    f"{tuple(log_prob.shape)}; take the entry of the class"
                )
            if not log_prob.requires_grad:
                raise PriorError("the classifier's log-probability has no gradient by x_t, so that it cannot guide")
            (gradient,) = torch.autograd.grad(log_prob.sum(), x, create_graph=watched)
        return gradient
