"""The rank test finds what it should, and nothing else."""

from __future__ import annotations

import pytest
import torch

from priorpaint import UsageError
from priorpaint.lab.certify.calibration import FUNCTIONS, TRUTHS, calibrate, uniformity
from priorpaint.lab.certify.problems import problem
from tests.lab.certify.exact import Exact


def test_chi_square() -> None:
    """Equal counts have p = 1; a statistic of 14.067 with 7 degrees of freedom has p = .05 (any table)."""
    even = torch.arange(16).repeat(4)
    assert uniformity(even, 15) == (pytest.approx(1.0), [8] * 8)
    p, counts = uniformity(torch.zeros(8, dtype=torch.long), 15)
    assert counts == [8] + [0] * 7 and p < 1e-8  # statistic 56
    # Counts 10, 6 and 8 around 8: statistic (4 + 4) / 8 = 1, whose p is .9948.
    rank = torch.tensor([0] * 10 + [2] * 6 + [place for place in range(4, 16, 2) for _ in range(8)])
    assert uniformity(rank, 15)[0] == pytest.approx(0.9948, abs=1e-4)
    with pytest.raises(UsageError, match="equal bins"):
        uniformity(even, 14)


def test_false_alarms_are_as_rare_as_promised() -> None:
    generator = torch.Generator().manual_seed(0)
    p = [uniformity(torch.randint(0, 16, (TRUTHS,), generator=generator), 15)[0] for _ in range(1000)]
    assert sum(value < 0.05 for value in p) / 1000 == pytest.approx(0.05, abs=0.025)


@pytest.mark.parametrize(("stretch", "calibrated"), [(1.0, True), (0.3, False), (3.0, False)])
def test_exact_samples_pass_and_others_do_not(stretch: float, calibrated: bool) -> None:
    for name in ("M3", "G16"):
        found = calibrate(Exact(stretch), problem(name))
        assert (found.p > 0.01) == calibrated, (name, found)
        assert len(found.counts) == FUNCTIONS and all(sum(counts) == TRUTHS for counts in found.counts)
