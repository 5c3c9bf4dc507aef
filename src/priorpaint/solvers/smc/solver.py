"""Twisted sequential Monte Carlo: guided particles, weighted so that the bias of the guidance cancels.

Wu, Trippe, Naesseth, Blei, Cunningham 2023, "Practical and Asymptotically Exact Conditional Sampling in Diffusion
Models" (twisted diffusion sampler, Algorithm 1), with moment-matching twists (Rozet et al. 2024) and kernels of second
order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from ...diffusion import transitions
from ...diffusion.rng import Seed
from ...errors import PriorError, UsageError
from ...operators.base import Operator
from ...priors.base import Denoising, Prior
from ..base import STRICT, VARIANCE, Callback, Cost, Field, Job, Solver, Task, Variance, settings
from ..dps import DPS
from ..guidance import LikelihoodSolver
from ..mmps import MMPS
from ..pigdm import PiGDM
from ..tmpd import TMPD
from .particles import Particles, Proposal
from .resampling import effective_share, log_mean, systematic
from .twists import DenseTwist, Level, LikelihoodTwist, Twist, algebra_device, move, pick

_MOST = 1024  # image elements up to which the whole Jacobian of every particle is computed
_METHODS: dict[str, LikelihoodSolver] = {
    "mmps_cg": MMPS(),  # type: ignore[call-arg]
    "tmpd": TMPD(),  # type: ignore[call-arg]
    "pigdm": PiGDM(form="strict"),  # type: ignore[call-arg]
    "dps": DPS(guidance="likelihood", widen=True),  # type: ignore[call-arg]
}
_THROUGH_DECODER = ("mmps", "mmps_cg", "dps")
_FLOOR = 1e-3  # y is never taken as more exact than this share of data_std, so that every twist has a density
_DECODER_NOISE = 0.02  # sigma_y of noise-free y with a latent prior: no decoder meets a picture better than at 40 dB


@dataclass(frozen=True)
class Population:
    """Weighted particles: the posterior as SMC sees it, B images with G independent groups of K particles.

    Attributes:
        images: (B, G, K, C, H, W), float32.
        log_weights: (B, G, K) float64, normalised in each group: their exp sums to 1.
        ess: effective sample size over K at each level, before resampling, (B, G, steps); of the worst block.
        ancestors: how many of the K first particles have descendants in the end, (B, G); in the worst block.
        log_evidence: estimate of log p(y), (B, G), in the density of the informative entries of y.
        blocks: blocks that were resampled by themselves at the last level, (B, G); 1 without ``local``.
    """

    images: Tensor
    log_weights: Tensor
    ess: Tensor
    ancestors: Tensor
    log_evidence: Tensor
    blocks: Tensor

    @property
    def log_evidence_of_image(self) -> Tensor:
        """The groups' estimates of p(y) averaged, as a logarithm, (B,)."""
        return log_mean(self.log_evidence)


