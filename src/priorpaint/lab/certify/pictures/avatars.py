"""A32: half hidden avatars. The exact posterior says which completions are possible, and how likely each is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ....diffusion.rng import derive
from ...avatars.drawing import Parts
from ...avatars.model import Avatars
from ...avatars.pixels import as_tensor
from ...avatars.posterior import Posterior, posterior
from ...avatars.reading import read
from ...avatars.standard import standard
from .masks import FEATURES, draw_masks
from .statistics import lpips_to, nan_mean, rank_correlation, total_variation, visible_change
from .subject import LPIPS, VISIBLE, Case, Column, Distance, Subject

# A part that is as good as known says nothing about a method.
_DECIDED = 0.999
_FLOOR_DRAWS = 8
EXACT = "exact samples"


@dataclass(frozen=True)
class AvatarMeasures:
    """What completions of avatars are worth; means over the pictures.

    Attributes:
        valid: share of completions that show an avatar (`avatars.reading.read`).
        agree: share that show one which fits all known pixels: the possible ones.
        tv: total variation between sampled and exact probabilities of the options of each undecided part; completions
            that show no avatar count as an option of probability 0.
        coverage: posterior probability of all the different combinations that were hit.
        std_rank: rank correlation over the hidden pixels between the standard deviation of the completions and the
            exact one.
        std_ratio: root mean square of the first over that of the second; below 1 is over-confident.
        visible: root mean square of the change of known pixels, in image values.
        lpips: LPIPS between completions and truth, both twice enlarged; None where it was not asked for.
        hit: number of different possible combinations that were hit, over the largest that it could be: how many are
            possible, or how many completions there are. None in reports from before it was measured.
        tv_noise, score_noise: of exact completions only, by how much ``tv`` and `score` differ from run to run (one
            standard deviation); None for the completions of a method, which were drawn once.
    """

    valid: float
    agree: float
    tv: float
    coverage: float
    std_rank: float
    std_ratio: float
    visible: float
    lpips: float | None = None
    hit: float | None = None
    tv_noise: float | None = None
    score_noise: float | None = None


@dataclass(frozen=True)
class AvatarCase(Case):
    """Test avatars: their true combinations (B, P), and the seed that they were drawn with."""

    parts: Parts
    seed: int

    @staticmethod
    def draw(mask: str, count: int, *, seed: int = 0) -> AvatarCase:
        """The first ``count`` test avatars of ``seed`` with their masks; picture i does not depend on ``count``.

        Raises:
            UsageError: no such mask.
        """
        known = draw_masks(mask, count, seed=seed)
        parts = standard().draw(count, derive("test avatars", seed))
        return AvatarCase(mask, as_tensor(standard().compose(parts)), known, parts, seed)

    @property
    def avatars(self) -> Avatars:
        """The law."""
        return standard()

    @cached_property
    def posterior(self) -> Posterior:
        """The exact posterior of each picture."""
        return posterior(self.x * self.known, self.known)

    def exact(self, num: int, *, seed: int) -> Tensor:
        """Exact completions (B, num, 3, 32, 32)."""
        parts = self.posterior.sample(num, seed=[derive("exact", seed, row) for row in range(len(self.x))])
        pictures = as_tensor(self.avatars.compose(parts.reshape(-1, parts.shape[-1])))
        return pictures.reshape(*parts.shape[:2], *pictures.shape[1:])

    def measure(self, samples: Tensor, lpips: Distance | None = None) -> AvatarMeasures:
        samples = samples.detach().cpu().float().clamp(-1, 1)
        count, num = samples.shape[:2]
        reading = read(samples.flatten(0, 1))
        shown = as_tensor(self.avatars.compose(reading.parts)).reshape(samples.shape)
        wrong = ((shown - self.x[:, None]).abs() * self.known[:, None]).flatten(2).amax(2) > 1 / 255
        valid = reading.valid.reshape(count, num)
        agree = valid & ~wrong
        parts = torch.from_numpy(reading.parts).reshape(count, num, -1)
        rows = range(count)
        different = [torch.unique(parts[row][agree[row]], dim=0) for row in rows]
        rank, ratio = self._std_agreement(samples)
        return AvatarMeasures(
            valid=float(valid.double().mean()),
            agree=float(agree.double().mean()),
            tv=nan_mean([self._tv(row, parts[row], agree[row]) for row in rows]),
            coverage=nan_mean([float(self._log_prob(row, different[row]).exp().sum()) for row in rows]),
            std_rank=rank,
            std_ratio=ratio,
            visible=visible_change(samples, self.x, self.known),
            lpips=None if lpips is None else lpips_to(samples, self.x, lpips),
            hit=nan_mean([len(different[row]) / min(num, self._plausible[row]) for row in rows]),
        )

    def floor(self, num: int, lpips: Distance | None = None) -> AvatarMeasures:
        """What ``num`` exact completions of each picture score: the mean of some draws, and how much they differ."""
        exact = (self.exact(num, seed=derive("floor", draw)) for draw in range(_FLOOR_DRAWS))
        scores = [self.measure(samples, lpips) for samples in exact]
        draws = [asdict(measures) for measures in scores]
        means = {key: nan_mean([draw[key] for draw in draws]) for key, value in draws[0].items() if value is not None}
        tv_noise, score_noise = np.std([(each.tv, score(each)) for each in scores], axis=0, ddof=1)
        return AvatarMeasures(**means, tv_noise=float(tv_noise), score_noise=float(score_noise))

    def references(self, num: int) -> dict[str, Tensor]:
        """Truth, what is known of it, and exact completions."""
        return {**super().references(num), EXACT: self.exact(num, seed=derive("shown", self.seed))}

    def _tv(self, row: int, parts: Tensor, agree: Tensor) -> float:
        """Mean over the undecided parts; nan where everything is decided."""
        truths = [self.posterior.marginals[part.name][row] for part in self.avatars.parts]
        open_parts = [column for column, truth in enumerate(truths) if float(truth.max()) < _DECIDED]
        return nan_mean([total_variation(parts[:, column], agree, truths[column]) for column in open_parts])

    @cached_property
    def _plausible(self) -> list[int]:
        """How many combinations are possible, a picture each."""
        plausible = self.posterior.plausible
        assert plausible is not None  # known pixels are without noise
        return [round(count) for count in plausible.tolist()]

    def _log_prob(self, row: int, parts: Tensor) -> Tensor:
        """ln p(combination | y) of combinations (n, P) that agree with picture ``row``."""
        prior = torch.from_numpy(self.avatars.log_prob(parts.numpy()))
        return prior - self.posterior.log_evidence[row]

    def _std_agreement(self, samples: Tensor) -> tuple[float, float]:
        """Rank correlation, and ratio of the root mean squares, of the standard deviations in the hidden pixels."""
        if samples.shape[1] < 2:
            return float("nan"), float("nan")
        own, truth = samples.double().var(1), self.posterior.std.square()
        hidden = (self.known < 0.5).expand_as(self.x)
        correlations = [rank_correlation(own[row][hidden[row]], truth[row][hidden[row]]) for row in range(len(samples))]
        ratio = (own[hidden].mean() / truth[hidden].mean().clamp(min=1e-12)).sqrt()
        return nan_mean(correlations), float(ratio)


def score(measures: AvatarMeasures) -> float:
    """Validity x coverage."""
    return measures.valid * measures.coverage


AVATARS = Subject(
    name="avatars",
    about="""Problem A32: half hidden [avatars](../avatars.md), 32 x 32 pictures put together from 16 independent
