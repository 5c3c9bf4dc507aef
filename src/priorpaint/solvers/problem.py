"""What a solver is asked to do: the problem, its rows, what it costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.rng import Streams
from ..errors import UsageError
from ..operators.base import LinearOperator, Operator
from ..priors.base import Prior

Callback = Callable[[int, int, Tensor], None]


@dataclass(frozen=True)
class Cost:
    """Network evaluations: ``forward`` without and ``backward`` with a gradient through the network."""

    forward: int
    backward: int


@dataclass(frozen=True)
class Graph:
    """Calls that one gradient goes through, a row: of the network, and of decoder and encoder of a latent prior."""

    network: int = 1
    decoder: int = 0
    encoder: int = 0


@dataclass(frozen=True)
class Problem:
    """y = A x + sigma_y n, and the prior of x.

    Attributes:
        prior: the prior.
        operator: A; its parameters are for one image or for every row of y.
        y: measurements, one image (1, ...) or a row for each sample (N, ...).
        sigma_y: standard deviation of the measurement noise, in units of image values.
    """

    prior: Prior
    operator: Operator
    y: Tensor
    sigma_y: float = 0.0

    def rows(self, count: int) -> Problem:
        """The problem with ``count`` rows: those of y, or its only one for every sample.

        Raises:
            UsageError: y has another number of rows.
        """
        if len(self.y) == count:
            return self
        if len(self.y) != 1:
            raise UsageError(f"{count} seeds were given for {len(self.y)} rows of y; pass one seed a row")
        operator = self.operator.select(torch.zeros(count, dtype=torch.long))
        return replace(self, operator=operator, y=self.y.expand(count, *self.y.shape[1:]).contiguous())


class PosteriorSampler(ABC):
    """Draws samples of p(x | y) of one `Problem`; ``Solver.condition`` makes it."""

    @abstractmethod
    def sample(
        self, seeds: Sequence[int], *, initial: Tensor | None = None, callback: Callback | None = None
    ) -> Tensor:
        """Samples (N, C, H, W), float32, one for each of N seeds, computed together.

        Args:
            seeds: seed i gives the same sample i in any company; with several rows of y it belongs to row i.
            initial: images (N, C, H, W) to start from, for a method with the field ``t_init``.
            callback: called as callback(step, total, x0_estimate (N, C, H, W)); may raise ``Cancelled``.

        Raises:
            UsageError: arguments that do not fit together.
            Cancelled: from the callback.
        """

    @abstractmethod
    def draw(
        self, num_samples: int, *, seed: int, batch_size: int | None = None, callback: Callback | None = None
    ) -> Tensor:
        """Samples (num_samples, C, H, W), float32, of a problem with one row, from one seed for all.

        Particles of one group are samples of it, so that a method with groups takes fewer of them than in `sample`.

        Args:
            num_samples: >= 1; sample i is the same for any number.
            seed: of all samples.
            batch_size: samples computed at a time; None is all of them.
            callback: as in `sample`.

        Raises:
            UsageError: arguments that do not fit together.
            Cancelled: from the callback.
        """


@dataclass
class Task:
    """One chunk of rows, each a pair (image, sample).

    Attributes:
        prior: the prior.
        operator: the operator of the N rows.
        y: measurements (N, ...), float32, on the prior's device.
        sigma_y: standard deviation of the measurement noise, in units of image values.
        noise: one stream a row.
        shape: (C, H, W) of x_0: of the images, or of the latents of a latent prior.
        report: called as report(step, x0_estimate) after each step; may raise ``Cancelled``.
        initial: x_0 (N, C, H, W) to start from, or None.
    """

    prior: Prior
    operator: Operator
    y: Tensor
    sigma_y: float
    noise: Streams
    shape: tuple[int, int, int]
    report: Callable[[int, Tensor], None]
    initial: Tensor | None = None

    @property
    def linear(self) -> LinearOperator:
        """The operator of a method that needs a linear one, as `Solver.sample` has checked."""
        assert isinstance(self.operator, LinearOperator)
        return self.operator

    def start(self, t: Tensor) -> Tensor:
        """x_t (N, C, H, W) at the first time: pure noise, or ``initial`` noised to t."""
        noise = self.noise.normal(*self.shape)
        if self.initial is None:
            return self.prior.initial(noise)
        return transitions.perturb(self.prior.schedule, self.initial, t, noise)


def part_of(callback: Callback | None, before: int, total: int) -> Callback | None:
    """A callback that counts a part of a longer run."""
    if callback is None:
        return None
    return lambda step, _, x_0: callback(before + step, total, x_0)


@dataclass(frozen=True)
class Job:
    """The arguments of ``Solver.sample``, checked and cleaned.

    Attributes:
        prior: the prior.
        operator: the operator of the B images.
        y: measurements (B, ...), float32, on the prior's device.
        sigma_y: standard deviation of the measurement noise.
        num_samples: samples of each image.
        seeds: one an image.
        batch_size: rows at a time; None is all of them.
        callback: as in ``Solver.sample``.
        shape: (C, H, W) of x_0: of the images, or of the latents of a latent prior.
        initial: x_0 (B, num_samples, C, H, W) to start from, or None.
    """

    prior: Prior
    operator: Operator
    y: Tensor
    sigma_y: float
    num_samples: int
    seeds: list[int]
    batch_size: int | None
    callback: Callback | None
    shape: tuple[int, int, int]
    initial: Tensor | None = None

    @property
    def linear(self) -> LinearOperator:
        """The operator of a method that needs a linear one, as ``Solver.sample`` has checked."""
        assert isinstance(self.operator, LinearOperator)
        return self.operator
