"""The same job for other measurements: a small, blurred, noisy or grey picture in, several restored ones out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..diffusion.rng import Seed
from ..errors import CancelToken, UsageError
from ..imaging import Picture, compose
from ..imaging.arrays import image_of, value_type
from ..imaging.ranges import FULL, Asked
from ..operators import Operator, settings_of
from ..operators import operator as make_operator
from ..priors import Prior
from ..solvers import Solver
from ..solvers.base import Problem
from .api import Options, planned
from .coarse_to_fine import WindowSampler
from .events import OnEvent
from .inputs import Source, about, about_picture, as_picture, asked_range, check_callbacks, in_range, number
from .job import MAX_RESIZED, PictureJob
from .method import choose_solver, restoration_default
from .plans import Plan
from .result import Result
from .windows import Box, Window


@dataclass(kw_only=True)
class RestoreJob(PictureJob):
    """A whole picture, measured by any operator.

    Attributes:
        operator: A.
        y: (1, ...), its measurement.
        sigma_y: standard deviation of its noise.
    """

    operator: Operator
    y: Tensor
    sigma_y: float

    def _plan(self) -> tuple[Box, Sequence[Window]]:
        self.solver.check(self.operator, self.prior)
        channels, height, width = self.operator.image_shape(self.y)
        copies = self.prior.image_shape[0] // channels
        if copies > 1 and self.y.ndim == 4:
            # A grey picture is one with equal channels, of which the result takes the average. Were the copies of y
            # independent, so would be their noise: with this deviation their average has the noise of y.
            self.y, self.sigma_y = self.y.expand(-1, copies, -1, -1), self.sigma_y * math.sqrt(copies)
        self.operator = self.operator.to(self.prior.device)
        self.prior.check_size(height, width)
        box = Box(0, 0, height, width)
        return box, [Window(box, box, 0)]

    def _filler(self, sampler: WindowSampler) -> Callable[[Sequence[int]], Tensor]:
        problem = Problem(self.prior, self.operator, self.y, self.sigma_y)
        return lambda seeds: sampler.sample(problem, self.work.windows[0], seeds).clamp(-1, 1)


def plan_restoration(
    y: Source | Picture | Tensor,
    operator: str | Operator,
    prior: str | Path | Prior = "photos",
    method: str | Solver | None = None,
    num_samples: int = 4,
    seed: Seed = 0,
    sigma_y: float = 0.0,
    *,
    operator_settings: Mapping[str, Any] | None = None,
    value_range: Asked = "full",
    page: int | None = None,
    on_event: OnEvent | None = None,
    **options: Any,
) -> Plan:
    """Read, check and load everything that a restoration needs. Nothing is drawn yet; `Plan.run` does it.

    The prior sees the whole picture at once. One of a fixed size is cut into windows (`TiledPrior`), and a picture
    whose sides are not multiples of what the prior asks for is continued by reflection.

    Args:
        y: what was measured, y = A x + sigma_y n: a picture as ``plan`` takes it (the
            small one for `Downsampling`, the blurred one for `Blur`), or a tensor (1, ...) of the operator's own shape,
            in units of image values on [-1, 1].
        operator: A, an `Operator` or a name in ``OPERATORS``.
        prior, num_samples, seed: as for `plan`.
        method: a name in ``SOLVERS`` or a ``Solver``; None is ``ddnm`` for an exact and ``diffpir`` for a noisy linear
            measurement, and ``dps`` for one that is not linear. A latent prior takes methods through its decoder only.
        sigma_y: standard deviation of the noise in y, in units of image values on [-1, 1]; >= 0.
        operator_settings: arguments of an operator by name, such as ``{"factor": 2}``.
        value_range, page: of a picture, as for `plan`; sigma_y is in units of the values on [-1, 1] that they make.
        on_event: hears `Loading` before the prior is read.
        options: fields of `Options`, and settings of the method.

    Raises:
        UsageError: arguments, picture or operator that do not fit together.
        PriorError: the prior cannot be read.
    """
    asked = asked_range(value_range)
    sigma_y = number(sigma_y, "sigma_y")
    if not 0 <= sigma_y < math.inf:
        raise UsageError(f"sigma_y is a standard deviation and cannot be {sigma_y}")
    if isinstance(operator, str):
        operator = make_operator(operator, **(operator_settings or {}))
    elif operator_settings:
        raise UsageError("operator_settings are for an operator by name; a ready operator takes none.")
    if not isinstance(operator, Operator):
        raise UsageError(f"an operator is a name (`priorpaint operators`) or an Operator, not {operator!r}.")
    common, params = Options.split(options)
    solver = choose_solver(method, params, restoration_default(operator, sigma_y))
    solver.check(operator)
    values, picture, told = _measurement(y, asked, page)
    image = about_picture(picture) if picture else {**about(None, None, values), "shape": list(values.shape)}
    shape = operator.image_shape(values)
    if shape[1] * shape[2] > MAX_RESIZED:
        raise UsageError(f"a restored picture has at most {MAX_RESIZED // 10**6} megapixels; crop y first.")
    job = partial(
        RestoreJob,
        picture=_shown(values, operator, shape, picture),
        known=np.zeros(shape[1:], dtype=bool),
        solver=solver,
        operator=operator,
        y=values,
        sigma_y=sigma_y,
    )
    warnings = () if picture is None else (*picture.warnings, *told)
    if picture is not None and picture.alpha is not None and (picture.alpha < 255).any():
        warnings = (*warnings, f"{picture.name} is transparent in parts; the restored pictures are opaque.")
    arguments = settings_of(operator)
    call = {"operator": operator.name, "operator_settings": arguments, "sigma_y": sigma_y}
    call |= {"value_range": asked, "page": page}
    origin = {"image": image, "operator": {"name": operator.name, "settings": arguments}}
    return planned(job, prior, num_samples, seed, common, call, origin, warnings, on_event, (shape[1], shape[2]))


def restore(
    y: Source | Picture | Tensor,
    operator: str | Operator,
    prior: str | Path | Prior = "photos",
    method: str | Solver | None = None,
    num_samples: int = 4,
    seed: Seed = 0,
    sigma_y: float = 0.0,
    *,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
    **options: Any,
) -> Result:
    """Draw pictures that explain a measurement: super-resolution, deblurring, denoising, colours for a grey picture.

    `plan_restoration`, then `Plan.run`.

    Args:
        y, operator, prior, method, num_samples, seed, sigma_y, options: as for `plan_restoration`.
        on_event, cancel: as for `Plan.run`.

    Returns:
        The restored pictures with their mean, uncertainty and everything that reproduces them. The result's
        ``picture`` is y, enlarged to their size, and nothing of it is ``known``.

    Raises:
        UsageError, PriorError, Stopped: as `plan_restoration` and `Plan.run`.
    """
    check_callbacks(on_event, cancel)
    ready = plan_restoration(y, operator, prior, method, num_samples, seed, sigma_y, on_event=on_event, **options)
    return ready.run(on_event, cancel)


def _measurement(
    y: Source | Picture | Tensor, asked: Asked, page: int | None
) -> tuple[Tensor, Picture | None, tuple[str, ...]]:
    """y as (1, ...), float32, the picture that it came from, and what the user should hear of its values."""
    if not isinstance(y, Tensor):
        picture = as_picture(y, page)
        everything = np.ones(picture.size[::-1], dtype=np.bool_)
        picture, told = in_range(picture, everything, asked)
        return picture.to_tensor(1 if picture.grey else 3), picture, told
    if y.ndim < 2 or len(y) != 1:
        raise UsageError(f"y is the measurement of one picture, a tensor (1, ...), and not {tuple(y.shape)}")
    if asked != FULL or page is not None:
        raise UsageError("value_range and page are about a picture; a tensor has its values on [-1, 1] already.")
    if not bool(torch.isfinite(y).all()):
        raise UsageError("y holds values that are not finite (NaN or infinity)")
    return y.detach().to(device="cpu", dtype=torch.float32), None, ()


def _shown(y: Tensor, operator: Operator, shape: tuple[int, int, int], picture: Picture | None) -> Picture:
    """y enlarged to the size of what is restored, or a guess where y is not a picture; results take its mode."""
    channels, height, width = shape
    if channels not in (1, 3):
        raise UsageError(f"a restored picture has 1 or 3 channels, not {channels}; use the sample method of a solver")
    is_picture = y.ndim == 4 and y.shape[1] in (1, 3)
    image = F.interpolate(y, size=(height, width)) if is_picture else operator.guess(y)
    dtype = np.dtype(np.uint8) if picture is None else value_type(picture.image)
    blank = Picture(image_of(np.zeros((height, width) if channels == 1 else (height, width, 3), dtype), "y"))
    if picture is not None and picture.deep:
        blank = blank.ranged(picture.scale)
    if picture is not None:
        icc = picture.icc if picture.grey == blank.grey else None  # a profile for grey means nothing for colours
        blank = replace(
            blank,
            format=picture.format,
            name=picture.name,
            icc=icc,
            exif=picture.exif,
            xmp=picture.xmp,
            comment=picture.comment,
            texts=picture.texts,
        )
    return replace(blank, image=compose(blank, image[0], np.zeros((height, width), dtype=bool)))
