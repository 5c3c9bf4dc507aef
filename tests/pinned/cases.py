"""The cases whose results are pinned: solvers, priors, schedules, `inpaint` and certification, all small.

Each case is a function that returns one tensor or array. Seeds are fixed, and every case runs on one thread, so that
the order of its sums does not depend on the processor's cores. The noise of a solver follows from the bytes of y, so
measurements are rounded to multiples of 1/256: a last bit that another processor rounds otherwise would change it all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import priorpaint
from priorpaint import SOLVERS, Blur, Inpainting, LinearOperator, Prior, analytic, load_prior, solver
from priorpaint.schedules import EDM, VE, VP, Flow
from tests.latent_toy import Curved, pictures
from tests.solvers.toy import KNOWN, Y, toy_m

Values: TypeAlias = "Tensor | NDArray[Any]"
Case: TypeAlias = Callable[[], Values]

# Settings that make a method cheap; the others take six steps.
FEW: dict[str, dict[str, Any]] = {
    "copaint_tt": {"steps": 8, "jump_length": 2, "resamplings": 2},
    "langevin": {"steps": 6, "inner_steps": 3},
    "daps": {"steps": 4, "n_ode": 2, "n_mc": 5},
    "ddnm": {"steps": 4, "travel_length": 2, "travel_repeat": 2},
    "smc": {"steps": 6, "particles": 4, "num_kept": 2},
    "repaint": {"steps": 8, "jump_length": 2, "resamplings": 2},
    "repaint_plus": {"steps": 4, "resamplings": 2},
    "resample": {"steps": 8, "every": 2, "lookahead": 2, "pixel_iterations": 20, "latent_iterations": 5},
    "vipaint": {"preset": "exact", "levels": 2, "iterations": 3, "mc_samples": 2, "refine_steps": 4},
}
VIPAINT: dict[str, dict[str, Any]] = {
    "exact": {},
    "projected": {"preset": "projected"},
    "langevin": {"preset": "langevin", "refine_steps": 2, "refine_inner": 3},
    "official": {"preset": "official-imagenet", "perceptual_weight": 0.0},
    "components": {"components": 2},
    "correct": {"correct": True, "particles": 8, "num_kept": 2, "up_steps": 4},
}
MASK = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]])
BOX = torch.ones(8, 8)
BOX[2:7, 3:] = 0
FAMILIES: dict[str, Callable[[], Any]] = {
    "vp-linear": lambda: VP("linear"),
    "vp-cosine": lambda: VP("cosine"),
    "ve": VE,
    "edm": EDM,
    "flow": Flow,
}


# -- solvers -----------------------------------------------------------------------------------------------------------


def small_pictures(schedule: Any = None) -> Prior:
    """Pictures 2 x 4 x 4 of two modes with correlated noise."""
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(32, 32, generator=generator, dtype=torch.float64) / 14
    means = 0.4 * torch.randn(2, 32, generator=generator, dtype=torch.float64)
    cov = mix @ mix.mT + 0.01 * torch.eye(32, dtype=torch.float64)
    return analytic.GaussianMixture([0.4, 0.6], means, cov, (2, 4, 4), schedule)


def rounded(y: Tensor) -> Tensor:
    return (y * 256).round() / 256


def _solve(name: str, params: dict[str, Any], prior: Prior, operator: LinearOperator, y: Tensor, **more: Any) -> Tensor:
    return solver(name, **{**FEW.get(name, {"steps": 6}), **params}).sample(
        prior, operator, rounded(y), num_samples=2, seed=7, **more
    )


def masked(name: str, sigma_y: float = 0.0, family: str = "vp-linear", **params: Any) -> Tensor:
    """Two pictures with a mask, two samples each."""
    prior, operator = small_pictures(FAMILIES[family]()), Inpainting(MASK)
    y = operator(prior.sample(2, seed=9))  # type: ignore[attr-defined]
    return _solve(name, params, prior, operator, y, sigma_y=sigma_y)


def blurred(name: str) -> Tensor:
    """Two blurred pictures with noise, two samples each."""
    prior, operator = small_pictures(), Blur([[0.1, 0.2, 0.1], [0.1, 0.3, 0.0], [0.1, 0.1, 0.0]])
    y = operator(prior.sample(2, seed=9))  # type: ignore[attr-defined]
    return _solve(name, {}, prior, operator, y, sigma_y=0.1)


def latent(name: str, sigma_y: float = 0.0, **params: Any) -> Tensor:
    """Two pictures 2 x 8 x 8 with a hole, from a latent prior with a linear decoder."""
    prior, operator = pictures(), Inpainting(BOX)
    y = operator(prior.decode(prior.inner.sample(2, seed=3)))  # type: ignore[attr-defined]
    return _solve(name, params, prior, operator, y, sigma_y=sigma_y)


def curved(name: str) -> Tensor:
    """A picture 3 x 8 x 8 with a hole, from a latent prior with a curved decoder."""
    generator = torch.Generator().manual_seed(4)
    mix = torch.randn(64, 64, generator=generator, dtype=torch.float64) / 10
    law = analytic.Gaussian(torch.zeros(64), mix @ mix.mT + 0.05 * torch.eye(64, dtype=torch.float64), (4, 4, 4))
    prior, operator = type(pictures())(law, Curved(), "curved"), Inpainting(BOX)
    y = operator(prior.decode(law.sample(1, seed=3)))
    return _solve(name, {}, prior, operator, y)


def three_modes(name: str) -> Tensor:
    """Toy M of the literature checks."""
    return _solve(name, {}, toy_m(), KNOWN, Y)


def _solver_cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for name, cls in SOLVERS.items():
        found[f"solver/{name}/mask"] = partial(masked, name)
        found[f"solver/{name}/mask-noisy-edm"] = partial(masked, name, 0.1, "edm")
        found[f"solver/{name}/three-modes"] = partial(three_modes, name)
        if name != "repaint_plus":  # its published gain is for priors of unit variance and refuses this one
            found[f"solver/{name}/paper"] = partial(masked, name, preset="paper")
        found[f"solver/{name}/latent"] = partial(latent, name)
        found[f"solver/{name}/latent-noisy"] = partial(latent, name, 0.1)
        if name != "mmps":  # its solver of linear systems amplifies last bits beyond 1e-5 there
            found[f"solver/{name}/latent-curved"] = partial(curved, name)
        if "mask" not in cls.needs:
            found[f"solver/{name}/blur"] = partial(blurred, name)
    found["solver/repaint_plus/two"] = partial(masked, "repaint_plus", algorithm="two", level=0.3)
    for label, params in VIPAINT.items():
        found[f"vipaint/{label}/mask"] = partial(masked, "vipaint", **params)
        if label not in ("projected", "langevin"):  # these replace pixels, which a latent prior does not take
            found[f"vipaint/{label}/latent"] = partial(latent, "vipaint", **params)
    return found


# -- priors and schedules ----------------------------------------------------------------------------------------------


def denoised(name: str) -> Tensor:
    """What an embedded prior makes of noise at three times."""
    prior = load_prior(name, device="cpu")
    channels, height, width = prior.shape
    generator = torch.Generator().manual_seed(5)
    x_t = torch.randn(3, channels, height or 32, width or 32, generator=generator)
    with torch.no_grad():
        return prior.denoise(x_t, torch.tensor([0.1, 0.5, 0.9]))


def levels(family: str) -> Tensor:
    """alpha, sigma and the solvers' grid of a schedule."""
    schedule = FAMILIES[family]()
    t = torch.linspace(0.01, 0.99, 33, dtype=torch.float64)
    return torch.cat([schedule.alpha(t), schedule.sigma(t), schedule.grid(10).double()])


