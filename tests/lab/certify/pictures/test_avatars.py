"""What completions of avatars score: exact ones, true ones, grey ones, and those of one single combination."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint.lab.certify.pictures.avatars import AvatarCase


@pytest.fixture(scope="module")
def case() -> AvatarCase:
    return AvatarCase.draw("left", 3, seed=0)


def test_cases_do_not_depend_on_their_number(case: AvatarCase) -> None:
    more = AvatarCase.draw("left", 5, seed=0)
    assert torch.equal(more.x[:3], case.x) and torch.equal(more.known[:3], case.known)


def test_exact_completions_are_possible_and_score_the_floor(case: AvatarCase) -> None:
    found, floor = case.measure(case.exact(64, seed=9)), case.floor(64)
    assert found.valid == found.agree == 1 and found.visible == 0
    assert found.tv == pytest.approx(floor.tv, rel=0.4)
    assert found.coverage == pytest.approx(floor.coverage, rel=0.2)
    assert found.hit == pytest.approx(floor.hit, rel=0.2)
    assert found.std_rank > 0.9 and found.std_ratio == pytest.approx(1, abs=0.15)


def test_more_exact_completions_come_nearer_and_cover_more(case: AvatarCase) -> None:
    few, many = case.floor(8), case.floor(128)
    assert many.tv < 0.5 * few.tv  # noise falls with the root of the number: a quarter
    assert many.coverage > 2 * few.coverage


def test_the_noise_of_the_floor_is_how_much_runs_differ(case: AvatarCase) -> None:
    floor = case.floor(64)
    runs = [case.measure(case.exact(64, seed=seed)) for seed in range(100, 124)]
    assert runs[0].tv_noise is None and runs[0].score_noise is None
    scores = [run.valid * run.coverage for run in runs]
    for noise, values in ((floor.tv_noise, [run.tv for run in runs]), (floor.score_noise, scores)):
        # Ratio of standard deviations of 8 and of 24 draws: within these with a probability of 0.999 (F distribution).
        assert noise is not None and 0.25 < noise / float(torch.tensor(values).std()) < 2.45


def test_coverage_is_the_probability_of_what_was_hit(case: AvatarCase) -> None:
    samples = case.exact(300, seed=1)
    assert 0.85 < case.measure(samples).coverage <= 1 + 1e-9


def test_every_possible_combination_once_hits_all_of_them() -> None:
    """Under `eyes` some truths leave few combinations; then each of them, twice, is a full hit, half of them half."""
    case = AvatarCase.draw("eyes", 8, seed=0)
    assert case.posterior.plausible is not None
    row = int(case.posterior.plausible.argmin())
    count = round(float(case.posterior.plausible[row]))
    assert 2 <= count <= 500
    alone = AvatarCase("eyes", case.x[row : row + 1], case.known[row : row + 1], case.parts[row : row + 1], seed=0)
    different = alone.exact(12 * count, seed=3)[0].unique(dim=0)
    assert len(different) == count
    assert alone.measure(different.repeat(2, 1, 1, 1)[None]).hit == 1
    assert alone.measure(different[: count // 2].repeat(3, 1, 1, 1)[None]).hit == pytest.approx(count // 2 / count)


def test_one_combination_again_and_again_is_valid_but_covers_itself_only(case: AvatarCase) -> None:
    found = case.measure(case.x[:, None].expand(-1, 16, -1, -1, -1))
    own = case.avatars.log_prob(case.parts) - case.posterior.log_evidence.numpy()
    assert found.valid == found.agree == 1
    assert found.coverage == pytest.approx(float(torch.from_numpy(own).exp().mean()), rel=1e-6)
    assert case.posterior.plausible is not None
    assert found.hit == pytest.approx(float((1 / case.posterior.plausible.clamp(max=16)).mean()))
    assert found.tv > 2 * case.floor(16).tv and found.std_ratio == 0 and math.isnan(found.std_rank)


def test_grey_is_no_avatar(case: AvatarCase) -> None:
    found = case.measure((case.x * case.known)[:, None].expand(-1, 4, -1, -1, -1))
    assert found.valid == found.agree == found.coverage == found.hit == 0 and found.tv == pytest.approx(1)


def test_another_avatar_is_valid_but_not_possible(case: AvatarCase) -> None:
    found = case.measure(case.x.roll(1, 0)[:, None].expand(-1, 4, -1, -1, -1))
    assert found.valid == 1 and found.agree == 0 and found.tv == pytest.approx(1) and found.visible > 0.1
