"""What can be measured of stored samples, by name.

Every metric looks at the pictures that a user gets: clipped to [-1, 1], and under a mask with the true pixels put back
where they are known (*pasted*), unless its column says "raw".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..errors import UsageError
from ..metrics import LPIPS, calibration, fair_crps, fair_energy_score, psnr, ssim
from ..metrics.lpips import for_lpips

Value = float | list[float]
LEVELS = (0.5, 0.9)
_PIXELS = 2**18  # of pictures that LPIPS looks at together; its features take about 2 KB a pixel


@dataclass(frozen=True, eq=False)
class Stored:
    """The samples of a cell, as metrics see them.

    Attributes:
        raw: (n, C, H, W) in [-1, 1].
        truth: (C, H, W).
        hidden: (1, H, W), bool, True where a pixel was not measured; None where there is no mask, and all values count.
    """

    raw: Tensor
    truth: Tensor
    hidden: Tensor | None

    @property
    def pasted(self) -> Tensor:
        """(n, C, H, W) with the true pixels put back where they are known; raw without a mask."""
        return self.raw if self.hidden is None else torch.where(self.hidden, self.raw, self.truth)


@dataclass(frozen=True)
class Column:
    """A number of a table.

    Attributes:
        key: in files, and for the numbers of papers.
        title: in tables.
        about: one line.
        best: ``low``, ``high``, the value that is right, or None where none is better than another.
        digits: behind the point; None is three that count, whatever the size.
    """

    key: str
    title: str
    about: str
    best: Literal["low", "high"] | float | None
    digits: int | None = 3

    def text(self, value: float, sign: str = "") -> str:
        """A value of the column."""
        return f"{value:{sign}.3g}" if self.digits is None else f"{value:{sign}.{self.digits}f}"


@dataclass(frozen=True)
class Metric:
    """What is asked for by one name.

    Attributes:
        name: its key in ``METRICS``.
        columns: its numbers.
        measure: of one cell, given the LPIPS that ``needs`` may ask for: a value for each column and, with other keys,
            what the report computes columns from; None for metrics of whole sets.
        needs: ``lpips`` weights or a ``features`` network.
        pairs: whether it needs two samples.
        smallest: the shortest side of its pictures.
    """

    name: str
    columns: tuple[Column, ...]
    measure: Callable[[Stored, LPIPS | None], dict[str, Value]] | None
    needs: Literal["lpips", "features"] | None = None
    pairs: bool = False
    smallest: int = 1

    def obstacle(self, samples: int, shape: Sequence[int], given: set[str]) -> str | None:
        """Why it cannot be measured of so many samples of this shape with what is ``given``, as a sentence's end."""
        if self.needs == "lpips" and "lpips" not in given:
            return (
                "needs the weights of LPIPS, --lpips FILE, which python -m priorpaint.metrics.lpips_weights makes from "
                "the published ones"
            )
        if self.needs == "features" and "features" not in given:
            return "needs a network of features, --features FILE (docs/metrics.md)"
        if self.pairs and samples < 2:
            return "needs at least two samples of each picture"
        if min(shape[-2:]) < self.smallest:
            return f"needs pictures of at least {self.smallest} x {self.smallest} pixels"
        return None


def _lpips(stored: Stored, network: LPIPS | None) -> dict[str, Value]:
    assert network is not None
    pasted = _distances(network, stored.pasted, stored.truth)
    raw = pasted if stored.hidden is None else _distances(network, stored.raw, stored.truth)
    extremes = {"lpips_min": float(pasted.min()), "lpips_max": float(pasted.max())}
    return {"lpips": float(pasted.mean()), **extremes, "lpips_raw": float(raw.mean())}


def _distances(network: LPIPS, samples: Tensor, truth: Tensor) -> Tensor:
    seen, reference = for_lpips(samples), for_lpips(truth[None])
    return torch.cat([network(part, reference) for part in torch.split(seen, _together(seen))]).double()


