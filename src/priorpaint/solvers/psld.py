"""PSLD: latent DPS, and a gluing term that keeps the latent a fixed point of decode, paste, encode.

Rout et al. 2023, "Solving Linear Inverse Problems Provably via Posterior Sampling with Latent Diffusion Models",
Algorithm 2, with one combined gradient of plain norms, as the published program has it, but one norm a sample.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from ..diffusion.rng import Streams
from ..operators.base import LinearOperator
from ..priors.base import Denoising
from .base import STRICT, Cost, Field, Graph, Problem, settings
from .dps import norm
from .guidance import MovingSolver
from .likelihoods import Denoised


@settings(frozen=True, config=STRICT)
class PSLD(MovingSolver, name="psld"):
    """z_s = STEP(eta)(z_t) - grad_{z_t} (omega ||y - A Dec(D)|| + gamma ||Enc(g) - D||), g = Dec(D) made to fit y."""

    title: ClassVar[str] = "PSLD"
    about: ClassVar[str] = "DPS for latent priors, with a term that glues known and filled parts together."
    reference: ClassVar[str] = "Rout et al., Solving Linear Inverse Problems with Latent Diffusion (PSLD), NeurIPS 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = "steps forward+backward, and of a latent prior as many decoded and encoded rows"
    through_decoder: ClassVar[bool] = True

    steps: int = Field(250, ge=1, description="steps of the time grid; the paper takes 1000")
    eta: float = Field(0.0, ge=0, le=1, description="noise of a step: 0 is DDIM, 1 is DDPM ancestral")
    omega: float = Field(0.1, ge=0, description="weight of the misfit, in units of variance-preserving latents")
    gamma: float = Field(0.1, ge=0, description="weight of the gluing term; 0 is latent DPS")
    preset: Literal["corrected", "reference"] = Field(
        "corrected",
        description="'reference': as the published program, noise is added to the prediction at every step and glue is "
        "A^T y + x - A^T A x, which fits y for masks only",
    )

    def move(
        self, problem: Problem, x_t: Tensor, t: Tensor, s: Tensor, noise: Streams | None
    ) -> tuple[Denoising, Tensor]:
        """(D, -grad_{z_t} (omega ||y - A Dec(D)|| + gamma ||Enc(g) - D||)); arguments as in `MovingSolver`."""
        prior, operator, y = problem.prior, problem.operator, problem.y
        assert isinstance(operator, LinearOperator)
        official, at = self.preset == "reference", Denoised(prior, x_t, t)
        with torch.enable_grad():
            image = prior.decode(at.graph)
            measured = operator(image)
            added = problem.sigma_y * noise.normal_like(measured) if official and noise is not None else 0
            loss = self.omega * norm(y - operator.measured(measured + added))
            if self.gamma > 0:
                glue = image + operator.adjoint(y - measured) if official else operator.project(image, y)
                loss = loss + self.gamma * norm(prior.encode(glue) - at.graph)
        (move,) = torch.autograd.grad(loss, at.x_t, -torch.ones_like(loss))
        return Denoising(at.x_0, at.variance_share), move

    @property
    def graph(self) -> Graph:
        return Graph(1, 1, int(self.gamma > 0))

    def _one(self) -> Cost:
        return Cost(0, 1)
