"""What a solver is, and the frame that all of them share: rows, chunks, streams, checks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass as settings
from torch import Tensor
from typing_extensions import Self

from ..diffusion.denoiser import Variance, not_learned
from ..diffusion.rng import Seed, Streams, image_seeds
from ..diffusion.schedules import TABLED, Schedule
from ..errors import UsageError
from ..operators.base import LinearOperator, Operator
from ..operators.inpainting import Inpainting
from ..priors.base import Prior
from ..priors.wrapped import normalised
from .latent_grid import composed, on_latent_grid
from .problem import Callback, Cost, Graph, Job, PosteriorSampler, Problem, Task, part_of

__all__ = [
    "Graph",
    "STRICT",
    "Callback",
    "Cost",
    "Field",
    "GridSolver",
    "Job",
    "PosteriorSampler",
    "Problem",
    "SOLVERS",
    "Solver",
    "Task",
    "VARIANCE",
    "Variance",
    "part_of",
    "settings",
]

STRICT = ConfigDict(extra="forbid")
VARIANCE = (
    "noise of an ancestral step (eta = 1): 'small' is DDPM's beta-tilde, 'large' its beta, 'learned' what the network "
    "says; None is learned where the prior has it, else small"
)
SOLVERS: dict[str, type[Solver]] = {}
"""Every method by name, filled by the classes themselves: ``class DPS(Solver, name="dps")``."""


class Solver(ABC):
    """A method that draws samples of p(x | y). Its hyper-parameters are its fields.

    A class with a name, ``class DPS(Solver, name="dps")``, is registered in ``SOLVERS``; one without is not.

    Class attributes:
        title: the method's name in the literature.
        about: what it does and what that is good for, in one line.
        reference: paper.
        needs: what it asks of prior and operator: any of ``gradient`` (through the network), ``mask`` (an
            `Inpainting` operator) and ``linear`` (a `LinearOperator`); without the last two any `Operator` will do.
        cost_formula: NFE of one sample in terms of the fields.
        warm_start: whether it can start from given images, at the time of its field ``t_init``.
        fits: whether ``condition`` does work, of ``shared_cost``, that all samples share.
        mask_only: whether it takes no other operator than `Inpainting`; follows from ``needs``.
        through_decoder: whether ``_run`` measures decoded images, so that y pulls on latents through the decoder. Where
            not, a method sees the latents of a latent prior as images, with mask and y carried over to their grid.
    """

    title: ClassVar[str]
    about: ClassVar[str]
    reference: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    cost_formula: ClassVar[str]
    warm_start: ClassVar[bool] = False
    fits: ClassVar[bool] = False
    mask_only: ClassVar[bool] = False
    through_decoder: ClassVar[bool] = False

    t_init: float = 1.0  # these three are fields where a method has the choice
    paste: bool = False
    variance: str | None = "small"

    def __init_subclass__(cls, *, name: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        cls.mask_only = "mask" in getattr(cls, "needs", ())  # a class between this one and a method has no needs yet
        if name is not None:
            SOLVERS[name] = cls

    @abstractmethod
    def cost(self, num_samples: int = 1) -> Cost:
        """Network evaluations for ``num_samples`` samples of one image."""

    def settled(self, prior: Prior, shape: tuple[int, int, int], mask: bool) -> Self:
        """The method with what it leaves to the problem decided, whose ``cost`` is that of a run; itself where it
        leaves nothing.

        Args:
            prior: the prior.
            shape: (C, H, W) of x_0, in the prior's space.
            mask: whether the operator is an `Inpainting`.
        """
        return self

    def _settled(self, job: Job) -> Self:
        return self.settled(job.prior, job.shape, isinstance(job.operator, Inpainting))

    def shared_cost(self) -> Cost:
        """The part of ``cost`` that ``condition`` takes, once for all samples of an image."""
        return self.cost(0) if self.fits else Cost(0, 0)

    @property
    def shared_rows(self) -> int:
        """Rows of an image that ``condition`` computes together unless ``batch_size`` is less; 0 without work."""
        return 0

    @property
    def graph(self) -> Graph:
        """What is alive at once where the method takes gradients, for planning memory."""
        return Graph(1, int(self.through_decoder))

    def condition(
        self,
        problem: Problem,
        *,
        seed: Seed = 0,
        batch_size: int | None = None,
        callback: Callback | None = None,
    ) -> PosteriorSampler:
        """What draws samples of p(x | y), after the work that they share, if the method has any (``fits``).

        Args:
            problem: prior, operator and y.
            seed: of that work: an int, the same for every row of y, or one a row.
            batch_size: rows of that work computed at a time; None is all of them.
            callback: called as callback(step, total, x0_estimate) in that work; may raise ``Cancelled``.

        Raises:
            UsageError: arguments that do not fit together; a method without shared work finds them in ``sample``.
            Cancelled: from the callback.
        """
        return _Unfitted(self, problem)

    def started_at(self, schedule: Schedule, nsr: float) -> Self:
        """The solver started at the noise level sigma_t / alpha_t = ``nsr``, with the steps that it takes from there.

        Raises:
            UsageError: it has no ``warm_start``.
        """
        raise self._starts_from_noise()

    def _starts_from_noise(self) -> UsageError:
        return UsageError(f"{self.title} does not start from given images; use a method with the setting t_init")

    @abstractmethod
    def _steps(self) -> int:
        """Number of reports that one chunk makes."""

    @abstractmethod
    def _run(self, task: Task) -> Tensor:
        """Samples (N, C, H, W) in the prior's space."""

    def sample(
        self,
        prior: Prior,
        operator: Operator,
        y: Tensor,
        *,
        sigma_y: float = 0.0,
        num_samples: int = 1,
        seed: Seed = 0,
        batch_size: int | None = None,
        callback: Callback | None = None,
        initial: Tensor | None = None,
    ) -> Tensor:
        """Samples of p(x | y).

        Args:
            prior: the prior.
            operator: A in y = A x + sigma_y n; its parameters are for one image or for all B.
            y: measurements (B, ...), image values in [-1, 1]; not changed.
            sigma_y: standard deviation of the measurement noise, in the same units; >= 0.
            num_samples: samples of each image.
            seed: an int, or one an image; sample i of an image is the same in any batch and with any ``batch_size``.
            batch_size: rows (image, sample) computed at a time; None is all of them.
            callback: called as callback(step, total, x0_estimate (rows, C, H, W)); may raise ``Cancelled``. The
                estimate of a latent prior is a latent, of which ``prior.decode`` makes images.
            initial: images (B, num_samples, C, H, W) that a method with the field ``t_init`` starts from, at that time.

        Returns:
            Images (B, num_samples, C, H, W), float32.

        Raises:
            UsageError: arguments that do not fit together.
            Cancelled: from the callback.
        """
        job = self._job(prior, operator, y, sigma_y, num_samples, seed, batch_size, callback)
        starts = self._starts(initial, (len(job.y), num_samples, *operator.image_shape(job.y)), job.y)
        if starts is not None:
            job = replace(job, initial=_encoded(prior, starts, batch_size))
        return self._on_latent_grid(job) if prior.latent and not self.through_decoder else self._sample(job)

    def _on_latent_grid(self, job: Job) -> Tensor:
        """A method that knows nothing of decoders, on the latents of a latent prior; see ``latent_grid``."""
        return composed(job, self._sample(on_latent_grid(job)))

    def _sample(self, job: Job) -> Tensor:
        """Samples (B, num_samples, C, H, W): ``_run`` on some rows at a time.

        A method that first does something with whole images overrides this, and calls it for the rest.
        """
        done = []
        for task in self._tasks(job):
            latent = self._run(task).detach()
            with torch.no_grad():
                done.append(self._composed(task, job.prior.decode(latent).float()))
        return torch.cat(done).reshape(len(job.y), job.num_samples, *done[0].shape[1:])

    def _composed(self, task: Task, image: Tensor) -> Tensor:
        """The image (N, C, H, W) with its measured part replaced by y, where ``paste`` and noise-free y ask for it."""
        if task.sigma_y > 0 or not self.paste:
            return image
        return task.operator.project(image, task.y)

    def _tasks(self, job: Job) -> Iterator[Task]:
        """The rows (image, sample) of a job, ``batch_size`` at a time."""
        rows = [(image, sample) for image in range(len(job.y)) for sample in range(job.num_samples)]
        size = job.batch_size or max(len(rows), 1)
        chunks = [rows[first : first + size] for first in range(0, len(rows), size)]
        for i, chunk in enumerate(chunks):
            images = torch.tensor([image for image, _ in chunk])
            seeds = [job.seeds[image] for image, _ in chunk]
            yield Task(
                job.prior,
                job.operator.select(images),
                job.y[images.to(job.y.device)],
                job.sigma_y,
                Streams.for_samples(seeds, [sample for _, sample in chunk], device=job.prior.device),
                job.shape,
                _reporter(job.callback, i * self._steps(), len(chunks) * self._steps()),
                None if job.initial is None else torch.stack([job.initial[i, k] for i, k in chunk]),
            )

    def _starts(self, initial: Tensor | None, shape: tuple[int, ...], y: Tensor) -> Tensor | None:
        """Checked ``initial`` on y's device."""
        if initial is None:
            if self.t_init < 1:
                raise UsageError(
                    f"t_init = {self.t_init} starts below pure noise and so needs initial images; pass initial"
                )
            return None
        if not self.warm_start:
            raise self._starts_from_noise()
        if initial.shape != shape:
            raise UsageError(f"initial must have the shape {shape}, not {tuple(initial.shape)}")
        return initial.detach().to(y)

    def _job(
        self,
        prior: Prior,
        operator: Operator,
        y: Tensor,
        sigma_y: float,
        num_samples: int,
        seed: Seed,
        batch_size: int | None,
        callback: Callback | None,
    ) -> Job:
        """The arguments of ``sample``, checked, with the prior in variance-preserving coordinates."""
        if num_samples < 1:
            raise UsageError(f"num_samples must be at least 1, not {num_samples}")
        if batch_size is not None and batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        if not 0 <= sigma_y < math.inf:
            raise UsageError(f"sigma_y is a standard deviation and cannot be {sigma_y}")
        if len(y) == 0:
            raise UsageError("y holds no image")
        self.check(operator, prior)
        channels, height, width = operator.image_shape(y)
        y = operator.measured(y.detach().to(device=prior.device, dtype=torch.float32))
        if not bool(torch.isfinite(y).all()):
            raise UsageError("y holds values that are not finite (NaN or infinity)")
        if channels != prior.image_shape[0]:
            raise UsageError(f"the prior {prior.name} has {prior.image_shape[0]} channels and the image has {channels}")
        shape = prior.latent_shape(height, width)
        seeds = image_seeds(seed, y)
        return Job(normalised(prior), operator, y, float(sigma_y), num_samples, seeds, batch_size, callback, shape)

    def check(self, operator: Operator, prior: Prior | None = None) -> None:
        """Whether the method takes this operator, with any prior or with this one.

        Raises:
            UsageError: it does not.
        """
        name, mask = name_of(operator), isinstance(operator, Inpainting)
        if self.mask_only and not mask:
            raise UsageError(f"{self.title} fills in the hidden pixels of a mask and cannot use the operator {name}")
        if "linear" in self.needs and not isinstance(operator, LinearOperator):
            raise UsageError(f"{self.title} needs a linear measurement, and {name} is not linear; use another method")
        if prior is not None and self.variance == "learned" and not prior.learned_variance:
            raise not_learned(prior.name)
        if prior is not None and prior.latent and not self.through_decoder and not mask:
            able = ", ".join(name for name, cls in sorted(SOLVERS.items()) if cls.through_decoder)
            raise UsageError(
                f"{self.title} measures what the denoiser works on, so with a latent prior it takes masks only; for "
                f"{name} use a method that goes through the decoder: {able}"
            )