def _together(x: Tensor) -> int:
    return max(1, _PIXELS // (x.shape[-1] * x.shape[-2]))


def _diversity(stored: Stored, network: LPIPS | None) -> dict[str, Value]:
    assert network is not None
    return {"diversity": float(network.pairwise(for_lpips(stored.pasted)).double().mean())}


def _psnr(stored: Stored, network: LPIPS | None) -> dict[str, Value]:
    truth, region = stored.truth[None], None if stored.hidden is None else stored.hidden[None]
    single = psnr(stored.raw, truth.expand_as(stored.raw), region)
    return {"psnr": float(single.mean()), "psnr_mean": float(psnr(stored.raw.mean(0, keepdim=True), truth, region))}


def _ssim(stored: Stored, network: LPIPS | None) -> dict[str, Value]:
    return {"ssim": float(ssim(stored.pasted, stored.truth.expand_as(stored.raw)).mean())}


def _crps(stored: Stored, network: LPIPS | None) -> dict[str, Value]:
    scores = fair_crps(stored.raw, stored.truth)
    inside = scores if stored.hidden is None else scores[stored.hidden.expand_as(scores)]
    energy = fair_energy_score(stored.raw, stored.truth, stored.hidden)
    return {"crps": float(inside.mean()), "energy": float(energy.mean())}


def _calibration(stored: Stored, network: LPIPS | None) -> dict[str, Value]:
    found = calibration(stored.raw, stored.truth, stored.hidden)
    values = float(found.ranks.sum())
    return {
        "variance": found.variance / values,
        "squared_error": found.squared_error / values,
        "ranks": (found.ranks / values).tolist(),
        **{f"cover{round(100 * level)}": found.coverage(level) for level in LEVELS},
    }


_OF_SETS = "between all completions of a mask and the true pictures, for equally many pictures only"
_ALL = (
    Metric(
        "lpips",
        (
            Column("lpips", "LPIPS", "distance of pasted samples to the truth, their mean", "low"),
            Column("lpips_min", "LPIPS best", "of the nearest sample", "low"),
            Column("lpips_max", "LPIPS worst", "of the farthest sample", "low"),
            Column("lpips_raw", "LPIPS raw", "of samples whose known pixels are as the method left them", "low"),
        ),
        _lpips,
        needs="lpips",
    ),
    Metric(
        "psnr",
        (
            Column("psnr", "PSNR", "of single samples, in dB, over hidden pixels (all, without a mask)", "high", 2),
            Column("psnr_mean", "PSNR mean", "of the mean of the samples, likewise", "high", 2),
        ),
        _psnr,
    ),
    Metric("ssim", (Column("ssim", "SSIM", "of single pasted samples, whole pictures", "high"),), _ssim, smallest=11),
    Metric(
        "crps",
        (
            Column("crps", "CRPS", "fair, of the samples as a law, mean over hidden values from -1 to 1", "low", 4),
            Column("energy", "energy", "fair energy score of patches of 8 x 8 pixels, likewise", "low", 4),
        ),
        _crps,
        pairs=True,
    ),
    Metric(
        "calibration",
        (
            Column(
                "variance_over_error", "var / error", "variance of the samples over squared error of their mean", 1.0, 2
            ),
            Column("cover50", "50 %", "how often the central 50 % interval of a hidden value holds the truth", 0.5),
            Column("cover90", "90 %", "likewise, of the 90 % interval", 0.9),
        ),
        _calibration,
        pairs=True,
    ),
    Metric(
        "diversity",
        (Column("diversity", "diversity", "LPIPS between the samples of a picture, mean over all pairs", None),),
        _diversity,
        needs="lpips",
        pairs=True,
    ),
    Metric(
        "frechet",
        (Column("frechet", "Frechet", f"Frechet distance of features {_OF_SETS}", "low", None),),
        None,
        needs="features",
    ),
    Metric(
        "kid",
        (Column("kid", "KID", f"unbiased kernel distance of features {_OF_SETS}", "low", None),),
        None,
        needs="features",
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in _ALL}
"""Every metric by name, in the order of tables."""


def chosen(names: Sequence[str], samples: int, shape: Sequence[int], given: set[str]) -> list[Metric]:
    """The metrics of these names, or without names all that can be measured.

    Raises:
        UsageError: an unknown name, or a metric that cannot be measured; the message says what is missing.
    """
    for name in names:
        if name not in METRICS:
            raise UsageError(f"there is no metric {name!r}; the metrics are {', '.join(METRICS)}.")
        if (obstacle := METRICS[name].obstacle(samples, shape, given)) is not None:
            raise UsageError(f"the metric {name} {obstacle}.")
    return [
        metric
        for metric in METRICS.values()
        if metric.name in names or (not names and metric.obstacle(samples, shape, given) is None)
    ]
