"""Schedules: the defining identities, inverse times, grids, and tables against published numbers and mpmath."""

from __future__ import annotations

import math

import mpmath as mp
import pytest
import torch

from priorpaint import UsageError
from priorpaint.diffusion.schedules import EDM, SPACINGS, TABLED, VE, VP, Flow, Schedule

SCHEDULES = {
    "linear": VP("linear"),
    "linear-100": VP("linear", steps=100),
    "cosine": VP("cosine"),
    "scaled_linear": VP("scaled_linear"),
    "table": VP([0.1, 0.02, 0.3, 0.9]),
    "ve": VE(),
    "edm": EDM(),
    "flow": Flow(),
}
VPS = [name for name, schedule in SCHEDULES.items() if isinstance(schedule, VP)]


@pytest.fixture(params=SCHEDULES, ids=str)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return SCHEDULES[request.param]


def inner_times(count: int = 4001) -> torch.Tensor:
    return torch.linspace(0, 1, count, dtype=torch.float64)[1:-1]


@pytest.mark.parametrize("name", VPS)
def test_vp_preserves_variance(name: str) -> None:
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    total = SCHEDULES[name].alpha(t) ** 2 + SCHEDULES[name].sigma(t) ** 2
    assert (total - 1).abs().max() < 1e-15


def test_ve_and_edm_keep_alpha_one_and_flow_is_a_straight_line() -> None:
    t = inner_times()
    assert bool((VE().alpha(t) == 1).all()) and bool((EDM().alpha(t) == 1).all())
    torch.testing.assert_close(Flow().alpha(t) + Flow().sigma(t), torch.ones_like(t), rtol=0, atol=1e-15)
    torch.testing.assert_close(Flow().sigma(t), t, rtol=0, atol=0)


def test_clean_end(schedule: Schedule) -> None:
    zero = torch.zeros(2, dtype=torch.float64)
    assert schedule.alpha(zero).tolist() == [1.0, 1.0]
    assert schedule.sigma(zero).tolist() == [0.0, 0.0]
    assert schedule.log_nsr(zero).tolist() == [-math.inf, -math.inf]


def test_log_ratio_agrees_with_alpha_and_sigma(schedule: Schedule) -> None:
    t = inner_times()
    torch.testing.assert_close(
        schedule.log_nsr(t), (schedule.sigma(t) / schedule.alpha(t)).log(), rtol=1e-12, atol=1e-12
    )


def test_noise_grows_strictly(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 20001, dtype=torch.float64)
    assert bool((schedule.log_nsr(t).diff()[1:] > 0).all())
    assert bool((schedule.sigma(t).diff() >= 0).all())
    assert bool((schedule.alpha(t).diff() <= 0).all())


def test_time_inverts_the_ratio(schedule: Schedule) -> None:
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    back = schedule.time_at(schedule.log_nsr(t).exp())
    torch.testing.assert_close(back, t, rtol=1e-10, atol=1e-13)


def test_time_clamps_ratios_outside(schedule: Schedule) -> None:
    assert schedule.time_at(torch.tensor([0.0, math.inf], dtype=torch.float64)).tolist() == [0.0, 1.0]


def test_shapes_and_dtypes_follow_the_argument(schedule: Schedule) -> None:
    for dtype in (torch.float32, torch.float64):
        for t in (torch.tensor(0.3, dtype=dtype), torch.full((2, 3), 0.3, dtype=dtype)):
            for value in (schedule.alpha(t), schedule.sigma(t), schedule.time_at(t)):
                assert value.dtype == dtype and value.shape == t.shape


def test_float32_times_are_computed_in_float64(schedule: Schedule) -> None:
    # A float32 time is an exact float64 number, so the only error left is rounding the result: half an ulp.
    t = torch.linspace(0, 1, 999)
    for function in (schedule.alpha, schedule.sigma):
        torch.testing.assert_close(function(t), function(t.double()).float(), rtol=1.2e-7, atol=0)


@pytest.mark.parametrize("spacing", [None, *SPACINGS])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 18, 100])
def test_grids(schedule: Schedule, spacing: str | None, steps: int) -> None:
    entries = len(schedule.betas) if isinstance(schedule, VP) else 900
    if spacing in TABLED and not 2 <= steps <= entries:
        with pytest.raises(UsageError, match=f"spacing '{spacing}' takes 2 to"):
            schedule.grid(steps, spacing)
        return
    times = schedule.grid(steps, spacing)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert times[-1] == 0 and (0 < times[0] <= 1 if spacing == "leading" else times[0] == 1)
    assert bool((times.diff() < 0).all())


