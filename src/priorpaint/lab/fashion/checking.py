"""What the classifier is worth: accuracy, and how many real and corrupted test pictures are valid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ...diffusion.rng import derive
from .classifier import Classifier
from .corruptions import TRAINED, UNSEEN
from .data import pictures

# The last thousand test pictures are kept for others: nothing here measures with them.
TEST = range(9000)


@dataclass(frozen=True)
class Check:
    """Shares of test pictures.

    Attributes:
        pictures: how many.
        accuracy: share whose likeliest class is the label.
        valid: share of the real pictures that are valid.
        corrupted: kind of corruption -> (share that is valid, whether the classifier was trained with this kind).
    """

    pictures: int
    accuracy: float
    valid: float
    corrupted: dict[str, tuple[float, bool]]


def check(classifier: Classifier, folder: str | Path | None = None, *, seed: int = 0, count: int = len(TEST)) -> Check:
    """Check a classifier on the first ``count`` of the test pictures 0 to 8999.

    Raises:
        UsageError: the pictures are not there.
    """
    x, labels = pictures(folder, "t10k", TEST[:count])
    real = classifier.judge(x)
    corrupted = {}
    for kinds, trained in ((TRAINED, True), (UNSEEN, False)):
        for name, corrupt in kinds.items():
            wrong = corrupt(x, labels, torch.Generator().manual_seed(derive("corrupted", seed, name)))
            corrupted[name] = (float(classifier.judge(wrong).valid.double().mean()), trained)
    accuracy = float((real.classes == labels).double().mean())
    return Check(len(x), accuracy, float(real.valid.double().mean()), corrupted)


def markdown(result: Check) -> str:
    """As a table."""
    lines = [
        f"Accuracy on {result.pictures} test pictures: {result.accuracy:.2%}.",
        "",
        "| pictures | valid | in training |",
        "|---|--:|---|",
        f"| real | {result.valid:.1%} | held out |",
    ]
    for name, (share, trained) in result.corrupted.items():
        lines.append(f"| {name} | {share:.1%} | {'yes' if trained else 'no'} |")
    return "\n".join(lines)
