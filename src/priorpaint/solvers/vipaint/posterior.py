"""A fitted posterior of VIPaint: it can be saved, and sampled again without fitting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Protocol, cast

import torch
from torch import Tensor

from ...diffusion.rng import Seed, Streams, derive, image_seeds
from ...errors import UsageError
from ...operators.base import LinearOperator
from ...priors.base import Prior
from ..base import Callback, Job, PosteriorSampler, Problem
from ..smc.particles import Proposal
from ..smc.solver import Population
from .correction import Refinement, choose, propose
from .family import Family
from .variables import Ladder, Mixture, Parts, Path


class Method(Protocol):
    """What a posterior asks of the settings that it was fitted with; `VIPaint` has it."""

    @property
    def chains(self) -> int: ...
    @property
    def corrected(self) -> bool: ...
    @property
    def particles(self) -> int: ...
    @property
    def up_steps(self) -> int: ...
    @property
    def widen(self) -> float: ...
    def sampling_prior(self, prior: Prior) -> Prior: ...
    def ladder(self, prior: Prior) -> Ladder: ...
    def bound(self, prior: Prior) -> Family: ...
    def refine(self, job: Job) -> Tensor: ...
    def refinement(self, prior: Prior, shape: tuple[int, int, int]) -> Refinement: ...


@dataclass(frozen=True)
class Posterior:
    """q(z_Te, ..., z_Ts) of each of B images, with what it takes to draw samples from it.

    z are in variance-preserving coordinates (`NormalisedPrior`) and, of a latent prior, latents; samples are images.

    Attributes:
        solver: the settings that it was fitted with and is sampled with.
        prior, operator, y, sigma_y: the problem, the prior in these coordinates; y (B, ...).
        parameters: of M components, each (B, M, K, C, H, W) and (B, M).
        losses: the parts of the bound in nats, each (B, iterations), at the parameters before the update.
        objective: what was minimised, (B, iterations): the parts weighted as the preset says.
    """

    solver: Method
    prior: Prior
    operator: LinearOperator
    y: Tensor
    sigma_y: float
    parameters: Mixture
    losses: Parts
    objective: Tensor

    @property
    def family(self) -> Family:
        """q and p."""
        return self.solver.bound(self.solver.sampling_prior(self.prior))

    @property
    def weights(self) -> Tensor:
        """pi, the components' weights, (B, M)."""
        return self.parameters.log_weights.exp()

    def ancestral(self, num_samples: int, *, seed: Seed = 0, batch_size: int | None = None) -> Tensor:
        """z_Ts ~ q, (B, num_samples, C, H, W), in the coordinates of ``prior``; levels - 1 network calls a sample."""
        return self._ancestral(num_samples, image_seeds(seed, self.y), batch_size)

    @torch.no_grad()
    def _ancestral(self, num_samples: int, seeds: list[int], batch_size: int | None) -> Tensor:
        done = [path.levels[-1] for path in self._paths(num_samples, seeds, batch_size)]
        return torch.cat(done).reshape(len(self.y), num_samples, *done[0].shape[1:])

    def _paths(self, num_samples: int, seeds: list[int], batch_size: int | None) -> Iterator[Path]:
        """z_Te, ..., z_Ts ~ q of the rows (image, sample), ``batch_size`` at a time."""
        images = torch.arange(len(self.y)).repeat_interleave(num_samples)
        samples = torch.arange(num_samples).repeat(len(self.y))
        component = self._components(seeds, num_samples).flatten()
        shape = self.parameters.mean.shape[2:]
        for chunk in torch.split(torch.arange(len(images)), batch_size or max(len(images), 1)):
            rows = zip(images[chunk].tolist(), samples[chunk].tolist(), strict=True)
            noise = Streams([derive("hierarchy", seeds[i], k) for i, k in rows], device=self.prior.device)
            lam = self.parameters.rows(images[chunk], component[chunk].to(self.parameters.mean.device))
            yield self.family.path(lam, noise.normal(*shape).to(lam.mean))

    def _components(self, seeds: list[int], num_samples: int) -> Tensor:
        """The component of each sample, (B, num_samples).

        Samples stand at u, u + g, u + 2 g ... modulo 1 with the golden section g and u uniform: sample i does not
        depend on how many there are, and the first samples, however many, fall almost evenly over pi.
        """
        start = Streams([derive("component", seed) for seed in seeds]).uniform(1).double()
        u = (start + torch.arange(num_samples, dtype=torch.float64) * (math.sqrt(5) - 1) / 2) % 1
        return choose(self.weights, u)

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
        return self.draw(self._job("num_samples", num_samples, seed, batch_size, callback))

    def expanded(self, count: int) -> Posterior:
        """The posterior of one image as that of ``count`` copies of it, each with its own seed; itself for as many."""
        if len(self.y) == count:
            return self
        problem = Problem(self.prior, self.operator, self.y).rows(count)
        index = torch.zeros(count, dtype=torch.long)
        parameters = Mixture(*(value[index] for value in self.parameters.tensors()))
        operator = cast(LinearOperator, problem.operator)
        return replace(self, operator=operator, y=problem.y, parameters=parameters)

    def draw(self, job: Job) -> Tensor:
        """``sample`` with checked arguments."""
        job = replace(job, operator=self.operator)
        if self.solver.corrected:
            refinement = self.solver.refinement(self.prior, job.shape)
            return refinement.samples(job, self._proposal(job, math.ceil(job.num_samples / refinement.num_kept)))
        z = self._ancestral(job.num_samples, job.seeds, job.batch_size)
        return self.solver.refine(replace(job, initial=z))

    def population(
        self,
        groups: int = 1,
        *,
        seed: Seed = 0,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Population:
        """All particles of some groups with their weights, ESS at every level and evidence, also without ``correct``.

        The groups start like those that ``sample`` draws from with ``correct``, and none of their particles is dropped.

        Args:
            groups: independent groups of each image, >= 1.
            seed, batch_size, callback: as in ``sample``.

        Raises:
            UsageError: groups or batch_size below 1.
            PriorError: weights or Jacobians that are not finite.
            Cancelled: from the callback.
        """
        job = self._job("groups", groups, seed, batch_size, callback)
        return self.solver.refinement(self.prior, job.shape).populations(job, self._proposal(job, groups))

    def _job(self, name: str, count: int, seed: Seed, batch_size: int | None, callback: Callback | None) -> Job:
        if count < 1 or (batch_size is not None and batch_size < 1):
            raise UsageError(f"{name} and batch_size must be at least 1, not {count} and {batch_size}")
        channels, height, width = self.parameters.mean.shape[3:]
        problem, seeds = (self.prior, self.operator, self.y, self.sigma_y), image_seeds(seed, self.y)
        return Job(*problem, count, seeds, batch_size, callback, (channels, height, width))

    def _proposal(self, job: Job, groups: int) -> Proposal:
        """``groups`` weighted groups of particles at T_s for each image."""
        t_start = self.family.ladder.levels[-1]
        return propose(
            self.family,
            self.parameters,
            [[derive("proposal", seed, group) for group in range(groups)] for seed in job.seeds],
            self.solver.particles,
            self.solver.refinement(self.prior, job.shape).above(self.prior, job.shape, t_start, self.solver.up_steps),
            self.solver.widen,
            job.batch_size,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The result of the fit, as tensors on the CPU (``safetensors.torch.save_file`` writes them to a file);
        ``VIPaint.restore`` takes it back."""
        state = {f"parameters.{field.name}": getattr(self.parameters, field.name) for field in fields(Mixture)}
        state |= {f"losses.{name}": value for name, value in self.losses._asdict().items()}
        state |= {"objective": self.objective, "y": self.y}
        state["sigma_y"] = torch.tensor(self.sigma_y, dtype=torch.float64)
        state["levels"] = self.solver.ladder(self.prior).levels
        state["variance_preserving"] = torch.ones(())  # the coordinates of the parameters
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    @classmethod
    def from_state(cls, solver: Method, prior: Prior, operator: LinearOperator, state: dict[str, Tensor]) -> Posterior:
        """See ``VIPaint.restore``."""
        expected = {f"parameters.{field.name}" for field in fields(Mixture)}
        expected |= {f"losses.{name}" for name in Parts._fields}
        expected |= {"objective", "y", "sigma_y", "levels", "variance_preserving"}
        missing = ", ".join(sorted(expected - state.keys()))
        if missing == "variance_preserving":
            raise UsageError("this posterior was saved by priorpaint 0.1, in other coordinates; fit it again")
        if missing:
            raise UsageError(f"this is not the state of a VIPaint posterior: {missing} is missing")
        levels = solver.ladder(prior).levels
        if state["levels"].shape != levels.shape or not torch.allclose(state["levels"].cpu(), levels):
            raise UsageError(
                f"the posterior was fitted at the times {_numbers(state['levels'])} and these settings and prior give "
                f"{_numbers(levels)}; use the settings and the prior of the fit"
            )
        components = state["parameters.logits"].shape[-1]
        if components != solver.chains:
            raise UsageError(f"the posterior has {components} components, these settings ask for {solver.chains}")
        return cls(
            solver,
            prior,
            operator,
            state["y"].to(prior.device),
            float(state["sigma_y"]),
            Mixture(*(state[f"parameters.{field.name}"].to(prior.device) for field in fields(Mixture))),
            Parts(*(state[f"losses.{name}"] for name in Parts._fields)),
            state["objective"],
        )

    @torch.no_grad()
    def expectations(self, num_samples: int = 1, *, seed: Seed = 0, batch_size: int | None = None) -> Tensor:
        """E_p[x_0 | z_t] at T_e, ..., T_s, where samples come from (VIPaint, Fig. 1), (B, num_samples, K, C, H, W).

        They are images, on the paths through q whose ends ``sample`` refines with the same seed (without ``correct``,
        which has particles of its own). 2 levels - 1 network calls a sample.

        Args:
            num_samples, seed, batch_size: as in ``sample``.

        Raises:
            UsageError: num_samples or batch_size below 1.
        """
        job = self._job("num_samples", num_samples, seed, batch_size, None)
        family = self.family
        done = []
        for path in self._paths(num_samples, job.seeds, batch_size):
            latents = [family.denoise(z, t) for z, t in zip(path.levels, family.ladder.levels, strict=True)]
            done.append(torch.stack([self.prior.decode(x_0).float() for x_0 in latents], 1))
        return torch.cat(done).reshape(len(self.y), num_samples, *done[0].shape[1:])


@dataclass(frozen=True)
class FittedSampler(PosteriorSampler):
    """Phase 2 with one seed a sample; what was fitted is shared."""

    posterior: Posterior

    def sample(
        self, seeds: Sequence[int], *, initial: Tensor | None = None, callback: Callback | None = None
    ) -> Tensor:
        if initial is not None:
            raise UsageError("VIPaint does not start from given images; use a method with the setting t_init")
        solver, rows = self.posterior.solver, self.posterior.expanded(len(seeds))
        size = solver.particles if solver.corrected else None  # a group is as large as many samples: one at a time
        return rows.sample(1, seed=list(seeds), batch_size=size, callback=callback)[:, 0]

    def draw(
        self, num_samples: int, *, seed: int, batch_size: int | None = None, callback: Callback | None = None
    ) -> Tensor:
        return self.posterior.sample(num_samples, seed=[seed], batch_size=batch_size, callback=callback)[0]


def _numbers(times: Tensor) -> str:
    return ", ".join(f"{value:.4g}" for value in times.tolist())