@settings(frozen=True, config=STRICT)
class SMC(Solver, name="smc"):
    """x_s ~ q(x_s | x_t, y), weighted by p(x_s | x_t) tw_s(x_s) / (q(x_s | x_t) tw_t(x_t)), resampled where ESS is low.

    Samples come from groups of particles that are always simulated whole: sample i of an image is
    particle i % num_kept of group i // num_kept.
    """

    title: ClassVar[str] = "SMC (twisted diffusion sampler)"
    about: ClassVar[str] = "Many weighted particles; exact in the limit, for small problems."
    reference: ClassVar[str] = "Wu et al., Practical and Asymptotically Exact Conditional Sampling, NeurIPS 2023"
    needs: ClassVar[frozenset[str]] = frozenset({"gradient", "linear"})
    cost_formula: ClassVar[str] = (
        "steps (full_share particles / num_kept + 1 - full_share) forward+backward, each with C H W backward passes "
        "(twist mmps)"
    )

    through_decoder: ClassVar[bool] = True

    steps: int = Field(50, ge=1, description="levels of the time grid, one denoiser call of each particle at each")
    particles: int = Field(16, ge=1, description="particles of a group, K")
    num_kept: int = Field(4, ge=1, description="samples that a group gives, at most as many as particles")
    twist: Literal["mmps", "mmps_cg", "tmpd", "pigdm", "dps"] = Field(
        "mmps", description="guess of p(y | x_t): 'mmps' from the whole Jacobian, or the likelihood of a method"
    )
    kernel: Literal["dense", "scalar", "first"] = Field(
        "dense", description="covariance of a step: v I + b^2 V ('dense'), v + b^2 tr(V)/d ('scalar') or v ('first')"
    )
    variance: Variance | None = Field(None, description=f"kernel 'first': {VARIANCE}")
    full_share: float = Field(
        0.7, ge=0, le=1, description="share of the levels that all particles walk, before num_kept of them go on"
    )
    threshold: float = Field(0.5, ge=0, le=1, description="resample where ESS is below this share of the particles")
    local: float = Field(
        0.0, ge=0, lt=1, description="resample blocks of elements by themselves if correlated less than this; 0: never"
    )
    top: float | None = Field(
        None, gt=0, description="sigma/alpha of the first level; None is data_std max(10, 2.5 sqrt(C H W))"
    )
    bottom: float | None = Field(
        None, gt=0, description="sigma/alpha of the last level; None is 0.01 data_std, 0.05 with kernel 'dense'"
    )
    rho: float = Field(7.0, gt=0, description="levels are uniform in (sigma/alpha)^(1/rho)")
    paste: bool = Field(True, description="with sigma_y = 0, make the result agree with y exactly at the end")

    def __post_init__(self) -> None:
        if self.num_kept > self.particles:
            raise UsageError(
                f"{self.particles} particles cannot give num_kept = {self.num_kept} samples; lower num_kept"
            )
        if self.kernel == "dense" and self.twist != "mmps":
            raise UsageError("kernel 'dense' needs the whole Jacobian, which only twist 'mmps' computes")
        if self.variance in ("large", "learned") and self.kernel != "first":
            raise UsageError(
                f"variance {self.variance!r} belongs to kernel 'first'; kernel {self.kernel!r} computes its own"
            )
        if self.local and (self.twist != "mmps" or self.kernel != "dense"):
            raise UsageError("local resampling needs twist 'mmps' and kernel 'dense'")

    def cost(self, num_samples: int = 1) -> Cost:
        wide = self._wide_levels()
        a_group = wide * self.particles + (self.steps - wide) * self.num_kept
        calls = math.ceil(num_samples / self.num_kept) * a_group
        if self.twist == "mmps":
            return Cost(0, calls)
        passes = 2 if self.twist == "mmps_cg" else 1  # log det takes as many as the gradient
        return Cost(0, (passes * _METHODS[self.twist]._one().backward + (self.kernel == "scalar")) * calls)

    def _steps(self) -> int:
        return self.steps

    def _wide_levels(self) -> int:
        """Levels that all particles walk."""
        return max(1, math.ceil(self.full_share * self.steps))

    def run(
        self,
        prior: Prior,
        operator: Operator,
        y: Tensor,
        *,
        sigma_y: float = 0.0,
        groups: int = 1,
        seed: Seed = 0,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> Population:
        """All particles of some groups with their weights; none is dropped (``num_kept``).

        Args:
            groups: independent groups of each image.
            batch_size: particles denoised at a time.
            prior, operator, y, sigma_y, seed, callback: as in ``sample``.

        Raises:
            UsageError: arguments that do not fit together.
            PriorError: weights or Jacobians that are not finite.
            Cancelled: from the callback.
        """
        return self.populations(self._job(prior, operator, y, sigma_y, groups, seed, batch_size, callback))

    def populations(self, job: Job, start: Proposal | None = None) -> Population:
        """``run`` with checked arguments; ``num_samples`` counts groups, which ``start`` holds in order of images."""
        parts = [self._population(*at, job.batch_size) for at in self._groups(job, job.num_samples, start)]
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        return Population(*(column.reshape(len(job.y), job.num_samples, *column.shape[1:]) for column in columns))

    def _sample(self, job: Job) -> Tensor:
        return self.samples(job)

    def samples(self, job: Job, start: Proposal | None = None) -> Tensor:
        """``sample`` with checked arguments; ``start`` holds all groups in order of images."""
        groups = self._groups(job, math.ceil(job.num_samples / self.num_kept), start)
        done = torch.cat([self._samples(*at, job.batch_size) for at in groups])
        return done.reshape(len(job.y), -1, *done.shape[2:])[:, : job.num_samples]

    def _groups(self, job: Job, count: int, start: Proposal | None) -> Iterator[tuple[Task, Proposal | None]]:
        """Tasks with a row a group, ``count`` groups of each image, and what each starts from."""
        size = None if job.batch_size is None else max(1, job.batch_size // self.particles)
        first = 0
        for task in self._tasks(replace(job, num_samples=count, batch_size=size)):
            yield task, None if start is None else start.groups(first, len(task.y))
            first += len(task.y)

    def _run(self, task: Task) -> Tensor:
        return self._samples(task, None, None).flatten(0, 1)

    def _samples(self, task: Task, start: Proposal | None, limit: int | None) -> Tensor:
        """``num_kept`` images of each group, (N, num_kept, C, H, W)."""
        particles = self._simulate(task, start, limit, self._wide_levels())
        u, order = self._uniform(task, particles.log_weights.shape[2]), self._uniform(task, self.num_kept).argsort(1)
        chosen = systematic(particles.by_block, particles.shared(u), self.num_kept)
        # Systematic resampling sorts by ancestor; a random order makes the first sample like all others.
        chosen = chosen.gather(1, order[..., None].expand_as(chosen))
        return self._images(task, pick(particles.x, chosen), limit)

    def _population(self, task: Task, start: Proposal | None, limit: int | None) -> tuple[Tensor, ...]:
        """The fields of ``Population`` for N groups."""
        particles = self._simulate(task, start, limit, self.steps)
        evidence = particles.evidence
        if particles.log_weights.shape[2] > 1:  # blocks of different weight do not make a particle with a weight
            u = self._uniform(task, particles.log_weights.shape[2])
            particles.resample(torch.ones_like(u, dtype=torch.bool), u, self.particles)
        ancestors = torch.tensor([min(len(site.unique()) for site in group.mT) for group in particles.ancestors])
        blocks = (1 / particles.joined.sum(2)).sum(1).round().long()
        ess = torch.stack([level.amin(1) for level in particles.ess], 1)
        log_weights = torch.log_softmax(particles.by_block[..., 0], 1)
        return self._images(task, particles.x, limit), log_weights, ess, ancestors, evidence, blocks

    @torch.no_grad()
    def _images(self, task: Task, x_0: Tensor, limit: int | None) -> Tensor:
        """Images (N, n, C, H, W), float32, of x_0 (N, n, d), ``limit`` decoded at a time."""
        count = x_0.shape[1]
        rows = x_0.reshape(-1, *task.shape).to(device=task.prior.device, dtype=torch.float32)
        images = torch.cat([task.prior.decode(part).float() for part in torch.split(rows, limit or len(rows))])
        if self.paste and task.sigma_y == 0:
            index = torch.arange(len(x_0)).repeat_interleave(count)
            images = task.operator.select(index).project(images, task.y[index.to(task.y.device)])
        return images.reshape(-1, count, *images.shape[1:])

    @torch.no_grad()
    def _simulate(self, task: Task, start: Proposal | None, limit: int | None, wide: int) -> Particles:
        """The particles at t = 0, denoised ``limit`` at a time; ``num_kept`` of them from level ``wide`` on."""
        schedule, times = task.prior.schedule, self._times(task.prior, task.shape)
        twist = self._twist(task, limit)
        particles = self._start(task, start, times[0], twist)
        last_twist = torch.zeros_like(particles.log_weights)
        for index, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            level = twist.evaluate(particles.x, t, task.noise)
            particles.joined = twist.joined
            particles.log_weights = particles.log_weights + level.log_twist - last_twist
            reduced = index + 1 == wide < self.steps
            level = self._select(task, particles, level, self.num_kept if reduced else None)
            if reduced:
                twist.resize(self.num_kept)
            task.report(index + 1, self._preview(task, particles, level))
            a, b = transitions.backward_weights(schedule, t, s)
            v = transitions.ancestral_std(schedule, t, s, self._share(level)) ** 2
            z = task.noise.normal(*particles.x.shape[1:]).to(particles.x)
            particles.x, log_ratio = move(level, particles.x, a, b, v, z)
            particles.log_weights = particles.log_weights + log_ratio
            last_twist = level.log_twist
        return particles

    def _share(self, level: Level) -> Tensor | float:
        """Where the log variance of a step lies between the smallest and the largest; with V, it is the smallest."""
        return Denoising(level.x_0, level.variance_share).share(self.variance) if self.kernel == "first" else 0.0

    def _start(self, task: Task, start: Proposal | None, t: Tensor, twist: Twist) -> Particles:
        """Those of the proposal, or N(0, alpha^2 data_std^2 + sigma^2) at the first level."""
        count = len(task.y)
        std = float(task.prior.std_at(t))
        z = task.noise.normal(self.particles, twist.dim).to(twist.device).double()
        log_weights = z.new_zeros(count, self.particles, twist.sites)
        return Particles(
            x=std * z if start is None else start.x.to(z),
            log_weights=log_weights if start is None else start.log_weights.to(z)[..., None],
            ancestors=torch.arange(self.particles, device=z.device)[None, :, None].expand_as(log_weights),
            log_evidence=z.new_zeros(count),
            ess=[],
            joined=twist.joined,
        )

    def _select(self, task: Task, particles: Particles, level: Level, count: int | None) -> Level:
        """Resample the blocks whose ESS is low, or everything to ``count``; returns the level of the survivors."""
        weights = particles.by_block
        if not bool(weights.isfinite().all()):
            raise PriorError(f"the particles' weights under twist '{self.twist}' are not finite; use another twist")
        share = effective_share(weights)
        particles.ess.append(share)
        u = self._uniform(task, weights.shape[2])  # drawn at every level, so that a group does not feel the others
        low = share < self.threshold if count is None else torch.ones_like(share, dtype=torch.bool)
        if not bool(low.any()):
            return level
        return level.pick(particles.resample(low, u, count or weights.shape[1]))

    def _uniform(self, task: Task, count: int) -> Tensor:
        """Uniform (N, count), float64, where the algebra is."""
        return task.noise.uniform(count).to(algebra_device(task.prior)).double()

    def _preview(self, task: Task, particles: Particles, level: Level) -> Tensor:
        """Estimates of x_0 of the ``num_kept`` heaviest particles of each group, (N num_kept, C, H, W)."""
        heaviest = particles.by_block.mean(2).topk(self.num_kept, 1).indices
        shown = level.guided.gather(1, heaviest[..., None].expand(-1, -1, level.guided.shape[2]))
        return shown.reshape(-1, *task.shape).to(device=task.prior.device, dtype=torch.float32)

    def _times(self, prior: Prior, shape: tuple[int, int, int]) -> Tensor:
        """steps + 1 decreasing times, the last 0, uniform in (sigma / alpha)^(1 / rho) before it."""
        low, high = prior.schedule.nsr_range
        # Elements that move together have a variance of up to d data_std^2 along one direction.
        top = self.top or prior.data_std * max(10.0, 2.5 * math.prod(shape) ** 0.5)
        bottom = self.bottom or prior.data_std * (0.05 if self.kernel == "dense" else 0.01)
        top, bottom = min(top, high), max(bottom, low)
        if bottom >= top:
            raise UsageError(f"the levels run from {top:.3g} down to {bottom:.3g}; raise top or lower bottom")
        # Blocks that are resampled by themselves are small: from the level that all elements together need, one step,
        # whose kernel is of second order, leads to the level that a block needs.
        knee = min(top, 10.0 * prior.data_std) if self.local and self.steps > 1 else top
        first = [top] if knee < top else []
        ends = torch.tensor([max(knee, bottom), bottom], dtype=torch.float64) ** (1 / self.rho)
        shares = torch.linspace(0, 1, self.steps - len(first), dtype=torch.float64)
        nsr = torch.cat([torch.tensor(first, dtype=torch.float64), torch.lerp(ends[0], ends[1], shares) ** self.rho])
        return torch.cat([prior.schedule.time_at(nsr), torch.zeros(1, dtype=torch.float64)])

    def _twist(self, task: Task, limit: int | None) -> Twist:
        latent = task.prior.latent
        floor = _DECODER_NOISE if latent and task.sigma_y == 0 else _FLOOR * task.prior.data_std
        common = task, self.particles, limit, max(task.sigma_y, floor), self.kernel
        if latent and (self.twist not in _THROUGH_DECODER or self.local):
            raise UsageError(
                f"a latent prior needs a twist that goes through the decoder, {', '.join(_THROUGH_DECODER)}, and no "
                f"local resampling, not twist '{self.twist}' with local={self.local:g}"
            )
        if self.twist != "mmps":
            return LikelihoodTwist(*common, _METHODS[self.twist])
        if math.prod(task.shape) > _MOST:
            raise UsageError(
                f"twist 'mmps' computes the whole Jacobian, too much for {math.prod(task.shape)} elements; pass "
                f"twist='mmps_cg' or '{'dps' if latent else 'pigdm'}' and kernel='first', with few particles"
            )
        return DenseTwist(*common, self.local)
