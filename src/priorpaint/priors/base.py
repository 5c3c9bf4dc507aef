"""What a prior is: a denoiser E[x_0 | x_t] with its noise schedule, and the space that it works in."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..diffusion import transitions
from ..diffusion.denoiser import Denoising as Denoising
from ..diffusion.rng import Streams, derive
from ..diffusion.samplers import Callback, Sampler, sampler_for
from ..diffusion.schedules import Schedule
from ..errors import PriorError, UsageError
from .info import NFE, Label, PriorInfo, Provenance, Shape


class _Told:
    """An attribute of a prior that stands in its ``info``; to set it replaces ``info``."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.deep = name, name in Provenance.__dataclass_fields__

    def __get__(self, prior: Prior | None, owner: type) -> Any:
        if prior is None:
            return self
        return getattr(prior.info.provenance if self.deep else prior.info, self.name)

    def __set__(self, prior: Prior, value: Any) -> None:
        change = {self.name: value}
        prior.info = replace(
            prior.info, **({"provenance": replace(prior.info.provenance, **change)} if self.deep else change)
        )


def _told() -> Any:
    return _Told()


class Prior:
    """A distribution over images that is known through its denoiser; a subclass gives ``_denoise`` or ``_evaluate``.

    Args:
        info: its facts, each of which but ``factor``, ``image_channels``, ``window`` and ``fit`` can also be read and
            set as an attribute of the prior.

    Attributes:
        nfe: network evaluations so far.
    """

    schedule: Schedule = _told()
    shape: Shape = _told()
    multiple: int = _told()
    data_std: float = _told()
    classes: int = _told()
    takes_text: bool = _told()
    latent: bool = _told()
    learned_variance: bool = _told()
    name: str = _told()
    source: Path | None = _told()
    hash: str | None = _told()
    facts: dict[str, Any] | None = _told()
    spec: str | None = _told()
    flags: dict[str, Any] | None = _told()

    def __init__(self, info: PriorInfo) -> None:
        self.info, self.nfe = info, NFE()

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        """What the prior says about x_0: E[x_0 | x_t, given], differentiable, and the variance that it learned.

        Args:
            x_t: noisy images (N, C, H, W).
            t: times (N,) or a single time, in (0, 1].
            given: what ``condition`` made, tensors with 1 or N rows; None is the unconditional state.

        Raises:
            UsageError: the prior takes no such condition.
        """
        self.nfe.count(len(x_t), gradient=torch.is_grad_enabled() and x_t.requires_grad)
        out = self._evaluate(x_t, times_of(t, x_t), given)
        return Denoising(out.mean.to(x_t.dtype), out.variance_share)

    def _evaluate(self, x_t: Tensor, t: Tensor, given: Mapping[str, Tensor] | None) -> Denoising:
        """`evaluate` for float64 t (N,), without counting."""
        if given:
            raise UsageError(f"the prior {self.name} takes no condition, but {', '.join(given)} was given")
        return Denoising(self._denoise(x_t, t))

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """E[x_0 | x_t] for x_t (N, C, H, W) and float64 t (N,)."""
        raise NotImplementedError

    def denoise(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Tensor:
        """D(x_t, t) = E[x_0 | x_t, given], (N, C, H, W) in the dtype of x_t: the mean of `evaluate`."""
        return self.evaluate(x_t, t, given).mean

    def score(self, x_t: Tensor, t: Tensor | float) -> Tensor:
        """grad log p(x_t) = (alpha_t D(x_t, t) - x_t) / sigma_t^2, (N, C, H, W), by Tweedie's formula.

        Args:
            x_t: noisy images (N, C, H, W).
            t: times (N,) or a single time, in (0, 1].
        """
        times = times_of(t, x_t)
        return transitions.score(self.schedule, x_t, self.denoise(x_t, times), times)

    def parameters(self) -> Iterator[Tensor]:
        """The weights, where there are any."""
        return iter(())

    def condition(self, *, label: Label | None = None, prompt: str | None = None) -> Mapping[str, Tensor]:
        """What `denoise` takes for a class or a text; without both, the unconditional state.

        Args:
            label: a class in 0 ... classes - 1 for every row, or N of them, one a row.
            prompt: a text for every row; "" is a text, too.

        Returns:
            Tensors with 1 or N rows, on the prior's device.

        Raises:
            UsageError: the prior takes no such condition, or knows no unconditional state.
        """
        self._check_condition(label, prompt)
        return {}

    def _check_condition(self, label: Label | None, prompt: str | None) -> Tensor | None:
        """The label as int64 (1,) or (N,), on the prior's device, where there is one."""
        if prompt is not None and not self.takes_text:
            raise UsageError(f"the prior {self.name} takes no text; leave the prompt out or choose another prior")
        if label is None:
            return None
        if not self.classes:
            raise UsageError(f"the prior {self.name} knows no classes; leave the label out or choose another prior")
        return _labels(label, self.classes, self.name).to(self.device)

    @property
    def _loaded(self) -> bool:
        """Whether `load_prior` made this very object, so that it can do so again."""
        return self.spec is not None

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        """A prior that was loaded travels as what it was loaded by, and is loaded again where it arrives."""
        if not self._loaded:
            return super().__reduce_ex__(protocol)
        told = self.info.provenance
        assert told.load is not None  # as `load_prior` does
        return told.load, (told.spec, told.flags, told.hash, told.name, told.dtype, str(self.device))

    def __getstate__(self) -> bytes:
        try:
            return pickle.dumps(self.__dict__)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise PriorError(
                f"the prior {self.name} cannot be sent to another process ({error}); load it with load_prior, or write "
                "its functions at the top level of a module"
            ) from None

    def __setstate__(self, state: bytes) -> None:
        self.__dict__.update(pickle.loads(state))

    def __copy__(self) -> Prior:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        return twin

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

    @property
    def image_shape(self) -> Shape:
        """(C, H, W) of images; ``shape`` itself for pixel priors."""
        height, width = (None if side is None else side * self.info.factor for side in self.shape[1:])
        return self.info.image_channels or self.shape[0], height, width

    @property
    def image_multiple(self) -> int:
        """Height and width of an image must be a multiple of this."""
        return self.multiple * self.info.factor

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """(C, H, W) of x_0 for an image of this size, in pixels.

        Raises:
            UsageError: an image of this size cannot be denoised.
        """
        self.check_size(height, width)
        return self.shape[0], height // self.info.factor, width // self.info.factor

    def initial(self, noise: Tensor) -> Tensor:
        """x_1 from standard normal noise (N, C, H, W): N(0, `std_at(1)`^2)."""
        return float(self.std_at(torch.ones((), dtype=torch.float64))) * noise

    def std_at(self, t: Tensor) -> Tensor:
        """(alpha_t^2 data_std^2 + sigma_t^2)^(1/2), the standard deviation of x_t per element, float64."""
        return (self.schedule.alpha(t) ** 2 * self.data_std**2 + self.schedule.sigma(t) ** 2).sqrt()

    def initial_about_mean(self, noise: Tensor) -> Tensor:
        """x_1 of the prior itself: `initial` about alpha_1 E[x_0], with D(x_1, 1) for E[x_0]; one evaluation a row.

        At sigma = 80 a pixel's mean is nothing beside the noise, but all pixels together still tell a dark picture from
        a bright one, and deterministic samplers never forget where they began (for schedules that end at a larger
        alpha_1: Lin et al. 2024, "Common diffusion noise schedules and sample steps are flawed").
        """
        x_1 = self.initial(noise)
        end = torch.ones((), dtype=torch.float64)
        return x_1 + float(self.schedule.alpha(end)) * self.denoise(x_1, end)

    def check_size(self, height: int, width: int) -> None:
        """Raise UsageError where an image of this size, in pixels, cannot be denoised."""
        _, *wanted = self.image_shape
        for have, want, side in zip((height, width), wanted, ("height", "width"), strict=True):
            if want is not None and have != want:
                raise UsageError(f"the prior {self.name} works on {side} {want}, not {have}")
            if have < 1 or have % self.image_multiple:
                raise UsageError(
                    f"the prior {self.name} needs a {side} that is a multiple of {self.image_multiple}, not {have}"
                )

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the prior into a folder that `load_prior` reads; what `priorpaint train` makes can do that.

        Args:
            folder: made where it is missing.
            overwrite: whether weights there may be replaced.

        Returns:
            The file of the weights.

        Raises:
            UsageError: it is a prior of another kind, or the file cannot be written.
        """
        kind = (self.facts or {}).get("format", "function")
        raise UsageError(
            f"{self.name} is not in priorpaint's own format but a {kind} model, which is not written again; copy or "
            "upload its own files."
        )

    @torch.no_grad()
    def sample(
        self,
        num: int,
        *,
        seed: int,
        steps: int | None = None,
        sampler: Sampler | str | None = None,
        size: tuple[int, int] | None = None,
        batch_size: int | None = None,
        first: int = 0,
        callback: Callback | None = None,
    ) -> Tensor:
        """Unconditional samples, which begin at `initial_about_mean`.

        Args:
            num: how many.
            seed: sample i is the same for any ``num``, ``first`` and ``batch_size``.
            steps: of the sampler that ``sampler`` names; None is its own default.
            sampler: a key of ``priorpaint.diffusion.samplers.SAMPLERS``, or a sampler of that package; None is "heun"
                (Karras et al. 2022).
            size: (H, W) of the images, needed where ``image_shape`` leaves them open.
            batch_size: rows at a time; None is all.
            first: number of the first sample, which is 0 but for runs that go on.
            callback: called as callback(step, total, x0_estimate) after each step of each batch; may raise
                ``Cancelled``.

        Returns:
            Images (num, C, H, W), float32.

        Raises:
            UsageError: no such sampler, or one that does not suit the prior; no size, or one that it does not take.
        """
        if num < 1 or first < 0 or (batch_size is not None and batch_size < 1):
            raise UsageError(
                f"num and batch_size must be at least 1 and first at least 0, not {num}, {batch_size} and {first}"
            )
        height, width = size or self.image_shape[1:]
        if height is None or width is None:
            raise UsageError(f"the prior {self.name} has no size of its own; pass size=(height, width)")
        shape, run = self.latent_shape(height, width), sampler_for(sampler, steps)
        run.check(latent=self.latent, learned_variance=self.learned_variance)
        chunks = []
        for start in range(first, first + num, batch_size or num):
            rows = range(start, min(start + (batch_size or num), first + num))
            noise = Streams([derive("prior", seed, i) for i in rows], device=self.device)
            x_1 = self.initial_about_mean(noise.normal(*shape))
            chunks.append(self.decode(run(self, x_1, noise, callback)).float())
        return torch.cat(chunks)


class DenoiserPrior(Prior):
    """Any callable (x_t, t) -> E[x_0 | x_t] as a prior.

    Args:
        denoise: takes x_t (N, C, H, W) and t (N,), in the dtype and on the device of x_t, and returns (N, C, H, W).
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
        super().__init__(PriorInfo(schedule, shape, multiple, data_std, provenance=Provenance(name)))
        self._call = denoise

    def _denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self._call(x_t, t.to(x_t))


def times_of(t: Tensor | float, x_t: Tensor) -> Tensor:
    """t as (N,) float64."""
    return torch.as_tensor(t, dtype=torch.float64).expand(len(x_t))


def _labels(label: Label, classes: int, name: str) -> Tensor:
    """int64 (1,) or (N,), each in 0 ... classes - 1."""
    try:
        values = torch.as_tensor(label)
    except (OverflowError, RuntimeError, ValueError):  # a number of more than 64 bits
        raise UsageError(f"the prior {name} knows the classes 0 to {classes - 1}, not {label!r}") from None
    if values.is_floating_point() or values.is_complex() or values.dtype == torch.bool or values.ndim > 1:
        raise UsageError(f"a label of the prior {name} is a whole number, or N of them, not {label!r}")
    labels = values.to(torch.int64).reshape(-1)
    if not len(labels) or bool((labels < 0).any()) or bool((labels >= classes).any()):
        wrong = ", ".join(map(str, labels.tolist())) or "none at all"
        raise UsageError(f"the prior {name} knows the classes 0 to {classes - 1}, not {wrong}")
    return labels


def rows_of(value: Tensor, rows: int) -> Tensor:
    """A condition (1 or N, ...) as (N, ...).

    Raises:
        UsageError: it is for another number of rows.
    """
    if len(value) not in (1, rows):
        raise UsageError(
            f"the condition is for {len(value)} rows and {rows} are denoised; give one label for all, or compute all "
            "rows in one call (no batch_size below their number)"
        )
    return value.expand(rows, *value.shape[1:])
