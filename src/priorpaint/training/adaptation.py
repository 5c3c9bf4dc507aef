"""A prior of ours that learns a while longer from the known pixels of one picture, or of some: their own prior.

The posterior given the hole's surroundings and also the rest of the picture: textures, colours and shapes that it
repeats. Hidden pixels are put out before anything else happens, and the loss leaves them out.
"""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from priorpaint.errors import CancelToken, UsageError, memory_shortage_told
from priorpaint.priors.base import Prior
from priorpaint.priors.native.mlp import MLP
from priorpaint.priors.native.prior import LoadedPrior
from priorpaint.priors.native.weights_file import Denoiser, WeightsMetadata, save_weights, weights_bytes
from priorpaint.priors.readers.untrusted.reading import machine_memory
from priorpaint.priors.verify import FIGURES, check
from priorpaint.training.config import TrainConfig
from priorpaint.training.defaults import CROPS
from priorpaint.training.ema import EMA
from priorpaint.training.known import SHARE, KnownCrops, KnownPicture
from priorpaint.training.objectives import Losses
from priorpaint.training.optim import Optimizers, rate_factor
from priorpaint.training.tasks import WEIGHTS, Denoising

RECIPE = 1
"""Version of what `adapt` does with them; the same version, prior, picture and seed make the same weights."""
FACTS = "adapted"
"""Entry of the training facts of an adapted prior."""
SIDE, WIDE, BATCH = 64, 128, 8
SCALES = (1.0, 0.7, 0.5)
LR, ADAM_LR = 0.003, 3e-4
P_MEAN = -0.5  # more of the strong noise that decides about holes than in the training of a prior
WARM_UP = 20
MEASURED, MEASURING_RATE = 16, 0.2
MOST_PIXELS = 2**22
"""Of a larger picture only the part around the hole is learned."""
_MOST_CROPS = 10**7
# Bytes of a pixel in memory: its values and place at all scales, without those of its channels.
_PIXEL = 14
_VERIFIED = 8
_TIMED = 2


@dataclass(frozen=True)
class Learned:
    """How far an adaptation is, given to ``on_progress`` after each update.

    Args:
        crops, total: learned so far, and in all.
        loss: of the last batch; about 1 is that of a denoiser that knows only how far pictures spread.
        seconds_left: estimate; None before there is one, after the third update.
    """

    crops: int
    total: int
    loss: float
    seconds_left: float | None


def adapt(
    prior: Prior,
    values: Tensor | Sequence[Tensor],
    known: Tensor | Sequence[Tensor],
    *,
    crops: int = CROPS,
    seed: int = 0,
    cancel: CancelToken | None = None,
    on_progress: Callable[[Learned], None] = lambda learned: None,
) -> LoadedPrior:
    """Train a prior's own network on crops of known pixels, at falling rates, and average its weights.

    The same prior, known pixels, crops, seed, number of threads and versions give the same weights, whatever is in the
    hole.

    Args:
        prior: an embedded one or one of `priorpaint train`, of pictures; it is not changed.
        values: a picture (C, H, W) in [-1, 1], or several; hidden pixels may hold anything.
        known: bool (H, W), or one for each picture: where pixels are known.
        crops: how many crops of 64x64 pixels (of others: as many pixels) to learn.
        seed: of crops and noise.
        cancel: stops after the update that is under way.

    Returns:
        The adapted prior, with weights rounded to float16 and ``hash`` as `save_adapted` writes them.

    Raises:
        UsageError: the prior cannot learn, or there are not enough known pixels.
        Cancelled: ``cancel`` was cancelled; nothing is kept.
        NotEnoughMemory: there is not enough memory.
    """
    base, pictures = learnable(prior), known_pictures(prior, values, known)
    return learn(base, pictures, facts_of(base, pictures, crops, seed), cancel, on_progress)


def learn(
    base: LoadedPrior,
    pictures: Sequence[KnownPicture],
    facts: Mapping[str, Any],
    cancel: CancelToken | None = None,
    on_progress: Callable[[Learned], None] = lambda learned: None,
) -> LoadedPrior:
    """`adapt` where the known pictures and their facts, which say crops and seed, are at hand; raises the same."""
    crops = facts["crops"]
    config = _config(base, pictures, crops, facts["seed"])
    with memory_shortage_told():
        run = _Run(base, pictures, config)
        times: list[float] = []
        for loss in run.updates(cancel or CancelToken()):
            times.append(time.monotonic())
            learned = min(crops, len(times) * BATCH)
            on_progress(Learned(learned, crops, loss, _seconds_left(times, math.ceil((crops - learned) / BATCH))))
        return run.finished(facts)


