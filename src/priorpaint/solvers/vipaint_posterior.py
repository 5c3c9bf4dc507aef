"""A fitted posterior of VIPaint: it can be kept, and sampled again without fitting."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Seed, Streams, derive, image_seeds
from ..operators.base import LinearOperator
from ..priors.base import Prior
from .base import Callback
from .vipaint_bound import Family, Parts, Variational

if TYPE_CHECKING:
    from .vipaint import VIPaint


@dataclass(frozen=True)
class Posterior:
    """q(z_Te, ..., z_Ts) of each of B images, with what it takes to draw samples from it.

    Attributes:
        solver: the settings that it was fitted with and is sampled with.
        prior, operator, y, sigma_y: the problem; y (B, ...).
        parameters: each (B, K, C, H, W).
        losses: the four parts of the bound in nats, each (B, iterations), at the parameters before the update.
        objective: what was minimised, (B, iterations): the parts weighted as the preset says.
    """

    solver: VIPaint
    prior: Prior
    operator: LinearOperator
    y: Tensor
    sigma_y: float
    parameters: Variational
    losses: Parts
    objective: Tensor

    @property
    def family(self) -> Family:
        """q and p."""
        return Family(self.prior, self.solver.ladder(self.prior), self.solver.rules, self.prior.denoise)

    @torch.no_grad()
    def ancestral(self, num_samples: int, *, seed: Seed = 0, batch_size: int | None = None) -> Tensor:
        """z_Ts ~ q, (B, num_samples, C, H, W) in the prior's space; levels - 1 network calls a sample."""
        images = [image for image in range(len(self.y)) for _ in range(num_samples)]
        samples = list(range(num_samples)) * len(self.y)
        seeds = image_seeds(seed, self.y)
        size = batch_size or max(len(images), 1)
        shape = self.parameters.mean.shape[1:]
        done = []
        for first in range(0, len(images), size):
            chunk = slice(first, first + size)
            rows = zip(images[chunk], samples[chunk], strict=True)
            noise = Streams([derive("hierarchy", seeds[i], k) for i, k in rows], device=self.prior.device)
            lam = self.parameters.rows(torch.tensor(images[chunk]))
            done.append(self.family.ancestral(lam, noise.normal(*shape).to(lam.mean)))
        return torch.cat(done).reshape(len(self.y), num_samples, *shape[1:])

    def sample(
        self,
        num_samples: int = 1,
        *,
        seed: Seed = 0,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """Samples (B, num_samples, C, H, W), float32; sample i is the same for any num_samples and batch_size.

        Args:
            num_samples: samples of each image, >= 1.
            seed: an int, or one an image.
            batch_size: rows (image, sample) at a time; None is all of them.
            callback: called as callback(step, total, x0_estimate) in phase 2; may raise ``Cancelled``.

        Raises:
            UsageError: num_samples or batch_size below 1.
            Cancelled: from the callback.
        """
        if num_samples < 1 or (batch_size is not None and batch_size < 1):
            raise UsageError(f"num_samples and batch_size must be at least 1, not {num_samples} and {batch_size}")
        z = self.ancestral(num_samples, seed=seed, batch_size=batch_size)
        return self.solver.refine(
            self.prior,
            self.operator,
            self.y,
            z,
            sigma_y=self.sigma_y,
            seed=seed,
            batch_size=batch_size,
            callback=callback,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that the fit found, as tensors on the CPU (``safetensors.torch.save_file`` keeps it in a file);
        ``VIPaint.restore`` takes it back."""
        state = {f"parameters.{field.name}": getattr(self.parameters, field.name) for field in fields(Variational)}
        state |= {f"losses.{field.name}": getattr(self.losses, field.name) for field in fields(Parts)}
        state |= {"objective": self.objective, "y": self.y}
        state["sigma_y"] = torch.tensor(self.sigma_y, dtype=torch.float64)
        state["levels"] = self.solver.ladder(self.prior).levels
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    @classmethod
    def from_state(cls, solver: VIPaint, prior: Prior, operator: LinearOperator, state: dict[str, Tensor]) -> Posterior:
        """See ``VIPaint.restore``."""
        expected = {f"parameters.{field.name}" for field in fields(Variational)}
        expected |= {f"losses.{field.name}" for field in fields(Parts)} | {"objective", "y", "sigma_y", "levels"}
        missing = ", ".join(sorted(expected - state.keys()))
        if missing:
            raise UsageError(f"this is not the state of a VIPaint posterior: {missing} is missing")
        levels = solver.ladder(prior).levels
        if state["levels"].shape != levels.shape or not torch.allclose(state["levels"].cpu(), levels):
            raise UsageError(
                f"the posterior was fitted at the times {_numbers(state['levels'])} and these settings and prior give "
                f"{_numbers(levels)}; use the settings and the prior of the fit"
            )
        place = {name: value.to(prior.device) for name, value in state.items() if name.startswith("parameters.")}
        return cls(
            solver,
            prior,
            operator,
            state["y"].to(prior.device),
            float(state["sigma_y"]),
            Variational(*(place[f"parameters.{field.name}"] for field in fields(Variational))),
            Parts(*(state[f"losses.{field.name}"] for field in fields(Parts))),
            state["objective"],
        )


def _numbers(times: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in times.tolist())
