"""Training of the classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ...diffusion.rng import derive
from ...errors import UsageError
from .classifier import Classifier
from .corruptions import doubtful
from .data import CLASSES, SIZE
from .network import Network

_CONFIDENT, _NEAR = 0.97, 0.99
_WARM_UP = 0.15


@dataclass(frozen=True)
class Recipe:
    """How the classifier is trained.

    Args:
        epochs: passes over the pictures that are not held out.
        batch: pictures of a step; an eighth as many corrupted ones come on top.
        lr: largest learning rate of Adam, reached after 15 % of the steps, then down to 0 along a cosine.
        shift: pictures are moved by up to so many pixels.
        doubt: weight of the corrupted pictures' loss: cross-entropy to the uniform distribution over the classes, so
            that the network is not sure of what is no garment (Hendrycks, Mazeika and Dietterich 2019, Eq. 2).
        held_out: pictures for the thresholds of validity; the network never sees them.
        seed: of weights, order, shifts and corruptions.

    Raises:
        UsageError: a value that cannot be used.
    """

    epochs: int = 7
    batch: int = 128
    lr: float = 3e-3
    shift: int = 1
    doubt: float = 0.5
    held_out: int = 6000
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.held_out) < 1 or self.batch < 64 or not self.lr > 0 or min(self.shift, self.seed) < 0:
            raise UsageError("Training takes at least 1 epoch, 1 held-out picture, batches of 64 and a positive rate.")


def train(
    x: Tensor, labels: Tensor, recipe: Recipe | None = None, *, say: Callable[[str], None] = lambda text: None
) -> Classifier:
    """A classifier of pictures (N, 1, 32, 32) in [-1, 1] with labels (N,) int64.

    Raises:
        UsageError: no picture would be left to learn from.
    """
    recipe = recipe or Recipe()
    if len(x) < recipe.held_out + recipe.batch:
        raise UsageError(f"{len(x)} pictures are too few for {recipe.held_out} held out and batches of {recipe.batch}.")
    generator = torch.Generator().manual_seed(derive("fashion classifier", recipe.seed))
    order = torch.randperm(len(x), generator=generator)
    held, rows = order[: recipe.held_out], order[recipe.held_out :]
    network = _trained(x, labels, rows, recipe, generator, say)
    plain = Classifier(network, torch.zeros(0), torch.zeros(0), 0.0, math.inf, {})
    means, whiten = _gaussians(plain.features(x[rows]), labels[rows])
    facts = {"data": "Fashion-MNIST, train split", "pictures": len(rows), **asdict(recipe)}
    trained = replace(plain, means=means, whiten=whiten, facts=facts)
    judged = trained.judge(x[held])  # the thresholds are quantiles of pictures that the network has not seen
    confidence = float(judged.probabilities.amax(1).double().quantile(1 - _CONFIDENT))
    return replace(trained, confidence=confidence, reach=float(judged.distance.double().quantile(_NEAR)))


def _trained(
    x: Tensor, labels: Tensor, rows: Tensor, recipe: Recipe, generator: torch.Generator, say: Callable[[str], None]
) -> Network:
    network = Network(recipe.seed).train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
    a_pass, doubted = len(rows) // recipe.batch, recipe.batch // 8
    total = recipe.epochs * a_pass
    for epoch in range(recipe.epochs):
        shuffled = rows[torch.randperm(len(rows), generator=generator)]
        losses, right = 0.0, 0
        for i in range(a_pass):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _rate((epoch * a_pass + i + 1) / total)
            batch = shuffled[i * recipe.batch : (i + 1) * recipe.batch]
            real = shifted(x[batch], recipe.shift, generator)
            wrong = doubtful(real[:doubted], labels[batch[:doubted]], generator)
            logits = network(torch.cat([real, wrong]).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits[: recipe.batch], labels[batch])
            loss = loss - recipe.doubt * logits[recipe.batch :].log_softmax(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses += float(loss.detach())
            right += int((logits[: recipe.batch].argmax(1) == labels[batch]).sum())
        accuracy = right / a_pass / recipe.batch
        say(f"epoch {epoch + 1} of {recipe.epochs}: loss {losses / a_pass:.3f}, {accuracy:.2%} right")
    return network.eval().requires_grad_(False)


def shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each picture of (N, 1, 32, 32) moved by -most..most pixels along both axes; black comes in."""
    wide = F.pad(x, (most,) * 4, value=-1.0)
    top, left = torch.randint(2 * most + 1, (2, len(x)), generator=generator)
    rows, columns = (start[:, None] + torch.arange(SIZE) for start in (top, left))
    return wide[torch.arange(len(x))[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


def _rate(done: float) -> float:
    """Share of the largest learning rate after this share of the steps."""
    if done < _WARM_UP:
        return done / _WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP)))


def _gaussians(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes' means (10, F), and W (F, F) with W^T W the inverse of the covariance that they share."""
    features = features.double()
    means = torch.stack([features[labels == i].mean(0) for i in range(len(CLASSES))])
    rest = features - means[labels]
    covariance = rest.T @ rest / len(rest)
    values, vectors = torch.linalg.eigh(covariance)
    whiten = vectors.T / values.clamp(min=1e-6 * float(values.max())).sqrt()[:, None]
    return means.float(), whiten.float()
