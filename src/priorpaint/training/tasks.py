"""What a run trains: a denoiser of pictures, an autoencoder, or a denoiser of an autoencoder's latents.

The loop knows batches, budgets and files; a task knows the loss of a batch, and how a network is judged, shown and
stored.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import Tensor

from priorpaint.errors import PriorError, UsageError
from priorpaint.metrics.psnr import psnr
from priorpaint.priors.native.autoencoder import AutoencoderConfig, ConvAutoencoder
from priorpaint.priors.native.mlp import MLPConfig
from priorpaint.priors.native.prior import trained_prior
from priorpaint.priors.native.unet import UNetConfig
from priorpaint.priors.native.weights_file import Network, WeightsMetadata, read_weights, save_autoencoder, save_weights
from priorpaint.priors.readers.untrusted.reading import file_hash
from priorpaint.priors.verify import check
from priorpaint.training.config import TrainConfig
from priorpaint.training.data import Encoded, Pictures, to_float
from priorpaint.training.objectives import Balance, Losses, objective
from priorpaint.training.validate import (
    COLUMNS,
    SEED,
    Denoise,
    denoise_chunks,
    denoising_psnr,
    in_chunks,
    latent_psnr,
    picture_sheet,
    unconditional,
)

WEIGHTS = "weights.safetensors"
# Weight of the squared error beside the absolute one, which alone would leave small errors anywhere.
SQUARED_WEIGHT = 0.5
_LABEL_SEED = 7_777_777_777
# Samples of a sheet start here at the most; DDPM's tables go beyond, to no effect that an eye could see.
_SHEET_MAX = 80.0
_SHEET_SIGMAS = (0.25, 1.0, 3.0)  # where the standard deviation of clean pictures is 0.5


@dataclass(frozen=True)
class LoadedAutoencoder:
    """A trained autoencoder: the network, facts about its training, and the SHA-256 of its file."""

    network: ConvAutoencoder
    training: Mapping[str, Any]
    sha256: str


class Task(ABC):
    """What is trained on pictures (N, C, H, W) in [-1, 1].

    Args:
        config: of the run.

    Attributes:
        multiple: sides of pictures are a multiple of this.
        balance: see `Objective`.
    """

    balance: Balance | None = None

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self.multiple = config.network.multiple

    def source(self, pictures: Pictures, device: torch.device) -> Pictures | Encoded:
        """Where batches come from."""
        return pictures

    def learned(self, batch: Tensor) -> Tensor:
        """What is learned of a batch of `source`: its crops, (N, C, H, W) in [-1, 1]."""
        return to_float(batch)

    @abstractmethod
    def losses(self, network: Any, x_0: Tensor, labels: Tensor, seed: int) -> Losses:
        """The losses of what is `learned` of a batch with classes ``labels`` (N,), with noise from ``seed``."""

    @abstractmethod
    def psnr(self, network: Any, pictures: Tensor) -> dict[str, float]:
        """What ``network`` is worth on held-out pictures, in dB."""

    @abstractmethod
    def sheet(self, network: Any, pictures: Tensor | None, crops: Tensor) -> Image.Image:
        """Held-out pictures, where there are some, or else training crops, and what ``network`` makes of them."""

    @abstractmethod
    def save(self, path: Path, network: Any, facts: Mapping[str, Any], class_names: tuple[str, ...]) -> None:
        """Write the weights file, with facts about the training."""

    def finished(self, network: Any, crops: Tensor) -> Any:
        """The averaged network as it is used, by means of some training crops."""
        return network

    def figures(self, path: Path, pictures: Tensor) -> dict[str, Any] | None:
        """What `verify.check` finds of the prior in a weights file that was just written, on a few pictures; None where
        the file holds no prior."""
        try:
            prior = trained_prior(read_weights(path), path, path.stem, pictures.device, torch.float32)
            return check(prior, pictures=pictures).figures()
        except PriorError as error:  # values that are not finite
            return {"denoises": False, "levels": [], "error": str(error)}


class Reconstruction(Task):
    """An autoencoder: |x - Dec(z + s n)| + 0.5 (x - Dec(z + s n))^2, z being the standardised latent of x.

    See `priors.autoencoder` for what the noise is for; s is ``latent_noise``.
    """

    def losses(self, network: Any, x_0: Tensor, labels: Tensor, seed: int) -> Losses:
        shape = cast(AutoencoderConfig, self.config.network)
        cells = [side // shape.factor for side in x_0.shape[2:]]
        generator = torch.Generator(x_0.device).manual_seed(seed)
        noise = torch.randn(len(x_0), shape.latent_channels, *cells, generator=generator, device=x_0.device)
        error = network(x_0, self.config.latent_noise * noise).to(x_0.dtype) - x_0
        loss = (error.abs() + SQUARED_WEIGHT * error.square()).mean((1, 2, 3))
        return Losses(loss, loss)

    def figures(self, path: Path, pictures: Tensor) -> dict[str, Any] | None:
        return None

    def finished(self, network: Any, crops: Tensor) -> Any:
        ready: ConvAutoencoder = copy.deepcopy(network)
        ready.standardise(list(torch.split(crops, 32)))
        return ready

    def psnr(self, network: Any, pictures: Tensor) -> dict[str, float]:
        return {"reconstruction": float(psnr(_round_trip(network, pictures).clamp(-1, 1), pictures).mean())}

    def sheet(self, network: Any, pictures: Tensor | None, crops: Tensor) -> Image.Image:
        shown = crops if pictures is None else pictures
        shown = shown[:: max(1, len(shown) // (2 * COLUMNS))][: 2 * COLUMNS]
        rows = torch.split(shown, COLUMNS)
        return picture_sheet([each for row in rows for each in (row, _round_trip(network, row))])

    def save(self, path: Path, network: Any, facts: Mapping[str, Any], class_names: tuple[str, ...]) -> None:
        save_autoencoder(path, network, facts)


class Denoising(Task):
    """A denoiser of pictures; the loss is that of ``config.loss``."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.objective = objective(config)
        self.balance = self.objective.balance
        self.shape = cast("UNetConfig | MLPConfig", config.network)
        self.side = config.size

    def losses(self, network: Any, x_0: Tensor, labels: Tensor, seed: int, weight: Tensor | None = None) -> Losses:
        """As for any task; with ``weight`` (N, 1, H, W), pixels count in this proportion."""
        generator = torch.Generator(x_0.device).manual_seed(seed)
        return self.objective.losses(self._told(network, labels, seed), x_0, generator, weight)

    def psnr(self, network: Any, pictures: Tensor) -> dict[str, float]:
        return denoising_psnr(self._denoiser(network), pictures, self.objective.levels[1])

    def sheet(self, network: Any, pictures: Tensor | None, crops: Tensor) -> Image.Image:
        """Rows of clean pictures, noisy and denoised at some levels, then samples, and samples of the classes."""
        low, high = self.objective.levels
        levels, std = (low, min(high, _SHEET_MAX)), self.config.sigma_data
        denoise, generator = self._denoiser(network), torch.Generator().manual_seed(SEED)
        rows: list[Tensor] = []
        if pictures is not None:
            clean = self._data(pictures[:: max(1, len(pictures) // COLUMNS)][:COLUMNS])
            rows.append(clean)
            for sigma in (2 * std * each for each in _SHEET_SIGMAS):
                noisy = clean + sigma * torch.randn(clean.shape, generator=generator).to(clean.device)
                rows += [noisy, denoise_chunks(denoise, noisy, sigma)]
        noise = torch.randn((COLUMNS, *self._data(crops[:1]).shape[1:]), generator=generator).to(crops.device)
        rows.append(unconditional(denoise, noise, levels, std))
        if self.shape.classes:
            labels = torch.arange(COLUMNS, device=crops.device) % self.shape.classes
            rows.append(unconditional(self._denoiser(partial(network, labels=labels)), noise, levels, std))
        return picture_sheet([self._pictures(row) for row in rows])

    def save(self, path: Path, network: Any, facts: Mapping[str, Any], class_names: tuple[str, ...]) -> None:
        save_weights(path, network, self._metadata(facts, class_names))

    def _data(self, pictures: Tensor) -> Tensor:
        """What is learned of the pictures: they themselves."""
        return pictures

    def _pictures(self, data: Tensor) -> Tensor:
        return data

    def _denoiser(self, network: Any) -> Denoise:
        return partial(self.objective.denoise, network)

    def _told(self, network: Any, labels: Tensor, seed: int) -> Any:
        """The network, told the classes of a batch, some of which it does not get to know."""
        if not self.shape.classes:
            return network
        generator = torch.Generator(labels.device).manual_seed(seed + _LABEL_SEED)
        hidden = torch.rand(len(labels), generator=generator, device=labels.device) < self.config.label_dropout
        return partial(network, labels=torch.where(hidden, self.shape.classes, labels))

    def _metadata(self, facts: Mapping[str, Any], class_names: tuple[str, ...]) -> WeightsMetadata:
        config = self.config
        return WeightsMetadata(
            config.sigma_data, *self.objective.levels, facts,
            prediction=self.objective.prediction, betas=config.betas,
            size=(self.side, self.side) if config.whole else None, class_names=class_names,
        )  # fmt: skip


class LatentDenoising(Denoising):
    """A denoiser of the latents of a frozen autoencoder; pictures that need no crop are encoded once."""

    def __init__(self, config: TrainConfig, autoencoder: LoadedAutoencoder) -> None:
        super().__init__(config)
        self.autoencoder = autoencoder
        factor, channels = autoencoder.network.factor, autoencoder.network.channels
        self.multiple *= factor
        if self.shape.in_channels != channels:
            raise UsageError(
                f"The network reads {self.shape.in_channels} channels and the latents of {config.latent} have "
                f"{channels}; give it in_channels={channels}."
            )
        for name, side in (("size", config.size), ("wide", config.wide)):
            if side % self.multiple:
                raise UsageError(
                    f"{name} must be a multiple of {self.multiple} pixels for this network, whose latents have cells "
                    f"of {factor}; got {side}."
                )
        self.side = config.size // factor
        if self.shape.side and self.shape.side != self.side:
            raise UsageError(
                f"The network's dense blocks are made for latents of {self.shape.side}x{self.shape.side} cells; the "
                f"run has {self.side}."
            )

    def source(self, pictures: Pictures, device: torch.device) -> Pictures | Encoded:
        return pictures.encoded(lambda pixels: self._data(to_float(pixels.to(device)))) if pictures.fixed else pictures

    def learned(self, batch: Tensor) -> Tensor:
        """Crops are still to be encoded; `Encoded` gives latents."""
        return self._data(to_float(batch)) if batch.dtype == torch.uint8 else batch

    def psnr(self, network: Any, pictures: Tensor) -> dict[str, float]:
        return latent_psnr(self._denoiser(network), self._data(pictures))

    def save(self, path: Path, network: Any, facts: Mapping[str, Any], class_names: tuple[str, ...]) -> None:
        metadata = self._metadata({**facts, "autoencoder_sha256": self.autoencoder.sha256}, class_names)
        metadata = replace(metadata, autoencoder_training=self.autoencoder.training)
        save_weights(path, network, metadata, autoencoder=self.autoencoder.network)

    def _data(self, pictures: Tensor) -> Tensor:
        return in_chunks(self.autoencoder.network.encode, pictures)

    def _pictures(self, data: Tensor) -> Tensor:
        return in_chunks(self.autoencoder.network.decode, data)


def load_autoencoder(path: str | Path, device: torch.device | str = "cpu") -> LoadedAutoencoder:
    """The autoencoder in a folder or file of ``priorpaint train --autoencoder``, or of a latent prior.

    Raises:
        PriorError: there is no such file, or it cannot be read.
        UsageError: it holds no autoencoder.
    """
    source = Path(path) / WEIGHTS if Path(path).is_dir() else Path(path)
    weights = read_weights(source)
    if weights.autoencoder is None:
        raise UsageError(f"{source} holds no autoencoder; train one with `priorpaint train --autoencoder ...`.")
    metadata = weights.metadata
    training = metadata.training if weights.denoiser is None else metadata.autoencoder_training
    return LoadedAutoencoder(weights.autoencoder.to(device), training, file_hash(source))


def task_of(config: TrainConfig, autoencoder: LoadedAutoencoder | None) -> Task:
    """The task of a run; ``autoencoder`` is what ``config.latent`` names.

    Raises:
        UsageError: network and autoencoder do not fit.
    """
    if isinstance(config.network, AutoencoderConfig):
        return Reconstruction(config)
    return Denoising(config) if autoencoder is None else LatentDenoising(config, autoencoder)


def stored_weights(path: str, config: TrainConfig) -> Network:
    """The network in a weights file that a run starts from.

    Raises:
        PriorError: the file cannot be read.
        UsageError: it holds another network than that of the run.
    """
    weights = read_weights(path)
    stored = weights.autoencoder if isinstance(config.network, AutoencoderConfig) else weights.denoiser
    if stored is None or stored.config != config.network:
        held = "no such network" if stored is None else f"a network with {stored.config}"
        raise UsageError(f"{path} holds {held}, and this run has {config.network}; ask for the same.")
    return stored


def _round_trip(network: ConvAutoencoder, pictures: Tensor) -> Tensor:
    return in_chunks(lambda part: network.decode(network.encode(part)), pictures)