@pytest.mark.parametrize("schedule", [VP(), VP("cosine"), VP(steps=500)])
def test_leading_entries_are_multiples_from_0(schedule: VP) -> None:
    """RED-diff, DDRM and DDNM: 990, 980, ... 0 of 1000 for 100 steps."""
    count = len(schedule.betas)
    index = schedule.grid(100, "leading")[:-1] * count - 1
    expected = torch.arange(99, -1, -1, dtype=torch.float64) * (count // 100)
    torch.testing.assert_close(index, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("other", [VE(0.01, 100.0), EDM(), Flow()])
def test_leading_levels_without_a_table_are_those_of_the_linear_one(other: Schedule) -> None:
    table = VP().log_nsr(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    entries = int((table <= math.log(other.nsr_range[1])).sum())
    expected = table[torch.arange(39, -1, -1) * (entries // 40)]
    times = other.grid(40, "leading")
    torch.testing.assert_close(other.log_nsr(times[1:-1]), expected[1:], rtol=0, atol=1e-9)
    first = float(other.log_nsr(times[0]))
    if entries == 1000:
        assert first == pytest.approx(float(expected[0]))
    else:
        assert times[0] == 1, "all the noise that there is"


def test_logsnr_and_karras_grids_are_uniform_in_their_variable(schedule: Schedule) -> None:
    low, high = schedule.nsr_range
    levels = schedule.log_nsr(schedule.grid(12, "logsnr")[1:-1])
    assert levels.diff().std() < 1e-9 * levels.diff().abs().mean()
    assert math.isclose(levels[-1].item(), math.log(low), rel_tol=1e-9)
    roots = schedule.log_nsr(schedule.grid(12, "karras", rho=5.0)[1:-1]).div(5).exp()
    assert roots.diff().std() < 1e-9 * roots.diff().abs().mean()
    # The step from the top: the distance to the first level inside is the same as all the others.
    assert math.isclose(high**0.2 - roots[0].item(), -roots.diff().mean().item(), rel_tol=1e-9)


def test_karras_published_sigmas() -> None:
    # Karras et al. 2022, Eq. 5 with their sampler's 18 steps: sigma_0 = 80, sigma_17 = 0.002, written out.
    sigma = EDM().sigma(EDM().grid(18))
    for i in (0, 1, 5, 17):
        expected = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
        assert math.isclose(sigma[i].item(), expected, rel_tol=1e-9)
    assert sigma[1].item() == pytest.approx(57.586, abs=1e-3) and sigma[18] == 0


def test_ve_is_geometric() -> None:
    t = torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(VE(0.01, 100.0).sigma(t), torch.tensor([0.1, 1.0, 100.0], dtype=torch.float64))


@pytest.mark.parametrize("other", [VE(0.01, 100.0), EDM(), Flow(), Flow(3.0)])
def test_respaced_levels_without_a_table_are_those_of_the_linear_one(other: Schedule) -> None:
    table = VP().log_nsr(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    levels = other.log_nsr(other.grid(40, "respaced")[1:-1])
    nearest = (levels[:, None] - table[None]).abs().amin(1)
    assert float(nearest.max()) < 1e-9
    assert float(levels[-1]) == pytest.approx(float(table[0]))
    gaps = torch.searchsorted(table, levels + 1e-9).diff()
    assert int(gaps.max()) - int(gaps.min()) <= 1  # even steps of the table's index


def test_respaced_levels_are_those_of_ddpm() -> None:
    index = VP().grid(250, "respaced")[:-1] * 1000 - 1
    expected = torch.tensor([round(k * 999 / 249) for k in range(249, -1, -1)], dtype=torch.float64)
    torch.testing.assert_close(index, expected, rtol=0, atol=1e-9)


def table_time(index: int, length: int = 1000) -> torch.Tensor:
    return torch.tensor((index + 1) / length, dtype=torch.float64)


@pytest.mark.parametrize(
    ("index", "alpha", "sigma", "variance"),
    [
        (249, 0.72394, 0.68987, 0.47591),
        (499, 0.28033, 0.95990, 0.92141),
        (49, 0.98540, 0.17025, 0.02898),
        (99, 0.94711, 0.32091, 0.10298),
    ],
)
def test_unit_values_of_the_linear_table(index: int, alpha: float, sigma: float, variance: float) -> None:
    t = table_time(index)
    assert VP().alpha(t).item() == pytest.approx(alpha, abs=6e-6)
    assert VP().sigma(t).item() == pytest.approx(sigma, abs=6e-6)
    assert VP().sigma(t).item() ** 2 == pytest.approx(variance, abs=6e-6)


def test_published_ends_of_the_tables() -> None:
    one = torch.ones((), dtype=torch.float64)
    # DDPM: abar_T = 4.04e-5. Stable Diffusion (scaled linear): abar_T = 0.00466, sigma_max = 14.6146, sigma_min =
    # 0.0292.
    assert VP("linear").alpha(one).item() ** 2 == pytest.approx(4.0358e-5, rel=1e-4)
    ratios = SCHEDULES["scaled_linear"].nsr_range
    assert ratios[1] == pytest.approx(14.6146, rel=1e-5) and ratios[0] == pytest.approx(0.029167, rel=1e-4)
    assert VP("scaled_linear").alpha(one).item() ** 2 == pytest.approx(0.0046600, rel=1e-3)
    # ADM's linear table in sigma units: 0.0100 to 157.4.
    assert VP("linear").nsr_range == (pytest.approx(0.0100005, rel=1e-5), pytest.approx(157.407, rel=1e-5))


def test_cosine_table() -> None:
    # Nichol and Dhariwal 2021, Eq. 17: abar(t) = f(t) / f(0) until beta is cut at 0.999 in the last entry.
    f = [math.cos((i / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(1001)]
    for index in (0, 1, 499, 900, 998):
        assert VP("cosine").alpha(table_time(index)).item() ** 2 == pytest.approx(f[index + 1] / f[0], rel=1e-9)
    assert VP("cosine").betas[-1] == 0.999
    assert VP("cosine").betas[0].item() == pytest.approx(4.1284e-5, rel=1e-4)


def test_tables_of_another_length_span_the_same_noise() -> None:
    for steps in (100, 250):
        assert VP("linear", steps=steps).nsr_range[1] == pytest.approx(157.4, rel=0.6)
    assert VP("linear", 250).betas[0].item() == pytest.approx(4e-4) and VP("linear", 250).betas[-1].item() == 0.08
    assert VP("linear", 10, beta_start=0.1, beta_end=0.2).betas[[0, -1]].tolist() == [0.1, 0.2]


@pytest.mark.parametrize("name", ["linear", "cosine", "scaled_linear"])
def test_tables_against_mpmath(name: str) -> None:
    """sigma and alpha keep relative precision at both ends: error below 1e-12 at every checked table point.

    The cumulative sum of 1000 log(1 - beta) costs at most 1000 half-ulps of its value (<= 25), so < 3e-12 in the worst
    case at the noisy end and about 1e-16 at the clean end, where it matters.
    """
    mp.mp.dps = 40
    betas = [mp.mpf(beta.item()) for beta in VP(name).betas]
    abar = mp.mpf(1)
    for index, beta in enumerate(betas):
        abar *= 1 - beta
        if index in (0, 1, 2, 10, 499, 998, 999):
            t = table_time(index)
            assert abs(VP(name).sigma(t).item() / mp.sqrt(1 - abar) - 1) < 1e-12
            assert abs(VP(name).alpha(t).item() / mp.sqrt(abar) - 1) < 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VP("quadratic"), "linear, scaled_linear or cosine"),
        (lambda: VP([0.1]), "at least two"),
        (lambda: VP([0.1, 1.0]), "between 0 and 1"),
        (lambda: VP([0.1, float("nan")]), "between 0 and 1"),
        (lambda: VP("linear", steps=1), "at least 2 steps"),
        (lambda: VE(2.0, 1.0), "sigma_min < sigma_max"),
        (lambda: EDM(0.0, 1.0), "sigma_min < sigma_max"),
        (lambda: VP().grid(0), "at least 1 step"),
        (lambda: VP().grid(5, "cubic"), "uniform, quad, logsnr, karras, respaced"),
        (lambda: VP().grid(1001, "respaced"), "2 to 1000"),
    ],
)
def test_errors_say_what_exists(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()  # type: ignore[operator]


def test_a_grid_is_the_callers_own_and_its_levels_are_the_functions(schedule: Schedule) -> None:
    first = schedule.grid(7)
    first.mul_(0)
    times = schedule.grid(7)
    assert float(times[0]) == 1
    other = schedule.grid(5, start=0.5)
    assert float(other[0]) == 0.5 and len(other) == 6
    torch.testing.assert_close(schedule.grid(7), times, rtol=0, atol=0)
    for t in (times[2], other[1]):  # of the last grid, and of an earlier one
        for value, function in zip(schedule.level(t), (schedule.alpha, schedule.sigma, schedule.log_nsr), strict=True):
            torch.testing.assert_close(value, function(t), rtol=1e-14, atol=0)