@settings(frozen=True, config=STRICT)
class GridSolver(Solver):
    """A method that goes down a time grid, from pure noise or from given images."""

    warm_start: ClassVar[bool] = True

    steps: int = Field(100, ge=1, description="steps of the time grid")
    t_init: float = Field(1.0, gt=0, le=1, description="time to start at, from the initial images if below 1")
    spacing: str | None = Field(None, description="spacing of the time grid; None is the schedule's own")

    def _steps(self) -> int:
        return self.steps

    def _times(self, schedule: Schedule) -> Tensor:
        """The time grid, (steps + 1,) float64."""
        return schedule.grid(self.steps, self.spacing, start=self.t_init)

    def started_at(self, schedule: Schedule, nsr: float) -> Self:
        start = float(schedule.time_at(torch.tensor(nsr, dtype=torch.float64)))
        steps = int((self._times(schedule)[:-1] < start).sum()) + 1
        spacing = None if self.spacing in TABLED else self.spacing  # a table says itself where it starts
        return replace(self, steps=min(steps, self.steps), spacing=spacing, t_init=start)


@dataclass(frozen=True)
class _Unfitted(PosteriorSampler):
    """Of a solver whose samples share no work: ``Solver.sample`` with one sample of each row."""

    solver: Solver
    problem: Problem

    def sample(
        self, seeds: Sequence[int], *, initial: Tensor | None = None, callback: Callback | None = None
    ) -> Tensor:
        task = self.problem.rows(len(seeds))
        out = self.solver.sample(
            task.prior,
            task.operator,
            task.y,
            sigma_y=task.sigma_y,
            seed=list(seeds),
            callback=callback,
            initial=None if initial is None else initial[:, None],
        )
        return out[:, 0]

    def draw(
        self, num_samples: int, *, seed: int, batch_size: int | None = None, callback: Callback | None = None
    ) -> Tensor:
        task = self.problem
        return self.solver.sample(
            task.prior,
            task.operator,
            task.y,
            sigma_y=task.sigma_y,
            num_samples=num_samples,
            seed=[seed],
            batch_size=batch_size,
            callback=callback,
        )[0]


def name_of(operator: Operator) -> str:
    return type(operator).__name__


@torch.no_grad()
def _encoded(prior: Prior, images: Tensor, batch_size: int | None) -> Tensor:
    """Images (B, n, C, H, W) in the prior's space."""
    rows = torch.split(images.flatten(0, 1), batch_size or max(images.shape[0] * images.shape[1], 1))
    latents = torch.cat([prior.encode(part) for part in rows])
    return latents.reshape(*images.shape[:2], *latents.shape[1:])


def _reporter(callback: Callback | None, before: int, total: int) -> Callable[[int, Tensor], None]:
    def report(step: int, x_0: Tensor) -> None:
        if callback is not None:
            callback(before + step, total, x_0.detach())

    return report


@cache
def explain(cls: type[Solver]) -> Mapping[str, tuple[str, Any, str]]:
    """Each hyper-parameter of a solver: name -> (type, default, meaning)."""
    schema = TypeAdapter(cls).json_schema()["properties"]
    return {
        field.name: (str(field.type), schema[field.name].get("default"), schema[field.name].get("description", ""))
        for field in fields(cls)  # type: ignore[arg-type]
    }
