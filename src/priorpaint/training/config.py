"""What a training run is asked to do."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from priorpaint.errors import UsageError
from priorpaint.priors.native.autoencoder import AutoencoderConfig
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.native.unet import UNetConfig
from priorpaint.priors.readers.untrusted.reading import machine_memory
from priorpaint.training.ema import power_exponent

_CHOICES = {
    "loss": ("edm", "simple", "hybrid", "vlb", "reconstruction"),
    "betas": ("linear", "cosine", "scaled_linear"),
    "classes": ("auto", "none"),
    "augment": ("auto", "photo", "flip", "none"),
    "precision": ("auto", "bf16", "float32"),
}


_MOST_CROPS, _MOST_HOURS = 10**12, 10**5
# Bytes at the least: of a pixel in float32 and its gradient; of a weight, its gradient, average and optimizer's state.
_PIXEL, _WEIGHT = 8, 16


def noise_levels(*, whole: bool, latent: bool) -> dict[str, float]:
    """Fields of `TrainConfig` that suit pictures, or latents, whose standard deviation is about twice that of pictures.

    Args:
        whole: the network learns pictures as wholes, and has to draw their large shapes as well.
        latent: latents; a latent cell is a large part of a picture, so they take the levels of wholes.
    """
    if latent:
        return {"sigma_data": 1.0, "sigma_min": 0.02, "sigma_max": 80.0, "p_mean": -0.5}
    return {"sigma_data": 0.5, "sigma_min": 0.01, "sigma_max": 80.0 if whole else 8.0, "p_mean": -1.2}


@dataclass(frozen=True)
class TrainConfig:
    """One training run; noise levels are standard deviations for pictures in [-1, 1].

    Args:
        data: folders (searched recursively), picture files, tar files of pictures or idx files.
        out: folder for checkpoint.pt, weights.safetensors, samples.png and log.jsonl.
        val: held-out pictures, as ``data``.
        hold_out: without ``val``, of 200 pictures or more one in 50 is held out in their place. A run that goes on
            keeps to what it began with.
        network: shape of the network; an ``AutoencoderConfig`` trains an autoencoder, and an ``MLPConfig`` a network
            that predicts x_0 in place of EDM's mixture of x_0 and noise.
        size: side of the training crops in pixels.
        wide: side of the wide crops in pixels, 0 for none: every fourth batch holds fewer crops of this side, at the
            same cost, so that deep levels see context beyond ``size``.
        scales: factors at which each picture is also offered.
        batch: crops in a batch and process.
        crops, hours: the budget, by whichever is given (both: by whichever ends first); counted over all resumptions.
            A batch of wide crops counts as ``batch``.
        lr: learning rate of Muon (convolutions); ``adam_lr`` is Adam's for everything else.
        decay: share of the budget, at its end, over which both fall to (nearly) zero. A run that begins with trained
            weights (``init``) gains most while they fall, so give it 1 and smaller rates.
        ema: largest decay of the moving average of the weights.
        ema_power: relative width of a power-function average in its place (see ``EMA``), 0 for none.
        loss: "edm" (Karras et al. 2022), "simple" (DDPM's L_simple), "hybrid" (improved DDPM's learned variance) or
            "vlb" (the variational bound, of a network that predicts means); "reconstruction" for an autoencoder.
        betas: noise table of ``simple``, ``hybrid`` and ``vlb``: "linear", "cosine" or "scaled_linear".
        classes: "auto" trains a class-conditional network where subfolders or idx labels say classes; "none" never.
        label_dropout: share of the crops whose class is hidden: all that the prior without a label learns from, which
            most completions use. (0.1, common elsewhere, is for networks that are always told.)
        augment: "auto", "photo", "flip" or "none", see ``Pictures``.
        whole: pictures are shrunk to ``size`` and learned as wholes, and the prior then knows this size only.
        latent: file or folder of an autoencoder whose latents are learned in place of pictures; ``network`` then has
            its latent channels, and noise levels are standard deviations for latents (see `noise_levels`).
        latent_noise: size of the noise that an autoencoder's latents, of standard deviation 1, get in its training.
        p_mean, p_std: ln sigma ~ N(p_mean, p_std^2), clamped to [ln sigma_min, ln sigma_max].
        balance: divide each crop's loss by the running mean of its noise level.
        precision: "auto" (bf16 where the machine computes in it), "bf16" or "float32".
        init: weights file to start from instead of random weights.
        resume: continue from out/checkpoint.pt where it exists.
        checkpoint_seconds, report_seconds, validate_minutes, sheet_minutes: how often.

    Raises:
        UsageError: a value that cannot be used.
    """

    data: tuple[str, ...]
    out: str
    val: tuple[str, ...] = ()
    network: UNetConfig | MLPConfig | AutoencoderConfig = field(default_factory=UNetConfig)
    size: int = 64
    wide: int = 0
    scales: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35)
    batch: int = 32
    crops: int | None = None
    hours: float | None = None
    lr: float = 0.01
    adam_lr: float = 1e-3
    decay: float = 0.4
    ema: float = 0.999
    seed: int = 0
    p_mean: float = -1.2
    p_std: float = 1.3
    sigma_min: float = 0.01
    sigma_max: float = 8.0
    sigma_data: float = 0.5
    balance: bool = True
    precision: str = "auto"
    init: str | None = None
    resume: bool = True
    checkpoint_seconds: float = 45.0
    report_seconds: float = 30.0
    validate_minutes: float = 10.0
    sheet_minutes: float = 10.0
    loss: str = "edm"
    betas: str = "linear"
    ema_power: float = 0.0
    classes: str = "auto"
    label_dropout: float = 0.5
    augment: str = "auto"
    whole: bool = False
    latent: str | None = None
    latent_noise: float = 0.1
    hold_out: bool = True

    def __post_init__(self) -> None:
        if not self.data:
            raise UsageError("Training needs pictures: name at least one folder, picture or tar file.")
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{name} must be a finite number; got {value}.")
        if (self.crops or 0) > _MOST_CROPS or (self.hours or 0) > _MOST_HOURS:
            raise UsageError(f"The budget is at most {_MOST_CROPS} crops and {_MOST_HOURS} hours; ask for less.")
        if self.crops is None and self.hours is None:
            raise UsageError("Training needs a budget: give a number of crops or a number of hours.")
        if (self.crops is not None and self.crops < 1) or (self.hours is not None and not self.hours > 0):
            raise UsageError("The budget must be positive: at least one crop, or more than 0 hours.")
        if self.batch < 1 or not self.lr > 0 or not self.adam_lr > 0 or not 0 <= self.ema < 1 or self.seed < 0:
            raise UsageError("Batch and learning rates must be positive, the seed not negative and 0 <= ema < 1.")
        if not 0 < self.decay <= 1:
            raise UsageError(f"decay is a share of the budget, in (0, 1]; got {self.decay}.")
        if not 0 < self.sigma_min < self.sigma_max or not self.p_std > 0 or not self.sigma_data > 0:
            raise UsageError("Noise levels need 0 < sigma_min < sigma_max, p_std > 0 and sigma_data > 0.")
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise UsageError("Every scale of the pictures must lie in (0, 1].")
        self._check_choices()
        if self.ema_power:
            power_exponent(self.ema_power)
        if not 0 <= self.label_dropout <= 1:
            raise UsageError(f"The share of hidden labels lies in [0, 1]; got {self.label_dropout}.")
        if self.whole and self.wide:
            raise UsageError(
                "Wide crops show more than a picture that is learned as a whole has; leave one of them out."
            )
        self._check_dense()
        if not self.latent_noise >= 0:
            raise UsageError(f"The noise of the latents is not negative; got {self.latent_noise}.")
        multiple = self.network.multiple
        for name, side in (("size", self.size), ("wide", self.wide)):
            if side % multiple or side < 0 or (name == "size" and side == 0):
                raise UsageError(f"{name} must be a multiple of {multiple} pixels for this network; got {side}.")
        if self.wide and self.wide <= self.size:
            raise UsageError(f"wide must be larger than size ({self.size}), or 0 for none; got {self.wide}.")
        self._check_memory()

    def _check_memory(self) -> None:
        """That what is asked for is not larger than the machine, by what it takes at the least."""
        crops = self.batch * max(self.size, self.wide) ** 2 * _PIXEL
        for needed, what in (
            (self.network.fewest_weights * _WEIGHT, "a network of this shape; use fewer or narrower --channels"),
            (
                crops,
                f"a batch of {self.batch} crops of {self.size}x{self.size}; use a smaller --batch or --size",
            ),
        ):
            if needed > machine_memory():
                raise UsageError(
                    f"Training takes at least {needed / 1e9:.3g} GB, more memory than this machine has, for {what}."
                )

    def _check_choices(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UsageError(f"{name} must be {', '.join(known[:-1])} or {known[-1]}; got {getattr(self, name)!r}.")
        autoencoder = isinstance(self.network, AutoencoderConfig)
        if autoencoder != (self.loss == "reconstruction"):
            raise UsageError("The loss 'reconstruction', and no other, trains an autoencoder.")
        if autoencoder and self.latent is not None:
            raise UsageError("An autoencoder learns pictures, not the latents of another one; leave latent out.")
        if isinstance(self.network, MLPConfig) and self.loss != "edm":
            raise UsageError(f"A dense network predicts the picture itself, for the loss 'edm'; got {self.loss!r}.")
        if isinstance(self.network, UNetConfig) and self.network.learned_variance != (self.loss == "hybrid"):
            raise UsageError("The loss 'hybrid', and no other, needs a network with learned_variance=True.")
        if self.loss in ("hybrid", "vlb") and self.latent is not None:
            raise UsageError(f"The loss {self.loss!r} ends in the likelihood of 8-bit pixels; for latents use 'edm'.")

    def _check_dense(self) -> None:
        if isinstance(self.network, AutoencoderConfig) or not self.network.side:
            return
        if not self.whole:
            raise UsageError("Dense blocks join places, so they need pictures that are learned as wholes (--whole).")
        if self.latent is None and self.network.side != self.size:
            side = self.network.side
            raise UsageError(f"The network's dense blocks are made for {side}x{side} pixels, the run for {self.size}.")

    @property
    def folder(self) -> Path:
        """``out`` as a path."""
        return Path(self.out)

    def spent(self, crops: int, seconds: float) -> float:
        """Share of the budget that so many crops and seconds, over all resumptions, are."""
        by_crops = crops / self.crops if self.crops else 0.0
        return max(by_crops, seconds / (3600 * self.hours) if self.hours else 0.0)

    def seconds_left(self, crops: int, seconds: float, rate: float) -> float:
        """Seconds until the end of the budget at ``rate`` crops a second; infinite where no rate is known yet."""
        by_crops = (self.crops - crops) / rate if self.crops and rate > 0 else float("inf")
        return max(0.0, min(by_crops, 3600 * self.hours - seconds if self.hours else float("inf")))

    def facts(self) -> dict[str, Any]:
        """What a weights file says about its training; of a source only the end of its path."""
        rates = ("lr", "adam_lr", "decay", "ema")
        keys = ("size", "wide", "scales", "batch", *rates, "seed", "p_mean", "p_std", "balance")
        values = asdict(self)
        sources = sorted("/".join(Path(source).parts[-2:]) for source in self.data)
        facts = {key: values[key] for key in keys}
        further = ("loss", "ema_power", "augment", "whole", "hold_out")
        facts |= {key: values[key] for key in further if values[key] != getattr(TrainConfig, key)}
        facts |= {"label_dropout": self.label_dropout} if getattr(self.network, "classes", 0) else {}
        if self.loss == "reconstruction":
            facts = {key: value for key, value in facts.items() if key not in ("p_mean", "p_std", "balance")}
            facts["latent_noise"] = self.latent_noise
        return {"data": sources, "initialised_from_weights": self.init is not None, **facts}
