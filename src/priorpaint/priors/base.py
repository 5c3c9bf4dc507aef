"""What a prior is: a denoiser E[x_0 | x_t] with its noise schedule, and the space that it works in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import UsageError
from ..noise import Streams, derive
from ..schedules import Schedule

if TYPE_CHECKING:
    from ..samplers import Sampler

Shape = tuple[int, int | None, int | None]


@dataclass
class NFE:
    """Network evaluations so far, one for each row of a batch.

    ``forward`` counts calls without a gradient; ``backward`` counts calls whose graph reaches x_t, which cost a forward
    and a backward pass. A method that sends more than one backward pass through such a graph adds one for each further
    pass, though it costs no second forward pass.
    """

    forward: int = 0
    backward: int = 0

    def reset(self) -> None:
        """Set both counts to 0."""
        self.forward = self.backward = 0

    def __sub__(self, earlier: NFE) -> NFE:
        return NFE(self.forward - earlier.forward, self.backward - earlier.backward)

    def copy(self) -> NFE:
        """The counts now."""
        return NFE(self.forward, self.backward)


class Prior(ABC):
    """A distribution over images that is known through its denoiser.

    Attributes:
        schedule: how x_t is made from x_0.
        shape: (C, H, W) of the space where it denoises; None means any size.
        multiple: height and width must be a multiple of this.
        data_std: standard deviation of x_0 per element, for the width of the first noise at t = 1.
        nfe: network evaluations so far.
    """

    schedule: Schedule
    shape: Shape
    multiple: int = 1
    data_std: float = 1.0
    name: str = "prior"

    def __init__(self) -> None:
        self.nfe = NFE()

    @abstractmethod
    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] for x_t (N, C, H, W) and float64 t (N,)."""

    def denoise(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """D(x_t, t) = E[x_0 | x_t], differentiable.

        Args:
            x_t: noisy images (N, C, H, W).
            t: times (N,) or a single time, in (0, 1].

        Returns:
            (N, C, H, W) in the dtype of x_t.
        """
        counts_gradient = torch.is_grad_enabled() and x_t.requires_grad
        if counts_gradient:
            self.nfe.backward += len(x_t)
        else:
            self.nfe.forward += len(x_t)
        times = torch.as_tensor(t, dtype=torch.float64).expand(len(x_t))
        return self._denoise(x_t, times).to(x_t.dtype)

    @property
    def device(self) -> torch.device:
        """Where x_t must live."""
        return torch.device("cpu")

    def encode(self, image: Tensor) -> Tensor:
        """Image (N, C, H, W) to the space of x_0; the identity for pixel priors."""
        return image

    def decode(self, latent: Tensor) -> Tensor:
        """Space of x_0 to image; the identity for pixel priors."""
        return latent

    def initial(self, noise: Tensor) -> Tensor:
        """x_1 from standard normal noise (N, C, H, W): N(0, alpha_1^2 data_std^2 + sigma_1^2)."""
        end = torch.ones((), dtype=torch.float64)
        variance = self.schedule.alpha(end) ** 2 * self.data_std**2 + self.schedule.sigma(end) ** 2
        return float(variance.sqrt()) * noise

    def check_size(self, height: int, width: int) -> None:
        """Raise UsageError where an image of this size cannot be denoised."""
        for have, want, side in ((height, self.shape[1], "height"), (width, self.shape[2], "width")):
            if want is not None and have != want:
                raise UsageError(f"the prior {self.name} works on {side} {want}, not {have}")
            if have % self.multiple:
                want = self.multiple
                raise UsageError(f"the prior {self.name} needs a {side} that is a multiple of {want}, not {have}")

    @torch.no_grad()
    def sample(
        self,
        num: int,
        *,
        seed: int,
        steps: int = 50,
        sampler: Sampler | None = None,
        size: tuple[int, int] | None = None,
        batch_size: int | None = None,
    ) -> Tensor:
        """Unconditional samples.

        Args:
            num: how many.
            seed: sample i is the same for any ``num`` and ``batch_size``.
            steps: steps of the time grid, used when ``sampler`` is None (then Heun, Karras et al. 2022).
            sampler: any of ``priorpaint.samplers``.
            size: (H, W) in the denoiser's space, needed where ``shape`` leaves them open.
            batch_size: rows at a time; None is all.

        Returns:
            Images (num, C, H, W), float32.
        """
        from ..samplers import Heun  # samplers know priors; the other way only here

        if num < 1 or (batch_size is not None and batch_size < 1):
            raise UsageError(f"num and batch_size must be at least 1, not {num} and {batch_size}")
        height, width = size or (self.shape[1], self.shape[2])
        if height is None or width is None:
            raise UsageError(f"the prior {self.name} has no size of its own; pass size=(height, width)")
        self.check_size(height, width)
        run = sampler or Heun(steps=steps)
        chunks = []
        for first in range(0, num, batch_size or num):
            rows = range(first, min(first + (batch_size or num), num))
            noise = Streams([derive("prior", seed, i) for i in rows], device=self.device)
            x_1 = self.initial(noise.normal(self.shape[0], height, width))
            chunks.append(self.decode(run(self, x_1, noise)).float())
        return torch.cat(chunks)


class DenoiserPrior(Prior):
    """Any callable (x_t, t) -> E[x_0 | x_t] as a prior.

    Args:
        denoise: takes x_t (N, C, H, W) and t (N,) float64 and returns (N, C, H, W).
        schedule: its noise schedule.
        shape: (C, H, W); None where any size will do.
        multiple: height and width must be a multiple of this.
        data_std: standard deviation of the data per element.
    """

    def __init__(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        schedule: Schedule,
        shape: Shape,
        *,
        multiple: int = 1,
        data_std: float = 1.0,
        name: str = "prior",
    ) -> None:
        super().__init__()
        self._call = denoise
        self.schedule, self.shape, self.multiple, self.data_std, self.name = schedule, shape, multiple, data_std, name

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self._call(x_t, t)