parts. All completions that are possible, and their probabilities, are known exactly; a completion is read back into its
parts, or found not to be an avatar.""",
    draw=lambda mask, count, seed, folder: AvatarCase.draw(mask, count, seed=seed),
    measures=AvatarMeasures,
    features=FEATURES,
    reference=EXACT,
    columns=(
        Column("valid", "share of completions that show an avatar", lambda m: m.valid, "1"),
        Column("possible", "share that show one which fits all known pixels", lambda m: m.agree, "1"),
        Column(
            "TV",
            "total variation between sampled and exact probabilities, mean over the undecided parts; what is not "
            "possible counts as an option of probability 0",
            lambda m: m.tv,
            "the floor",
            noise=lambda m: m.tv_noise,
        ),
        Column(
            "coverage",
            "posterior probability of all the different combinations that were hit",
            lambda m: m.coverage,
            f'as in the row "{EXACT}"',
        ),
        Column(
            "hit",
            "number of the different combinations that were hit, over the largest that it could be (how many are "
            "possible, or how many completions there are)",
            lambda m: m.hit,
            f'as in the row "{EXACT}"',
        ),
        Column(
            "score",
            f'valid x coverage; "±" is one standard deviation between runs of "{EXACT}"',
            score,
            noise=lambda m: m.score_noise,
            digits=4,
        ),
        Column(
            "rank",
            "rank correlation of the pixels' standard deviation with the exact one",
            lambda m: m.std_rank,
            "near 1",
        ),
        Column("width", "ratio of the standard deviations; below 1 is over-confident", lambda m: m.std_ratio, "1"),
        VISIBLE,
        LPIPS,
    ),
    order=lambda measures: float(measures.tv),
    channels=3,
    prior="exact",
    prior_name="avatars, exact",
    scales=(1, 2),
)
