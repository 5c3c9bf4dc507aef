"""A picture's own prior, for the main job: made before the plan, and kept in the user's cache for later runs.

The folder is ``$PRIORPAINT_CACHE``, else the system's place for an application's cache. Whatever is in it may be
removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import Cancelled, CancelToken, PriorError, PriorpaintError, UsageError
from ..imaging import Picture
from ..imaging.picture import OPAQUE
from ..imaging.ranges import Asked
from ..imaging.writing import make_folder
from ..priors import Prior
from ..priors.loading import load_prior
from ..priors.native.prior import LoadedPrior
from ..training.adaptation import Learned, facts_in, facts_of, known_pictures, learn, learnable, save_adapted
from ..training.defaults import CROPS
from .events import Adapting, OnEvent
from .inputs import Source, as_picture, asked_range, in_range, whole
from .masking import Masking, resolve_mask
from .plans import Stopped

SEED = 0
"""Of the adaptation that belongs to a run, whatever the seed of its samples: all of them share one prior."""


@dataclass(frozen=True, eq=False)
class Adapted:
    """A prior that has learned a picture.

    Attributes:
        prior: it.
        about: where it comes from, for run.json.
        warnings: what the user should hear about, one sentence each.
    """

    prior: Prior
    about: dict[str, Any]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class KnownPart:
    """What can be learned of a picture.

    Attributes:
        values: (C, H, W) in [-1, 1].
        known: bool (H, W); what is transparent is hidden, too.
        warnings: what the user should hear about, one sentence each.
    """

    values: Tensor
    known: Tensor
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, picture: Picture, known: NDArray[np.bool_], channels: int, warnings: tuple[str, ...] = ()) -> KnownPart:
        """Of a picture whose range is settled, as a prior of so many channels sees it."""
        seen = known if picture.alpha is None else known & (picture.alpha >= OPAQUE)
        return cls(picture.to_tensor(channels)[0], torch.from_numpy(seen.copy()), warnings)


def cache_folder() -> Path:
    """The folder of what can be made again; it may not exist."""
    chosen = os.environ.get("PRIORPAINT_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "priorpaint" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "priorpaint"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "priorpaint"


def asked_crops(adapt: Any) -> int:
    """How many crops True, or a number, asks for.

    Raises:
        UsageError: something else, or none at all.
    """
    crops = CROPS if isinstance(adapt, bool | np.bool_) else whole(adapt, "adapt")
    if crops < 1:
        raise UsageError(f"adapt is True, or how many crops the prior learns, at least 1, not {crops}")
    return crops


def adapted(
    prior: Prior,
    picture: Picture,
    known: NDArray[np.bool_],
    crops: int,
    on_event: OnEvent | None = None,
    cancel: CancelToken | None = None,
) -> Adapted:
    """The prior after it has learned the known part of a picture, from the cache where it is there.

    Args:
        prior: see `training.adaptation.adapt`.
        picture: with its range; pixels outside ``known`` (H, W) and transparent ones are not looked at.
        crops: how many to learn.
        on_event: hears `Adapting`.

    Raises:
        UsageError, NotEnoughMemory: as `adapt`.
        Stopped: it was cancelled.
    """
    tell = on_event or (lambda event: None)
    base, part = learnable(prior), KnownPart.of(picture, known, prior.image_shape[0])
    pictures = known_pictures(base, part.values, part.known)
    facts = facts_of(base, pictures, crops, SEED)
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / "adapted" / f"{key}.safetensors"
    told: tuple[str, ...] = ()
    if os.path.exists(path):
        try:
            own = _cached(path, base, facts)
            tell(Adapting(crops, crops, 0.0, path))
            return Adapted(own, {**facts, "cached": True})
        except (PriorpaintError, OSError) as error:
            told = (f"The adapted prior of an earlier run is made again, because it cannot be used: {error}",)

    def progress(learned: Learned) -> None:
        tell(Adapting(learned.crops, learned.total, learned.seconds_left))

    try:
        new = learn(base, pictures, facts, cancel, progress)
    except Cancelled:
        raise Stopped("stopped while the prior was learning the picture; nothing is kept", None) from None
    try:
        make_folder(path.parent)
        path.parent.chmod(0o700)  # a prior that has learned a picture can show something of it
        save_adapted(new, path)
        return Adapted(_cached(path, base, facts), {**facts, "cached": False}, told)  # which others can load, too
    except (PriorpaintError, OSError) as error:
        told = (*told, f"The adapted prior is not kept for later runs: {error}")
        return Adapted(new, {**facts, "cached": False}, told)


def _cached(path: Path, base: LoadedPrior, facts: Mapping[str, Any]) -> Prior:
    """The prior in a file of the cache.

    Raises:
        PriorError: the file is damaged, or is not what its name says.
    """
    prior = load_prior(path, device=base.device, dtype=base.precision)
    if facts_in(prior) != facts:
        raise PriorError(f"{path} holds another prior.")
    prior.name = f"{base.name}-adapted"
    return prior


def known_part(
    image: Source | Picture,
    mask: Source | None,
    channels: int,
    *,
    value_range: Asked = "auto",
    page: int | None = None,
    **masking: Any,
) -> KnownPart:
    """What a prior of so many channels can learn of a picture; all of it where nothing says what is hidden.

    Args:
        image, mask, value_range, page, masking: as for `inpainting.api.plan`.

    Raises:
        UsageError: arguments, picture or mask that cannot be used.
    """
    how, rest = Masking.split(masking)
    if rest:
        raise UsageError(f"{', '.join(rest)} says nothing about a hole; leave it out.")
    how, asked = how.checked(), asked_range(value_range)
    picture = as_picture(image, page)
    known, told = np.ones(picture.size[::-1], dtype=np.bool_), picture.warnings
    if mask is not None or how != Masking().checked():
        hole = resolve_mask(picture, mask, how)
        picture, known, told = hole.picture, hole.known, (*told, *hole.warnings)
    picture, more = in_range(picture, known, asked)
    return KnownPart.of(picture, known, channels, (*told, *more))
