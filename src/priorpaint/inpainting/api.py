"""The main job: ``plan`` reads, checks and loads, `Plan.run` draws the completions; ``inpaint`` is both at once.

Another kind of job, such as `restore`, is a `PictureJob` of its own that goes through `planned`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..diffusion.rng import Seed
from ..errors import CancelToken, UsageError
from ..imaging import Picture
from ..imaging.ranges import Asked
from ..priors import CFGPrior, Prior
from ..priors.cfg import condition_inside
from ..priors.classifier_guidance import ClassifierGuidedPrior
from ..priors.flag_words import parse_flags
from ..priors.loading import dtype_named, load_prior, precision_of
from ..priors.verify import doubts
from ..solvers import Solver
from .events import Loading, OnEvent
from .inputs import (
    Keywords,
    Source,
    about_picture,
    as_picture,
    asked_range,
    check_callbacks,
    flag,
    in_range,
    number,
    path,
    text,
    whole,
)
from .job import CancellablePrior, InpaintJob, PictureJob, fitted
from .masking import Masking, about_mask, resolve_mask
from .memory import parse_bytes
from .method import choose_solver, for_width, method_name, refiner_for, sample_seeds
from .plans import Plan
from .result import Result
from .rowwise import rowwise
from .windows import thickness

if TYPE_CHECKING:
    from .adapting import Adapted


@dataclass(frozen=True)
class Options(Keywords):
    """What every job can be asked for, whatever was measured.

    Attributes:
        batch_size: samples computed together; None is as many as make good use of memory.
        device: where the prior runs, for a prior by name; None is the GPU where there is one.
        precision: of the network's convolutions, "float32" (None), "bfloat16" or "float16", for a prior by name; a
            ready one has its own.
        label: class of the picture, for a prior that knows classes.
        prompt: what the picture shows, for a prior that takes text; ``negative_prompt``: what it does not show.
        guidance_scale: weight of label or prompt (classifier-free guidance, `CFGPrior`); 1 is the plain condition.
        classifier: file of a classifier of noisy pictures, which guides to ``label`` with the weight
            ``classifier_scale``; ``classifier_noise`` as for `load_classifier`. A prior that knows classes is told the
            label as well.
        max_memory: a limit for weights and activations, "4GB" or bytes; it picks how many rows are computed at a time,
            whether activations are computed again and how many rows are decoded at a time (`inpainting.memory`).
        fit: how a prior of a fixed size sees a picture of another one, "windows" or "resize"; see `TiledPrior`.
        prior_flags: what a checkpoint cannot say about itself; ``offline``: fetch nothing; both as for ``load_prior``.
    """

    batch_size: int | None = None
    device: torch.device | str | None = None
    precision: str | None = None
    label: int | None = None
    prompt: str | None = None
    negative_prompt: str | None = None
    guidance_scale: float = 1.0
    classifier: str | Path | None = None
    classifier_scale: float = 1.0
    classifier_noise: str | None = None
    fit: str = "windows"
    max_memory: str | int | None = None
    prior_flags: Mapping[str, Any] | str | None = None
    offline: bool = False

    def checked(self) -> Options:
        """The same in Python's own types.

        Raises:
            UsageError: what should be a number, a text or a path is none.
        """
        return replace(
            self,
            batch_size=None if self.batch_size is None else whole(self.batch_size, "batch_size"),
            precision=None if self.precision is None else text(self.precision, "precision"),
            label=None if self.label is None else whole(self.label, "label"),
            prompt=None if self.prompt is None else text(self.prompt, "prompt"),
            negative_prompt=None if self.negative_prompt is None else text(self.negative_prompt, "negative_prompt"),
            guidance_scale=number(self.guidance_scale, "guidance_scale"),
            classifier=None if self.classifier is None else path(self.classifier, "classifier"),
            classifier_scale=number(self.classifier_scale, "classifier_scale"),
            max_memory=int(self.max_memory) if isinstance(self.max_memory, Integral) else self.max_memory,
            offline=flag(self.offline, "offline"),
        )


def plan(
    image: Source | Picture,
    mask: Source | None = None,
    prior: str | Path | Prior = "photos",
    method: str | Solver | None = None,
    num_samples: int = 4,
    seed: Seed = 0,
    *,
    value_range: Asked = "auto",
    page: int | None = None,
    refine: Mapping[str, Any] | None = None,
    adapt: bool | int = False,
    opaque_holes: bool = False,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
    **options: Any,
) -> Plan:
    """Read, check and load everything that a run needs, and plan its windows. Nothing is drawn yet.

    Args:
        image: a path, bytes, open binary file, PIL image, array (H, W[, 1, 3 or 4]) of whole or floating numbers, or
            ``Picture``, from 16x16 to 40 megapixels. An array of a type for which Pillow has no mode gives results that
            are `ArrayImage`; NumPy sees the type of the input in all of them.
        mask: a path, bytes, file, PIL image or array (H, W) of the picture's size: white, True or 1 says *repaint* (see
            ``Masking``); or "alpha": the transparent pixels are to be repainted and become opaque; or "nan": those with
            values that are not finite.
        prior: a name or path for ``load_prior``, or a ``Prior``.
        method: a name in ``SOLVERS`` or a ``Solver``; None is ``DEFAULT_METHOD``, with settings for the widest hole.
        num_samples: how many completions.
        seed: an int, from which the seeds of the samples follow; or one int a sample, as ``info["sample_seeds"]``
            lists them. A sample depends on its seed only, not on the others or on ``batch_size``.
        value_range: the stored values that the prior sees as black and white, (min, max); or "full", all that the type
            holds (0 to 1 of floating values); or "auto": of pictures with more than 8 bits that use less than half of
            it, the part they use (`imaging.ranges.choose_range`). Results have the picture's own units.
        page: which page of a TIFF with several, counted from 1.
        refine: settings of the method for windows that start near their answer: finer scales of wide holes, and thin
            holes, which then start from a smooth fill. None is the default's own choice with ``method=None``; a method
            that is named refines as it fills, and starts thin holes from noise.
        adapt: whether the prior first learns the known part of the picture (`training.adaptation.adapt`); a number is
            how many crops of 64x64 pixels of it. What it has learned is kept for later runs (`inpainting.adapting`).
        opaque_holes: whether the filled pixels become opaque, which ``mask="alpha"`` implies; else each keeps its own
            opacity, so that transparent ones stay unseen.
        on_event: hears `Loading` before the prior is read, and `Adapting`.
        cancel: stops the learning.
        options: fields of `Masking` (boxes, mask_means, grow, extend, ...) and of `Options`, and settings of the
            method; with ``method=None`` these change the default settings.

    Raises:
        UsageError: arguments, picture or mask that cannot be used.
        PriorError: the prior cannot be read.
        Stopped: the learning was cancelled; nothing of it is kept.
    """
    check_callbacks(on_event, cancel)
    masking, rest = Masking.split(options)
    common, params = Options.split(rest)
    solver = choose_solver(method, params)  # first: a wrong setting is told before anything is read
    masking, asked, crops = masking.checked(), asked_range(value_range), _crops_to_learn(adapt)
    picture = as_picture(image, page)
    hole = resolve_mask(picture, mask, masking)
    picture, told = in_range(hole.picture, hole.known, asked)
    width = thickness(~hole.known)
    if method is None:
        solver = for_width(solver, params, width)
    refiner = refiner_for(solver, method is not None, params, width, refine)
    about = {"image": about_picture(picture), "mask": about_mask(mask, hole)}
    warnings = (*picture.warnings, *hole.warnings, *told)
    opaque_holes = flag(opaque_holes, "opaque_holes")
    job = partial(
        InpaintJob,
        picture=picture,
        known=hole.known,
        weight=hole.weight,
        opaque_holes=opaque_holes or (isinstance(mask, str) and mask == "alpha"),
        solver=solver,
        refiner=refiner,
    )
    settings = None if refiner is None else asdict(refiner)  # type: ignore[call-overload]
    call = {**masking.call(), "value_range": asked, "page": page, "refine": settings}
    if opaque_holes:
        call["opaque_holes"] = True
    learn: Callable[[Prior], Adapted] | None = None
    if crops is not None:
        from .adapting import adapted

        call["adapt"] = crops
        learn = partial(adapted, picture=picture, known=hole.known, crops=crops, on_event=on_event, cancel=cancel)
    return planned(job, prior, num_samples, seed, common, call, about, warnings, on_event, learn=learn)


def planned(
    job_of: Callable[..., PictureJob],
    prior: str | Path | Prior,
    num_samples: int,
    seed: Seed,
    options: Options,
    call: dict[str, Any],
    about: dict[str, Any],
    warnings: tuple[str, ...],
    on_event: OnEvent | None,
    size: tuple[int, int] | None = None,
    learn: Callable[[Prior], Adapted] | None = None,
) -> Plan:
    """The part of a plan that all jobs share, from loading the prior on.

    Args:
        job_of: the job, given the fields of `PictureJob` that are left: prior, cancellable and seeds.
        call, about: for run.json, to which this adds.
        size: see `fitted`.
        learn: makes the prior that is used of the one that is loaded.
    """
    check_callbacks(on_event)
    num_samples, options = whole(num_samples, "num_samples"), options.checked()
    seeds = sample_seeds(seed, num_samples)
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, not {options.batch_size}")
    flags, dtype = parse_flags(options.prior_flags), dtype_named(options.precision)
    if isinstance(prior, Prior):
        if flags or options.offline:
            raise UsageError("prior_flags and offline are for a prior by name or path, not a ready one.")
        if options.device is not None and str(options.device) not in (str(prior.device), prior.device.type):
            raise UsageError(
                f"the prior is on {prior.device}, not on {options.device}; load it there, or name neither."
            )
        if options.precision not in (None, precision_of(prior)):
            raise UsageError(
                f"the prior {prior.name} is a ready one with its own precision; leave precision out, or load it with "
                "load_prior(..., dtype=...)."
            )
        loaded = prior
    else:
        if on_event is not None:
            on_event(Loading(f"the prior {prior}"))
        loaded = load_prior(prior, flags=flags, device=options.device, dtype=dtype, offline=options.offline)
        warnings = (*warnings, *doubts(loaded))
    precision = precision_of(loaded)
    adapted = None if learn is None else learn(loaded)
    if adapted is not None:
        loaded, warnings = adapted.prior, (*warnings, *adapted.warnings)
    guided, classifier = _classified(loaded, options)
    cancellable = CancellablePrior(guided)
    ready = conditioned(fitted(rowwise(cancellable), options.fit, size), options)
    job = job_of(prior=ready, cancellable=cancellable, seeds=seeds)
    batch_size = options.batch_size
    if options.max_memory is not None:
        batch_size = job.keep_below(parse_bytes(options.max_memory), batch_size)
    asked = asdict(replace(options, batch_size=job.rows(batch_size), prior_flags=flags or None, precision=precision))
    call = {
        "method": method_name(job.solver),
        "num_samples": num_samples,
        "seed": [int(value) for value in seed] if isinstance(seed, Sequence | np.ndarray) else int(seed),
        **call,
        **{name: value for name, value in asked.items() if name not in ("device", "offline")},
        "classifier": None if options.classifier is None else str(options.classifier),
        **(asdict(job.solver) if is_dataclass(job.solver) else {}),
    }
    condition = condition_inside(ready)
    about_prior = {
        "name": ready.name,
        "source": None if isinstance(prior, Prior) else str(prior),
        "sha256": ready.hash,
        "spec": ready.spec,
        "flags": ready.flags,
        "facts": ready.facts,
        "condition": None if condition is None else condition.request,
        "classifier": classifier,
        **({} if adapted is None else {"adapted": adapted.about}),
    }
    about = {"call": call, "prior": about_prior, **about}
    return Plan(job.picture, ready, job.solver, seeds, call["batch_size"], warnings, job, about)


def inpaint(
    image: Source | Picture,
    mask: Source | None = None,
    prior: str | Path | Prior = "photos",
    method: str | Solver | None = None,
    num_samples: int = 4,
    seed: Seed = 0,
    *,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
    **options: Any,
) -> Result:
    """Draw completions of a picture: `plan`, then `Plan.run`. Only pixels that the mask says to repaint differ.

    Args:
        image, mask, prior, method, num_samples, seed, options: as for `plan`.
        on_event, cancel: as for `Plan.run`.

    Returns:
        The completions with their mean, uncertainty and everything that reproduces them.

    Raises:
        UsageError, PriorError, Stopped: as `plan` and `Plan.run`.
    """
    ready = plan(image, mask, prior, method, num_samples, seed, on_event=on_event, cancel=cancel, **options)
    return ready.run(on_event, cancel)


def _crops_to_learn(adapt: bool | int) -> int | None:
    """How many crops a prior learns of the picture; None where that is not asked for."""
    if isinstance(adapt, bool | np.bool_) and not adapt:
        return None
    from .adapting import asked_crops  # the training room, which few runs need

    return asked_crops(adapt)


def _classified(prior: Prior, options: Options) -> tuple[Prior, dict[str, Any] | None]:
    """The prior, guided by a classifier of its own pictures where one was given, and what is to be known of that."""
    if options.classifier is None:
        if options.classifier_scale != 1 or options.classifier_noise is not None:
            raise UsageError(
                "classifier_scale and classifier_noise are about a classifier; give its file as classifier"
            )
        return prior, None
    if options.label is None:
        raise UsageError("a classifier guides to a class; name it with label (--label on the command line)")
    from ..priors.readers.adm_classifier import load_classifier  # its network, which few runs need

    classifier = load_classifier(options.classifier, prior, options.label, options.classifier_noise)
    scale = options.classifier_scale
    return ClassifierGuidedPrior(prior, classifier, scale), {**classifier.facts, "scale": scale}


def conditioned(prior: Prior, options: Options) -> Prior:
    """The prior under the label or prompt of a job.

    Raises:
        UsageError: it takes no such condition.
    """
    label, prompt, scale = options.label, options.prompt, options.guidance_scale
    if options.classifier is not None and not prior.classes:
        label = None  # which the classifier alone was told
    if label is None and prompt is None and options.negative_prompt is None and scale == 1:
        return prior
    return CFGPrior(prior, label=label, prompt=prompt, negative_prompt=options.negative_prompt, scale=scale)
