"""The main job as one call: a picture and a mask in, several completions out."""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..diffusion.rng import Seed, derive
from ..errors import Cancelled, PriorpaintError, UsageError
from ..imaging import Picture, read_picture
from ..priors import CFGPrior, Prior
from ..priors.flag_words import parse_flags
from ..priors.loading import load_prior
from ..solvers import SOLVERS, Solver
from ..solvers import solver as make_solver
from .inputs import (
    Source,
    about_source,
    as_image,
    hole_of,
)
from .job import Callback, Painting, fitted
from .memory import parse_bytes
from .result import Result
from .windows import thickness

# The method where the caller names none, and its settings for holes up to WIDE pixels wide and for wider ones. What a
# narrow hole holds is nearly settled by its surroundings; a wide one needs its texture drawn, which takes a trajectory
# that keeps more of its own noise (docs/results/defaults.md).
DEFAULT_METHOD = "ddnm"
NARROW_SETTINGS: dict[str, Any] = {"steps": 40, "eta": 0.95}
WIDE_SETTINGS: dict[str, Any] = {"steps": 40, "eta": 0.7}
WIDE = 48
# Seeds of samples stay below this, so that every JSON reader gets them exactly.
_SEEDS = 2**48


class Stopped(Cancelled):
    """The callback cancelled the run; ``result`` holds what was finished, or is None where nothing was."""

    def __init__(self, message: str, result: Result | None) -> None:
        super().__init__(message)
        self.result = result


def inpaint(
    image: Source | Picture,
    mask: Source | None = None,
    prior: str | Path | Prior = "photos",
    method: str | Solver | None = None,
    num_samples: int = 4,
    seed: Seed = 0,
    *,
    boxes: Sequence[tuple[int, int, int, int]] | None = None,
    mask_means: str = "repaint",
    batch_size: int | None = None,
    callback: Callback | None = None,
    on_sample: Callable[[int, Image.Image], None] | None = None,
    device: torch.device | str | None = None,
    label: int | None = None,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    guidance_scale: float = 1.0,
    fit: str = "windows",
    max_memory: str | int | None = None,
    prior_flags: Mapping[str, Any] | str | None = None,
    offline: bool = False,
    **params: Any,
) -> Result:
    """Draw completions of a picture. Only pixels that the mask says to repaint differ from the input.

    Args:
        image: a path, PIL image, uint8 array (H, W[, 3 or 4]) or ``Picture``, from 16x16 to 40 megapixels.
        mask: a path, PIL image or array (H, W) of the picture's size: white, True or 1 says *repaint* (see
            ``mask_means``); or "alpha": the transparent pixels are to be repainted and become opaque.
        prior: a name or path for ``load_prior``, or a ``Prior``.
        method: a name in ``SOLVERS`` or a ``Solver``; None is ``DEFAULT_METHOD``, with settings for the widest hole.
        num_samples: how many completions.
        seed: an int, from which the seeds of the samples follow; or one int a sample, as ``info["sample_seeds"]``
            lists them. A sample depends on its seed only, not on the others or on ``batch_size``.
        boxes: parts to repaint, (x, y, width, height) in pixels, instead of a mask or in addition to it.
        mask_means: what white means in the mask, "repaint" or "keep".
        batch_size: samples computed together; None is as many as make good use of memory.
        callback: called as callback(step, total, x0_estimate (N, C, h, w) of the present window) after each step of the
            solver, step and total in units of work; may raise ``Cancelled``.
        on_sample: called as on_sample(index, completion) when a completion is finished.
        device: where the prior runs, for a prior by name; None is the GPU where there is one.
        label: class of the picture, for a prior that knows classes.
        prompt: what the picture shows, for a prior that takes text; ``negative_prompt``: what it does not show.
        guidance_scale: weight of label or prompt (classifier-free guidance, `CFGPrior`); 1 is the plain condition.
        max_memory: a limit for weights and activations, "4GB" or bytes; it picks how many rows are computed at a time,
            whether activations are computed again and how many rows are decoded at a time (`inpainting.memory`).
        fit: how a prior of a fixed size sees a picture of another one, "windows" or "resize"; see `TiledPrior`.
        prior_flags: what a checkpoint cannot say about itself; ``offline``: fetch nothing; both as for ``load_prior``.
        params: settings of the method; with ``method=None`` they change the default settings.

    Returns:
        The completions with their mean, uncertainty and everything that reproduces them.

    Raises:
        UsageError: arguments, picture or mask that cannot be used.
        PriorError: the prior cannot be read, or gives values that are not numbers.
        Stopped: the callback raised ``Cancelled``; it carries the finished part of the result.

    Such an error that comes after the first completion carries what was finished as ``error.result``.
    """
    started = time.time()
    picture = image if isinstance(image, Picture) else read_picture(as_image(image))
    from_alpha = isinstance(mask, str) and mask == "alpha"
    hole = hole_of(picture, mask, boxes, mask_means)
    seeds = sample_seeds(seed, num_samples)
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {batch_size}")
    solver = choose_solver(method, params, thickness(~hole.known))
    wishes = {"label": label, "prompt": prompt, "negative_prompt": negative_prompt, "guidance_scale": guidance_scale}
    flags = parse_flags(prior_flags)
    if not isinstance(prior, Prior):
        loaded = load_prior(prior, flags=flags, device=device, offline=offline)
    elif flags or offline:
        raise UsageError("prior_flags and offline are for a prior by name or path; a ready prior takes none.")
    else:
        loaded = prior
    loaded = _conditioned(fitted(loaded, fit), **wishes)
    job = Painting(picture, hole.known, from_alpha, loaded, solver, seeds)
    plan = None if max_memory is None else job.keep_below(parse_bytes(max_memory), batch_size)
    batch_size = batch_size if plan is None else plan.rows
    nfe = loaded.nfe.copy()
    stopped, failure = False, None
    try:
        stopped = job.run(batch_size, callback, on_sample)
    except PriorpaintError as error:
        if not job.images:
            raise
        failure = error
    spent = loaded.nfe - nfe
    if not job.images:
        raise Stopped("stopped before the first completion was finished", None)
    info = {
        "call": {
            "method": _method_name(solver),
            "num_samples": num_samples,
            "seed": seed if isinstance(seed, int) else list(seed),
            "boxes": [list(box) for box in boxes] if boxes else None,
            "mask_means": mask_means,
            "batch_size": job.rows(batch_size),
            **wishes,
            "fit": fit,
            "max_memory": max_memory,
            "prior_flags": flags or None,
            **asdict(solver),  # type: ignore[call-overload]
        },
        "prior": _about_prior(prior, loaded),
        "sample_seeds": seeds[: len(job.images)],
        "finished_samples": len(job.images),
        "nfe": {"forward": spent.forward, "backward": spent.backward},
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "seconds": {"total": round(time.time() - started, 3), "samples": [round(s, 3) for s in job.seconds]},
        "image": {**about_source(image), "size": list(picture.size), "mode": picture.mode, "format": picture.format},
        "mask": {
            **({"alpha": True} if from_alpha else {} if mask is None else about_source(mask)),
            "known_sha256": hashlib.sha256(np.packbits(hole.known).tobytes()).hexdigest(),
            "hole_share": hole.hole_share,
        },
        "windows": job.windows(),
        "versions": _versions(),
        "machine": _machine(loaded),
    }
    result = job.result(info, (*picture.warnings, *hole.warnings))
    if failure is not None:
        failure.result = result
        raise failure
    if stopped:
        raise Stopped(f"stopped after {len(job.images)} of {num_samples} completions", result)
    return result


