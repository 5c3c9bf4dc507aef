"""p(y | z_t) of VIPaint, through the one-step estimate D(z_t, t)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ...diffusion.transitions import row_sum
from ...errors import UsageError
from ...operators.base import LinearOperator
from ...operators.inpainting import Inpainting
from ...priors.base import Prior
from ..likelihoods import Spectrum, informative, white_variance


@dataclass(frozen=True)
class Likelihood:
    """p(y | z_t) through the one-step estimate D = D(z_t), for R rows.

    gaussian: N(y; A D, sigma_y^2 I + r_t^2 A A^T); laplace: independent entries with mean absolute deviation
    (r_t^2 + sigma_y^2 / 2)^(1/2). r_t falls from ``scale`` at T_s to 0 at t = 0 like the posterior standard deviation
    of white data, data_std sigma_t (data_std^2 alpha_t^2 + sigma_t^2)^(-1/2), which ``scale`` None takes as it is,
    times the gain of the decoder where z is a latent: an error of the latent reaches the image in as many directions
    as the latent has elements, and ``decoder_gain`` is its mean length in one of them.
    With ``perceptual``, weight * values of an image * LPIPS(y, A D) is added: no density, but what VIPaint's authors
    minimise.

    Attributes:
        operator: A of the rows.
        y: (R, ...).
        t_start: T_s.
        constant: the normalising constant of -log p(y | z_Ts), (R,), see ``normalised``.
        gain: of the decoder.
        perceptual: distance (R,) of two image batches, for masks.
        perceptual_weight: its weight, in nats a value of an image.
    """

    prior: Prior
    operator: LinearOperator
    y: Tensor
    sigma_y: float
    kind: str
    scale: float | None
    t_start: Tensor
    constant: Tensor | None = None
    gain: float = 1.0
    perceptual: Callable[[Tensor, Tensor], Tensor] | None = None
    perceptual_weight: float = 1.0

    @property
    def pixels(self) -> int:
        """Values of one image."""
        return math.prod(self.operator.image_shape(self.y))

    def normalised(self) -> Likelihood:
        """With its constant, for the entries of y that carry information.

        With sigma_y = 0, y has a density on the range of A only, and the constant is the one there.
        """
        return replace(self, constant=self._constant().to(self.y))

    def rows(self, index: Tensor) -> Likelihood:
        """The likelihood of some rows, which may repeat."""
        row = index.to(self.y.device)
        constant = None if self.constant is None else self.constant[row]
        return replace(self, operator=self.operator.select(index), y=self.y[row], constant=constant)

    def std(self, t: Tensor) -> float:
        """r_t; t 0-d."""
        white = _white_std(self.prior, t)
        return self.gain * white if self.scale is None else self.scale * white / _white_std(self.prior, self.t_start)

    def negative_log(self, x_0: Tensor) -> Tensor:
        """-log p(y | D = x_0) at T_s, (R,), for x_0 (R, C, H, W) in the prior's space."""
        assert self.constant is not None
        return self.misfit(x_0, self.t_start) + self.constant.to(x_0)

    def misfit(self, x_0: Tensor, t: Tensor) -> Tensor:
        """-log p(y | D = x_0) at a 0-d t without its constant, (R,): the part that has a gradient."""
        y, y_hat = self.y.to(x_0.dtype), self.operator(self.prior.decode(x_0))
        loss = self._elementwise(y - y_hat, self.std(t))
        if self.perceptual is None:
            return loss
        return loss + self.perceptual_weight * self.pixels * self.perceptual(y, y_hat)

    def _elementwise(self, residual: Tensor, r: float) -> Tensor:
        if self.kind == "laplace":
            return row_sum(residual.abs()) / self._width(r)
        if r == 0:
            return 0.5 * row_sum(residual.square()) / self.sigma_y**2
        weighted = self.operator.solve(residual, (self.sigma_y / r) ** 2) / r**2
        return 0.5 * row_sum(residual * weighted)

    def explained(self, x_0: Tensor, t: Tensor) -> Tensor:
        """The mean of x_0' given y under N(x_0', x_0, r_t^2 I), for images x_0 (R, C, H, W): with sigma_y = 0, the
        image nearest to x_0 that agrees with y."""
        r = self.std(t)
        if self.sigma_y == 0:
            return self.operator.project(x_0, self.y.to(x_0))
        if r == 0:
            return x_0
        residual = self.y.to(x_0) - self.operator(x_0)
        return x_0 + self.operator.adjoint(self.operator.solve(residual, (self.sigma_y / r) ** 2))

    def _width(self, r: float) -> float:
        return math.hypot(r, self.sigma_y / 2**0.5)

    def _constant(self) -> Tensor:
        entries = informative(self.operator, self.y)
        r = self.std(self.t_start)
        if self.kind == "laplace":
            return entries * math.log(2 * self._width(r))
        if r == 0:
            return 0.5 * entries * math.log(2 * math.pi * self.sigma_y**2)
        spectrum = Spectrum(self.operator, self.operator.adjoint(self.y))
        if self.sigma_y == 0:
            log_det = spectrum.trace(lambda s: torch.where(s > 0, 2 * s.log() + math.log(2 * math.pi * r**2), 0))
            return 0.5 * log_det.to(entries).expand_as(entries)
        more = spectrum.trace(lambda s: (s * r / self.sigma_y).square().log1p())
        return 0.5 * (entries * math.log(2 * math.pi * self.sigma_y**2) + more.to(entries))


def perceptual_loss(
    weights: str | None, operator: LinearOperator, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """LPIPS with weights from a file, or None without one.

    Raises:
        UsageError: the operator is no mask, or the file cannot be read.
    """
    if weights is None:
        return None
    if not isinstance(operator, Inpainting):
        raise UsageError("LPIPS compares pictures, so VIPaint takes perceptual for masks only; leave it out")
    from ...metrics.lpips import LPIPS  # `import priorpaint` loads no metrics

    network = LPIPS(weights, device=device)
    return lambda y, y_hat: network(*(x.expand(-1, 3, -1, -1) for x in (y, y_hat)))  # grey is equal colours


def _white_std(prior: Prior, t: Tensor) -> float:
    return float(white_variance(prior, t).sqrt())
