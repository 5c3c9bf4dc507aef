"""How far a denoiser is from the exact one."""

from __future__ import annotations

import pytest

from benchmarks.avatars import gap_table, gaps, unseen
from priorpaint import load_prior
from priorpaint.diffusion.schedules import VP
from priorpaint.errors import UsageError
from priorpaint.lab.avatars import standard
from priorpaint.lab.avatars.prior import ExactAvatars
from priorpaint.priors.base import DenoiserPrior


def test_the_exact_denoiser_has_no_gap_and_another_one_has_its_own() -> None:
    exact = ExactAvatars()
    _, none, least = zip(*gaps(exact, 24, seed=3), strict=True)
    assert all(gap < 1e-9 for gap in none)
    assert list(least) == sorted(least) and least[0] < 1e-3 < 0.2 < least[-1] < 0.3
    assert all(
        gap < 1e-6 for _, gap, _ in gaps(ExactAvatars(schedule=VP("linear")), 24, seed=3)
    )  # x_t of another scale
    shifted = DenoiserPrior(lambda x_t, t: exact.denoise(x_t, t) + 0.1, exact.schedule, (3, 32, 32))
    rows = gaps(shifted, 24, seed=3)
    assert [gap for _, gap, _ in rows] == pytest.approx([0.01] * len(rows), rel=1e-4)
    assert "| 40 | 100.0 |" in gap_table(rows)


def test_no_picture_is_one_of_the_training_pictures() -> None:
    law = standard()
    trained_on = {tuple(row) for row in law.draw(5000, seed=0).tolist()}
    first, other = (unseen(law, 400, seed=seed).tolist() for seed in (0, 1))
    assert not trained_on & {tuple(row) for row in first} and first != other
    assert unseen(law, 10, seed=0).tolist() == first[:10]


def test_other_pictures_are_refused() -> None:
    with pytest.raises(UsageError, match="32 x 32"):
        gaps(load_prior("photos", device="cpu"), 2, seed=0)
