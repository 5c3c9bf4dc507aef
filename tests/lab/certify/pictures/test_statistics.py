"""Rank correlation and total variation on cases that can be done by hand."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint.lab.certify.pictures.statistics import nan_mean, rank_correlation, ranks, total_variation


def test_ties_share_their_mean_rank() -> None:
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 0.0])).tolist() == [2.5, 1.0, 2.5, 0.0]


def test_rank_correlation() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(x, x.exp()) == pytest.approx(1)
    assert rank_correlation(x, -x) == pytest.approx(-1)
    # Spearman: 1 - 6 sum d^2 / (n (n^2 - 1)), one swap of neighbours: d^2 = 2.
    assert rank_correlation(x, torch.tensor([1.0, 3.0, 2.0, 4.0])) == pytest.approx(1 - 6 * 2 / 60)
    assert math.isnan(rank_correlation(x, torch.zeros(4)))


def test_total_variation_counts_what_is_invalid_as_an_option_of_probability_zero() -> None:
    truth = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    choices = torch.tensor([0, 0, 1, 2])
    every = torch.ones(4, dtype=torch.bool)
    assert total_variation(choices, every, truth) == 0
    assert total_variation(choices, ~every, truth) == 1
    # sampled (.5, .25, 0) and .25 invalid: (0 + 0 + .25 + .25) / 2
    assert total_variation(choices, torch.tensor([True, True, True, False]), truth) == pytest.approx(0.25)


def test_mean_of_what_is_there() -> None:
    assert nan_mean([1.0, math.nan, 3.0]) == 2
    assert math.isnan(nan_mean([math.nan]))