# -- pictures ----------------------------------------------------------------------------------------------------------


def smooth_picture(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Waves and an edge, in colour (H, W, 3) or grey (H, W)."""
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(rows / (3 + k) + k) * np.cos(columns / (5 - k)) + (columns > rows) for k in range(channels)]
    values = np.clip(np.rint(90 + 60 * np.stack(waves, -1)), 0, 255).astype(np.uint8)
    return values[..., 0] if channels == 1 else values


def filled(size: tuple[int, int, int], hole: tuple[slice, slice], prior: str = "photos", **settings: Any) -> Values:
    """Hidden pixels of two completions and of their mean, in [0, 1], and their uncertainty."""
    mask = np.zeros(size[:2], bool)
    mask[hole] = True
    result = priorpaint.inpaint(
        smooth_picture(*size), mask, prior=prior, num_samples=2, seed=3, batch_size=2, device="cpu", **settings
    )
    shown = [np.asarray(image)[mask].ravel() / 255 for image in (*result.images, result.mean)]
    assert result.uncertainty is not None
    return np.concatenate([*shown, result.uncertainty[mask]])


COLOUR, GREY = (48, 40, 3), (33, 47, 1)
NARROW, WIDE = (slice(12, 36), slice(15, 22)), (slice(8, 36), slice(8, 34))
INPAINT: dict[str, Case] = {
    "inpaint/colour/narrow": partial(filled, COLOUR, NARROW, steps=4),
    "inpaint/colour/wide": partial(filled, COLOUR, WIDE, steps=4),
    "inpaint/grey/narrow": partial(filled, GREY, (slice(5, 11), slice(4, 40)), steps=4),
    "inpaint/grey/wide": partial(filled, GREY, (slice(4, 30), slice(10, 36)), steps=4),
    "inpaint/colour/vipaint": partial(filled, COLOUR, NARROW, method="vipaint", **{**FEW["vipaint"], "iterations": 2}),
    "inpaint/colour/vipaint-wide": partial(
        filled, COLOUR, WIDE, method="vipaint", preset="projected", iterations=2, mc_samples=1, refine_steps=3
    ),
    "inpaint/colour/dps": partial(filled, COLOUR, NARROW, method="dps", steps=3),
    "inpaint/colour/repaint": partial(filled, COLOUR, NARROW, method="repaint", **FEW["repaint"]),
    "inpaint/avatars/windows": partial(filled, COLOUR, NARROW, prior="avatars", steps=4),
    "inpaint/avatars/resize": partial(filled, COLOUR, NARROW, prior="avatars", fit="resize", steps=4),
    "inpaint/avatars-latent": partial(filled, COLOUR, NARROW, prior="avatars-latent", method="psld", steps=3),
    "inpaint/fashion/label": partial(
        filled, GREY, (slice(8, 22), slice(8, 22)), prior="fashion", label=3, guidance_scale=2.0, steps=4
    ),
}


# -- certification -----------------------------------------------------------------------------------------------------


def certified(method: str, name: str) -> Values:
    """All measures of a cell: of the method, of exact samples and of the prior, and the evaluations a sample."""
    from priorpaint.lab.certify import certify, problem

    place = problem(name)
    place = replace(place, y=rounded(place.y))
    cell = certify([method], [place], [25], draws=1, num_samples=32, calibrated=False).cells[0]
    assert cell.status == "done", cell.note
    parts = [value for part in (cell.measures[0], cell.floors[0], cell.priors[0]) for value in asdict(part).values()]
    return np.array([*(-1.0 if value is None else value for value in parts), cell.forward, cell.backward, cell.ratio])


CERTIFY: dict[str, Case] = {
    **{f"certify/G16/{name}": partial(certified, name, "G16") for name in ("ddnm", "vipaint")},
    **{f"certify/M16/{name}": partial(certified, name, "M16") for name in ("smc",)},
    **{f"certify/Z-G16/{name}": partial(certified, name, "Z-G16") for name in ("psld",)},
}

CASES: dict[str, Case] = {
    **_solver_cases(),
    **{f"prior/{name}": partial(denoised, name) for name in ("photos", "avatars", "avatars-latent", "fashion")},
    **{f"schedule/{family}": partial(levels, family) for family in FAMILIES},
    **INPAINT,
    **CERTIFY,
}


def compute(name: str) -> NDArray[np.float32]:
    """The result of a case as flat float32 numbers, computed on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        values = CASES[name]()
    finally:
        torch.set_num_threads(threads)
    return np.ascontiguousarray(np.asarray(values), dtype=np.float32).ravel()
