"""What ``priorpaint train`` wrote, as a prior."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...diffusion.schedules import EDM, VP
from ...errors import CheckpointError
from ...imaging.writing import check_results
from ..latent import LatentPrior
from ..network import NetworkPrior, labels_or
from ..readers.untrusted.reading import file_hash
from .autoencoder import ConvAutoencoder
from .weights_file import ON_A_TABLE, TRAINED_FILE, Denoiser, Weights, WeightsMetadata, save_weights


class LoadedPrior(NetworkPrior):
    """A prior that was read from a weights file, or could be written into one.

    Its network sees ln(sigma / alpha) / 4, whatever it predicts. With classes, None is the null class: any picture.

    Attributes:
        hash: SHA-256 of the file, in hexadecimal.
        source: the file; None where there is none yet.
        facts: what the file says about itself, in JSON values.
        metadata: the same as it is in the file.
        precision: of its convolutions; weights and images are float32.
    """

    network: Denoiser

    def __init__(
        self,
        network: Denoiser,
        metadata: WeightsMetadata,
        source: Path | None,
        name: str,
        dtype: torch.dtype,
        digest: str | None,
    ) -> None:
        config, table = network.config, metadata.prediction in ON_A_TABLE
        schedule = VP(metadata.betas) if table else EDM(sigma_min=metadata.sigma_min, sigma_max=metadata.sigma_max)
        super().__init__(
            network,
            schedule,
            (config.in_channels, *(metadata.size or (None, None))),
            prediction=metadata.prediction,
            condition=lambda t: schedule.log_nsr(t) / 4,
            sigma_data=metadata.sigma_data,
            multiple=config.multiple,
            name=name,
            embed=labels_or(config.classes) if config.classes else None,
            classes=config.classes,
        )
        self.precision = dtype
        dropout = metadata.training.get("label_dropout")  # files of before it was recorded were trained with some
        self.info = replace(self.info, null_state=not config.classes or dropout != 0)
        self.learned_variance = config.learned_variance
        self.data_std = 1.0 if table else metadata.sigma_data
        self.hash = digest
        self.source, self.metadata = source, metadata
        edm = {"sigma_min": metadata.sigma_min, "sigma_max": metadata.sigma_max, "sigma_data": metadata.sigma_data}
        self.facts = {
            "format": "priorpaint",
            "architecture": type(network).__name__,
            "prediction": metadata.prediction,
            "schedule": f"vp {metadata.betas}" if table else "edm",
            **({} if table else edm),
            "parameters": sum(weight.numel() for weight in network.parameters()),
            **({"classes": list(metadata.class_names) or config.classes} if config.classes else {}),
            **({"learned_variance": True} if config.learned_variance else {}),
            "training": dict(metadata.training),
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        return _saved(self.network, None, self.metadata, Path(folder), overwrite)

    def _all_channels(self, x: Tensor, t: Tensor, given: Mapping[str, Tensor]) -> Tensor:
        with _precision(x, self.precision):
            return super()._all_channels(x, t, given)


class LoadedLatentPrior(LatentPrior):
    """A `LoadedPrior` of latents, with the autoencoder of the same file; its ``hash``, ``source``, ``metadata``."""

    def __init__(
        self, inner: LoadedPrior, autoencoder: ConvAutoencoder, metadata: WeightsMetadata, dtype: torch.dtype
    ) -> None:
        super().__init__(inner, autoencoder)
        self._precision = dtype
        self.facts = {
            **(inner.facts or {}),
            "autoencoder": "ConvAutoencoder",
            "factor": autoencoder.factor,
            "latent_channels": autoencoder.channels,
            "parameters": sum(weight.numel() for weight in self.parameters()),
            "autoencoder_parameters": sum(weight.numel() for weight in autoencoder.parameters()),
            "autoencoder_training": dict(metadata.autoencoder_training),
        }

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        inner = self.inner
        assert isinstance(inner, LoadedPrior) and isinstance(self.autoencoder, ConvAutoencoder)  # as it was built
        return _saved(inner.network, self.autoencoder, inner.metadata, Path(folder), overwrite)

    def encode(self, image: Tensor) -> Tensor:
        with _precision(image, self._precision):
            return super().encode(image)

    def decode(self, latent: Tensor) -> Tensor:
        with _precision(latent, self._precision):
            return super().decode(latent)


def trained_prior(
    weights: Weights, source: Path, name: str, device: torch.device, dtype: torch.dtype
) -> LoadedPrior | LoadedLatentPrior:
    """What a weights file holds, as a prior on ``device``.

    Raises:
        CheckpointError: it holds an autoencoder alone.
    """
    if weights.denoiser is None:
        raise CheckpointError(
            f"{source} holds an autoencoder, which is half of a latent prior; train the denoiser of its latents with "
            f"`priorpaint train --latent {source} ...`."
        )
    for network in (weights.denoiser, weights.autoencoder):
        if network is not None:
            network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    prior = LoadedPrior(weights.denoiser, weights.metadata, source, name, dtype, file_hash(source))
    if weights.autoencoder is None:
        return prior
    return LoadedLatentPrior(prior, weights.autoencoder, weights.metadata, dtype)


def _saved(
    network: Denoiser, autoencoder: ConvAutoencoder | None, metadata: WeightsMetadata, folder: Path, overwrite: bool
) -> Path:
    """Write the networks as they are now, in float16 where that loses nothing, else in float32."""
    path = folder / TRAINED_FILE
    check_results(folder, [path], overwrite=overwrite)
    parts: tuple[nn.Module, ...] = (network, *([autoencoder] if autoencoder is not None else []))
    weights = [value for part in parts for value in part.state_dict().values()]
    exact = all(torch.equal(value.half().to(value.dtype), value) for value in weights)
    save_weights(path, network, metadata, torch.float16 if exact else torch.float32, autoencoder=autoencoder)
    return path


def _precision(x: Tensor, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Autocast: float32 weights and images, convolutions in ``dtype``; nothing for float32."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(x.device.type, dtype=dtype)