def _seconds_left(times: Sequence[float], updates: int) -> float | None:
    """For so many more updates, from when the others were over; the first has costs of its own."""
    return (times[-1] - times[0]) / (len(times) - 1) * updates if len(times) > _TIMED else None


def learnable(prior: Prior) -> LoadedPrior:
    """The prior, where its network can be trained on.

    Raises:
        UsageError: it is none of ours, one of latents, or wrapped.
    """
    if isinstance(prior, LoadedPrior):
        return prior
    kind = "one of latents" if prior.latent else "not in priorpaint's own format"
    raise UsageError(
        f"the prior {prior.name} cannot be adapted to a picture, for it is {kind}; take photos, or a prior of pictures "
        "that `priorpaint train` wrote."
    )


def known_pictures(
    prior: Prior, values: Tensor | Sequence[Tensor], known: Tensor | Sequence[Tensor]
) -> tuple[KnownPicture, ...]:
    """One or several pictures with their known pixels, as `adapt` takes them, but for those without any; of large
    ones, what lies around the hole.

    Raises:
        UsageError: shapes or numbers differ, or a known value is not finite.
    """
    several = [values] if isinstance(values, Tensor) else list(values)
    masks = [known] if isinstance(known, Tensor) else list(known)
    if not several or len(several) != len(masks):
        raise UsageError(f"{len(several)} pictures and {len(masks)} masks were given; give one mask for each picture.")
    channels = prior.shape[0]
    for picture, mask in zip(several, masks, strict=True):
        if picture.ndim != 3 or picture.shape[0] != channels or picture.shape[1:] != mask.shape:
            raise UsageError(
                f"the prior {prior.name} learns pictures ({channels}, H, W) with masks (H, W), not "
                f"{tuple(picture.shape)} with {tuple(mask.shape)}."
            )
    pictures = tuple(KnownPicture.of(picture, mask) for picture, mask in zip(several, masks, strict=True))
    if not all(bool(torch.isfinite(picture.values).all()) for picture in pictures):
        raise UsageError("a known pixel is not finite; count it as hidden.")
    return tuple(picture.around_the_hole(MOST_PIXELS) for picture in pictures if bool(picture.known.any()))


def facts_of(prior: LoadedPrior, pictures: Sequence[KnownPicture], crops: int, seed: int) -> dict[str, Any]:
    """What decides about an adapted prior, in JSON values: two with the same facts are the same prior."""
    hashes = [picture.hashes() for picture in pictures]
    return {
        "recipe": RECIPE,
        "prior": prior.name,
        "prior_sha256": prior.hash,
        "values_sha256": [values for values, _ in hashes],
        "known_sha256": [known for _, known in hashes],
        "crops": crops,
        "seed": seed,
    }


def facts_in(prior: Prior) -> Mapping[str, Any] | None:
    """The facts of a prior that was adapted; None for any other."""
    training = (prior.facts or {}).get("training")
    facts = training.get(FACTS) if isinstance(training, Mapping) else None
    return facts if isinstance(facts, Mapping) else None


def save_adapted(prior: LoadedPrior, path: str | Path) -> Path:
    """Write a prior into a weights file, or into a folder as weights.safetensors; `load_prior` reads both.

    Returns:
        The file, whose SHA-256 is the prior's ``hash`` where `adapt` made it.
    """
    path = Path(path)
    file = path if path.suffix == ".safetensors" else path / WEIGHTS
    save_weights(file, prior.network, prior.metadata)
    return file