def choose_solver(method: str | Solver | None, params: dict[str, Any], width: int = 0) -> Solver:
    """The solver that ``inpaint`` runs: named, given, or the default with some settings changed.

    Args:
        method: see ``inpaint``.
        params: settings.
        width: of the widest hole, in pixels, for the settings of the default.

    Raises:
        UsageError: an unknown method or setting, or settings beside a ready solver.
    """
    if isinstance(method, Solver):
        if params:
            raise UsageError(f"{', '.join(params)}: a ready solver takes no settings; put them into the solver.")
        return method
    if method is not None:
        return make_solver(method, **params)
    if "preset" in params:
        return make_solver(DEFAULT_METHOD, **params)
    settings = WIDE_SETTINGS if width > WIDE else NARROW_SETTINGS
    return make_solver(DEFAULT_METHOD, **{**settings, **params})


def sample_seeds(seed: Seed, num_samples: int) -> list[int]:
    """The seed of each sample.

    Raises:
        UsageError: num_samples < 1, or another number of seeds than of samples.
    """
    if num_samples < 1:
        raise UsageError(f"num_samples must be at least 1, not {num_samples}")
    if isinstance(seed, int):
        return [derive("inpaint", seed, k) % _SEEDS for k in range(num_samples)]
    if len(seed) != num_samples:
        raise UsageError(f"{len(seed)} seeds were given for {num_samples} samples; pass one int or one seed a sample")
    return [int(value) for value in seed]


def _conditioned(prior: Prior, *, label: Any, prompt: Any, negative_prompt: Any, guidance_scale: Any) -> Prior:
    if label is not None and (isinstance(label, bool) or not isinstance(label, int)):
        raise UsageError(f"a label is one whole number for the whole picture, not {label!r}")
    if label is None and prompt is None and negative_prompt is None and guidance_scale == 1:
        return prior
    return prior.conditioned(label=label, prompt=prompt, negative_prompt=negative_prompt, scale=guidance_scale)


def _about_prior(given: str | Path | Prior, prior: Prior) -> dict[str, Any]:
    return {
        "name": prior.name,
        "source": None if isinstance(given, Prior) else str(given),
        "sha256": prior.hash,
        "spec": prior.spec,
        "flags": prior.flags,
        "facts": prior.facts,
        "condition": prior.request if isinstance(prior, CFGPrior) else None,
    }


def _method_name(solver: Solver) -> str:
    return next((name for name, cls in SOLVERS.items() if type(solver) is cls), type(solver).__name__)


def _versions() -> dict[str, str]:
    from .. import __version__  # the package is complete by now

    others = ["torch", "numpy", "pillow", "safetensors", "pydantic"]
    others += [name for name in ("diffusers", "transformers") if name in sys.modules]  # networks of published priors
    return {"priorpaint": __version__, "python": platform.python_version(), **{name: version(name) for name in others}}


def _machine(prior: Prior) -> dict[str, Any]:
    return {"platform": platform.platform(), "device": str(prior.device), "threads": torch.get_num_threads()}
