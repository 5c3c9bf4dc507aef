"""PSLD: latent DPS, and a gluing term that keeps the latent a fixed point of decode, paste, encode.

Rout et al. 2023, "Solving Linear Inverse Problems Provably via Posterior Sampling with Latent Diffusion Models",
Algorithm 2, with one combined gradient of plain norms, as the published program has it, but one norm a sample.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ..diffusion.rng import Streams
from ..operators.base import LinearOperator, Operator
from ..priors.base import Prior
from .base import STRICT, Cost, Field, Graph, Task, settings
from .dps import _Guided, descending, norm
from .guidance import GuidedSolver


@settings(frozen=True, config=STRICT)
class PSLD(GuidedSolver, name="psld"):
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
    preset: Literal["corrected", "official"] = Field(
        "corrected",
        description="'official': as the published program, noise is added to the prediction at every step and glue is "
        "A^T y + x - A^T A x, which fits y for masks only",
    )

    def guide(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float = 0.0) -> Prior:
        return self._guided(prior, operator, y, sigma_y, None)

    def _guided_in(self, task: Task) -> Prior:
        return self._guided(task.prior, task.operator, task.y, task.sigma_y, task.noise)

    def _guided(self, prior: Prior, operator: Operator, y: Tensor, sigma_y: float, noise: Streams | None) -> _Guided:
        """The guided prior; ``noise`` is what the official program adds to the prediction."""
        assert isinstance(operator, LinearOperator)
        official = self.preset == "official"

        def loss(z_0: Tensor) -> Tensor:
            image = prior.decode(z_0)
            seen = operator(image)
            predicted = seen + sigma_y * noise.normal_like(seen) if official and noise is not None else seen
            misfit = self.omega * norm(y - operator.measured(predicted))
            if self.gamma == 0:
                return misfit
            glue = image + operator.adjoint(y - seen) if official else operator.project(image, y)
            return misfit + self.gamma * norm(prior.encode(glue) - z_0)

        return descending(prior, loss, lambda t: self.lever(prior.schedule, t))

    @property
    def graph(self) -> Graph:
        return Graph(1, 1, int(self.gamma > 0))

    def _shown(self, guided: Prior, x_0: Tensor) -> Tensor:
        return guided.plain if isinstance(guided, _Guided) else x_0

    def _one(self) -> Cost:
        return Cost(0, 1)