def _config(prior: LoadedPrior, pictures: Sequence[KnownPicture], crops: int, seed: int) -> TrainConfig:
    """The training run that this is.

    Raises:
        UsageError: a number that cannot be used, or not enough known pixels.
    """
    if not 1 <= crops <= _MOST_CROPS or seed < 0:
        raise UsageError(f"crops are from 1 to {_MOST_CROPS} and a seed is not negative, not {crops} and {seed}.")
    metadata, shape = prior.metadata, prior.network.config
    multiple, fixed = shape.multiple, metadata.size is not None
    smallest = min((min(picture.known.shape) for picture in pictures), default=0)
    side = metadata.size[0] if metadata.size else min(SIDE, smallest) // multiple * multiple
    most = max((int(picture.known.sum()) for picture in pictures), default=0)
    if not 0 < side <= smallest or most < SHARE * side**2:
        side = max(side, multiple)
        raise UsageError(
            f"the known part is too small to learn from: {most} pixels of a picture are known, and crops have "
            f"{side}x{side}, half of them known; do without adaptation, or take a larger picture."
        )
    pixels = sum(picture.known.numel() for picture in pictures)
    if (needed := pixels * (_PIXEL + 7 * shape.in_channels)) > machine_memory() / 2:
        raise UsageError(
            f"the pictures take {needed / 1e9:.3g} GB at all scales, more than half of this machine's memory; name "
            "fewer or smaller ones."
        )
    losses = {"eps": "hybrid" if shape.learned_variance else "simple", "mean": "vlb"}
    return TrainConfig(
        data=(prior.name,),
        out="",
        network=shape,
        size=side,
        wide=WIDE if side == SIDE and smallest >= WIDE and not fixed else 0,
        scales=(1.0,) if fixed else SCALES,
        batch=max(1, BATCH * SIDE**2 // side**2),
        crops=crops,
        seed=seed,
        lr=LR,
        adam_lr=ADAM_LR,
        decay=1.0,
        p_mean=P_MEAN,
        sigma_min=metadata.sigma_min,
        sigma_max=metadata.sigma_max,
        sigma_data=metadata.sigma_data,
        loss=losses.get(metadata.prediction, "edm"),
        betas=metadata.betas,
        whole=fixed,
        label_dropout=1.0,
        augment=_augment(prior.network, metadata),
    )


def _augment(network: Denoiser, metadata: WeightsMetadata) -> str:
    """As in the training of a prior, as far as it says."""
    known = metadata.training.get("augment")
    if known in ("photo", "flip", "none"):
        return str(known)
    return "none" if isinstance(network, MLP) else "photo" if metadata.size is None else "flip"


class _Run:
    """What lives from the first update to the last."""

    def __init__(self, prior: LoadedPrior, pictures: Sequence[KnownPicture], config: TrainConfig) -> None:
        self.prior, self.config, self.task = prior, config, Denoising(config)
        self.source = KnownCrops(pictures, config.size, config.scales, config.augment, wide=config.wide)
        network: Denoiser = copy.deepcopy(prior.network)
        self.network = network.train().requires_grad_(True)
        self.ema = EMA(self.network, config.ema)
        self.optimizers = Optimizers(self.network, config.lr, config.adam_lr)

    def updates(self, cancel: CancelToken) -> Iterator[float]:
        """Update by update; the loss of each."""
        total = math.ceil((self.config.crops or 0) / BATCH)
        self._balance(total)
        for step in range(total):
            cancel.check()
            losses, share = self._losses(step)
            (share * losses.weighed).mean().backward()  # type: ignore[no-untyped-call]
            self.optimizers.step(rate_factor(step, step / total, self.config.decay, WARM_UP))
            self.ema.update(self.network, step)
            yield float((share * losses.plain.detach()).mean())

    def _losses(self, index: int) -> tuple[Losses, Tensor]:
        """Of batch ``index``, and the weight of each crop, so that every known pixel has the same say."""
        seed, device = self.config.seed, self.prior.device
        x_0, known = (part.to(device) for part in self.source.batch(index, self.config.batch, seed=seed))
        x_0 = x_0.contiguous(memory_format=torch.channels_last)
        unlabelled = torch.zeros(len(x_0), dtype=torch.int64, device=device)
        losses = self.task.losses(self.network, x_0, unlabelled, seed * 1_000_003 + index, known)
        return losses, known.mean((1, 2, 3)) / known.mean()

    @torch.no_grad()
    def _balance(self, first: int) -> None:
        """Find the loss of each noise level beforehand, from batch ``first`` on: there is no time to find it on the
        way, and a trained network's loss at middling noise is a fifth of that at weak and strong noise."""
        balance = self.task.balance
        if balance is None:
            return
        balance.rate, after = MEASURING_RATE, balance.rate
        for index in range(MEASURED):
            self._losses(first + index)
        balance.rate = after

    def finished(self, facts: Mapping[str, Any]) -> LoadedPrior:
        """The averaged network as a prior."""
        old = self.prior.metadata
        network = self.ema.network
        with torch.no_grad():
            for weight in network.parameters():
                weight.copy_(weight.half())
        training = {**old.training, FACTS: dict(facts)}
        training.pop(FIGURES, None)
        figures = check(self._prior(network, replace(old, training=training)), pictures=self._crops()).figures()
        return self._prior(network, replace(old, training={**training, FIGURES: figures}), self.prior.precision)

    def _crops(self) -> Tensor:
        return self.source.batch(0, _VERIFIED, seed=self.config.seed)[0]

    def _prior(
        self, network: Denoiser, metadata: WeightsMetadata, precision: torch.dtype = torch.float32
    ) -> LoadedPrior:
        digest = hashlib.sha256(weights_bytes(network, metadata)).hexdigest()
        return LoadedPrior(network, metadata, None, f"{self.prior.name}-adapted", precision, digest)
