"""The embedded classifier of Fashion-MNIST: classes, features, and whether a picture is valid."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ...errors import CheckpointError, UsageError
from .data import CLASSES, SIZE
from .network import FEATURES, Network

EMBEDDED = Path(__file__).with_name("classifier.safetensors")
_ENTRY, _FORMAT = "fashion_classifier", 1
_CHUNK = 512


@dataclass(frozen=True)
class Judgement:
    """What the classifier says of N pictures.

    Attributes:
        features: (N, 64) float32.
        probabilities: (N, 10), of the classes.
        distance: (N,), Mahalanobis distance of the features to the nearest class.
        valid: (N,) bool, whether the picture passes for a garment of one class.
    """

    features: Tensor
    probabilities: Tensor
    distance: Tensor
    valid: Tensor

    @property
    def classes(self) -> Tensor:
        """(N,) int64, the likeliest class."""
        return self.probabilities.argmax(1)


@dataclass(frozen=True)
class Classifier:
    """A trained network with what it needs to judge.

    Attributes:
        network: in evaluation mode.
        means: (10, 64), the features' means of the classes over the training pictures.
        whiten: (64, 64), W with W^T W = the inverse of the covariance that the classes share.
        confidence: the least largest probability of a valid picture.
        reach: the largest Mahalanobis distance of a valid picture.
        facts: about the training, JSON values.
    """

    network: Network
    means: Tensor
    whiten: Tensor
    confidence: float
    reach: float
    facts: Mapping[str, Any]

    def features(self, x: Tensor) -> Tensor:
        """(N, 64) float32 of pictures (N, 1, 32, 32) in [-1, 1].

        Raises:
            UsageError: another shape.
        """
        if x.ndim != 4 or x.shape[1:] != (1, SIZE, SIZE):
            raise UsageError(f"the classifier sees grey pictures (N, 1, {SIZE}, {SIZE}), not {tuple(x.shape)}.")
        with torch.no_grad():
            x = x.detach().cpu().float().clamp(-1, 1).contiguous(memory_format=torch.channels_last)
            return torch.cat([self.network.features(chunk) for chunk in torch.split(x, _CHUNK)])

    def judge(self, x: Tensor) -> Judgement:
        """All that it says of pictures (N, 1, 32, 32) in [-1, 1].

        A picture is valid where the largest probability is at least ``confidence`` and the features are within
        ``reach`` of a class. Both are quantiles of real pictures that were held out of the training split: 97 % of
        them pass the first test and 99 % the second.
        """
        features = self.features(x)
        with torch.no_grad():
            probabilities = self.network.logits(features).softmax(1)
        distance = self.distance(features)
        valid = (probabilities.amax(1) >= self.confidence) & (distance <= self.reach)
        return Judgement(features, probabilities, distance, valid)

    def distance(self, features: Tensor) -> Tensor:
        """(N,) Mahalanobis distance of features (N, 64) to the nearest class, with one covariance for all classes."""
        return torch.cdist(features @ self.whiten.T, self.means @ self.whiten.T).amin(1)

    def to_bytes(self) -> bytes:
        """A safetensors file: matrices of the network in float16, all else in float32."""
        tensors = {"means": self.means, "whiten": self.whiten}
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                tensors[f"network.{name}"] = value.to(torch.float16 if value.ndim > 1 else torch.float32).contiguous()
        about = {"format": _FORMAT, "confidence": self.confidence, "reach": self.reach, "training": dict(self.facts)}
        return save(tensors, metadata={_ENTRY: json.dumps(about, sort_keys=True)})


@lru_cache(maxsize=1)
def classifier() -> Classifier:
    """The embedded one.

    Raises:
        CheckpointError: its file is missing or damaged.
    """
    return load_classifier(EMBEDDED)


def load_classifier(path: str | Path) -> Classifier:
    """A classifier from the file that ``python -m priorpaint.lab.fashion classifier`` wrote.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no classifier {path}; install priorpaint again, or name the file that has it.")
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
        about = json.loads(header[_ENTRY])
        if about["format"] != _FORMAT:
            raise CheckpointError(
                f"{path} is a classifier in format {about['format']}, not {_FORMAT}; update priorpaint."
            )
        network = Network()
        state = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
        # The integers of a state count batches, which says nothing once a network is trained.
        counters = {name: value for name, value in network.state_dict().items() if not value.is_floating_point()}
        network.load_state_dict({**counters, **state})
        _check(tensors)
        return Classifier(
            network.eval().requires_grad_(False),
            tensors["means"],
            tensors["whiten"],
            float(about["confidence"]),
            float(about["reach"]),
            about["training"],
        )
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} holds no classifier of Fashion-MNIST ({error}); fetch the file again.") from None


def _check(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where the Gaussians have another shape, or a number is not finite."""
    for name, rows in (("means", len(CLASSES)), ("whiten", FEATURES)):
        if tensors[name].shape != (rows, FEATURES):
            raise ValueError(f"{name} has the shape {tuple(tensors[name].shape)}, not {(rows, FEATURES)}")
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name} has numbers that are not finite")
