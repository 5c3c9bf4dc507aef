"""F32: half hidden pictures of Fashion-MNIST. Nobody knows their posterior; a classifier judges what methods make."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ....diffusion.rng import derive
from ....errors import UsageError
from ....metrics.frechet import FeatureGaussian, frechet_distance
from ...fashion.checking import TEST
from ...fashion.classifier import classifier
from ...fashion.data import CLASSES, pictures
from .masks import draw_masks
from .statistics import lpips_to, visible_change
from .subject import LPIPS, VISIBLE, Case, Column, Distance, Subject


@dataclass(frozen=True)
class FashionMeasures:
    """What completions of garments are worth. All but ``visible`` is measured on composites: true known pixels.

    Attributes:
        valid: share of composites that pass for a garment of one class (`fashion.Classifier.judge`).
        agree: share whose likeliest class is the label of the truth.
        entropy: bits of the histogram of classes over the composites of a picture, the mean over the pictures.
        frechet: Frechet distance in the classifier's features between all composites and the test pictures.
        diversity: standard deviation over the completions of a picture, mean over its hidden pixels and the pictures.
        visible: root mean square of the change of known pixels, in image values.
        lpips: LPIPS between composites and truth, twice enlarged, in three equal channels; None where not asked for.
    """

    valid: float
    agree: float
    entropy: float
    frechet: float
    diversity: float
    visible: float
    lpips: float | None = None


@dataclass(frozen=True)
class FashionCase(Case):
    """Test pictures: their labels (B,) int64, and the folder of the data set; None is the system's."""

    labels: Tensor
    folder: Path | None = None

    @staticmethod
    def draw(mask: str, count: int, *, seed: int = 0, folder: Path | None = None) -> FashionCase:
        """``count`` different ones of the test pictures 0 to 8999; picture i does not depend on ``count``.

        Raises:
            UsageError: no such mask, too many pictures, or the data set is not there.
        """
        if count > len(TEST):
            raise UsageError(f"there are {len(TEST)} test pictures of fashion; ask for at most as many.")
        FASHION.check_masks([mask])
        order = np.random.default_rng(derive("test fashion", seed)).permutation(len(TEST))
        x, labels = pictures(folder, "t10k", [int(i) for i in order[:count]])
        return FashionCase(mask, x, draw_masks(mask, count, seed=seed), labels, folder)

    def measure(self, samples: Tensor, lpips: Distance | None = None) -> FashionMeasures:
        samples = samples.detach().cpu().float().clamp(-1, 1)
        count, num = samples.shape[:2]
        composites = torch.where(self.known[:, None] > 0.5, self.x[:, None], samples)
        judged = classifier().judge(composites.flatten(0, 1))
        classes = judged.classes.reshape(count, num)
        return FashionMeasures(
            valid=float(judged.valid.double().mean()),
            agree=float((classes == self.labels[:, None]).double().mean()),
            entropy=float(np.mean([_entropy(row) for row in classes])),
            frechet=frechet_distance(judged.features, _reference(self.folder)),
            diversity=self._diversity(samples),
            visible=visible_change(samples, self.x, self.known),
            lpips=None if lpips is None else lpips_to(composites, self.x, lpips),
        )

    def floor(self, num: int, lpips: Distance | None = None) -> FashionMeasures:
        """What the truth itself scores, taken ``num`` times for each picture."""
        return self.measure(self.x[:, None].expand(-1, num, -1, -1, -1), lpips)

    def _diversity(self, samples: Tensor) -> float:
        hidden = (self.known < 0.5).double()
        deviation = samples.double().std(1) * hidden
        return float((deviation.sum((1, 2, 3)) / hidden.sum((1, 2, 3)).clamp(min=1)).mean())


@lru_cache(maxsize=2)
def _reference(folder: Path | None) -> FeatureGaussian:
    """Of all test pictures 0 to 8999."""
    return FeatureGaussian.fit(classifier().features(pictures(folder, "t10k", TEST)[0]))


def _entropy(classes: Tensor) -> float:
    """Bits of the histogram of (n,) classes."""
    counts: list[int] = torch.bincount(classes, minlength=len(CLASSES)).tolist()
    return sum(count / len(classes) * math.log2(len(classes) / count) for count in counts if count)


FASHION = Subject(
    name="fashion",
    about="""Problem F32: half hidden pictures of [Fashion-MNIST](../fashion.md) (test pictures 0 to 8999), padded to
32 x 32. Their posterior is unknown; a small classifier that was trained on other pictures judges the completions, with
the true pixels put back where they are known.""",
    draw=lambda mask, count, seed, folder: FashionCase.draw(mask, count, seed=seed, folder=folder),
    measures=FashionMeasures,
    features=(),
    reference="truth",
    columns=(
        Column("valid", "share of completions that pass for a garment of one class", lambda m: m.valid, "near 0.96"),
        Column("class", "share whose class, by the classifier, is the true one", lambda m: m.agree, "its accuracy"),
        Column("entropy", "bits, of the classes among the completions of a picture", lambda m: m.entropy, "0"),
        Column(
            "Frechet",
            "Frechet distance of all completions to the 9000 test pictures, in the classifier's features; "
            "for tables of equally many pictures only",
            lambda m: m.frechet,
            "of so few pictures, each once",
        ),
        Column(
            "diversity",
            "standard deviation over the completions of a picture, mean over hidden pixels",
            lambda m: m.diversity,
            "0",
        ),
        VISIBLE,
        replace(LPIPS, perfect="0"),
    ),
    order=lambda measures: float(measures.frechet),
    channels=1,
    prior="fashion",
    prior_name="fashion",
)
