"""Which values a prior sees as black and white."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from priorpaint import UsageError
from priorpaint.imaging.ranges import ValueRange, choose_range, full_range, parse_range

RNG = np.random.default_rng(0)
KNOWN = np.ones((40, 50), dtype=bool)
KNOWN[10:20, 10:20] = False


def chosen(values: np.ndarray, asked: Any = "auto") -> tuple[ValueRange, str | None]:
    return choose_range(values[..., None], KNOWN, asked, "a.tif")


def test_auto_takes_the_percentiles_of_the_known_values_of_a_dim_16_bit_picture() -> None:
    values = RNG.integers(100, 701, KNOWN.shape).astype(np.uint16)
    values[0, 0] = 65535  # one hot pixel of 1900 is no reason to look at all values
    values[~KNOWN] = 60000  # nor is what is hidden
    span, told = chosen(values)
    low, high = np.percentile(values[KNOWN], (0.1, 99.9))
    assert (span.low, span.high) == (np.floor(low), np.ceil(high)) == (100, 700)
    assert (
        told
        == "a.tif uses the values 100 to 700, which the prior sees as black to white; the range min,max sets others."
    )


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "int16"])
def test_a_picture_that_uses_half_of_its_values_or_more_is_left_alone(dtype: str) -> None:
    full = full_range(np.dtype(dtype))
    values = (full.low + (full.high - full.low) * RNG.uniform(0.2, 0.8, KNOWN.shape)).astype(dtype)
    assert chosen(values) == (full, None)


def test_pictures_of_8_bits_are_never_stretched_unless_asked() -> None:
    values = RNG.integers(10, 20, KNOWN.shape).astype(np.uint8)
    assert chosen(values) == (ValueRange(0, 255), None)
    assert (
        chosen(values, "10,20")
        == chosen(values, (10, 20))
        == chosen(values, np.array([10, 20]))
        == (ValueRange(10, 20), None)
    )


@pytest.mark.parametrize(("low", "high"), [(-3.0, 4.0), (0.2, 0.4), (1e4, 1e4 + 1)])
def test_floating_values_are_mapped_where_they_leave_0_to_1_or_use_little_of_it(low: float, high: float) -> None:
    values = RNG.uniform(low, high, KNOWN.shape)
    values[~KNOWN] = np.nan
    span, told = chosen(values)
    assert told is not None and low <= span.low < span.high <= high
    assert span.high - span.low > 0.95 * (high - low)


def test_full_and_equal_values() -> None:
    dim = np.full(KNOWN.shape, 7, np.uint16)
    assert chosen(dim, "full") == (ValueRange(0, 65535), None)
    for level, span in ((dim, ValueRange(0, 65535)), (np.full(KNOWN.shape, 0.25), ValueRange(0, 1))):
        told = f"a.tif is {level[0, 0]} in every known pixel, and the prior sees {span} as black to white"
        assert chosen(level) == (span, f"{told}; the range min,max sets others.")
    with pytest.raises(UsageError, match=r"is 37 in every known pixel; give the range as min,max"):
        chosen(np.full(KNOWN.shape, 37.0))
    with pytest.raises(UsageError, match="has values from 0 to 2, and floating values are full from 0 to 1"):
        chosen(np.linspace(0, 2, KNOWN.size).reshape(KNOWN.shape), "full")
    with pytest.raises(UsageError, match="holds values from 0 to 65535; give a range inside, not -1,70000"):
        chosen(dim, (-1, 70000))


@pytest.mark.parametrize(
    ("dtype", "nothing"),
    [("int16", -9999), ("int16", -32768), ("uint16", 65535), ("float32", -3.4e38), ("float64", -32767.0)],
)
@pytest.mark.parametrize("count", [1, 300])
def test_a_number_for_no_data_that_widens_the_range_is_named(dtype: str, nothing: float, count: int) -> None:
    values = RNG.integers(200, 3001, KNOWN.shape).astype(dtype)
    values[0, 0], values[0, 1] = 200, 3000
    values[20:].flat[:count] = nothing
    span, told = chosen(values)
    if (span.low, span.high) == (200, 3000) or span.high - span.low < 2801:  # one of 1900 may lie beyond the range
        assert count == 1 and "no data" not in (told or "")
    else:
        word = f"{np.dtype(dtype).type(nothing):.6g}"
        assert told is not None and told.endswith(
            f", but all but {word} lie from 200 to 3000; if that means no data, give the range 200,3000."
        )
    assert chosen(values, "200,3000") == (ValueRange(200, 3000), None)


def test_two_levels_and_a_smooth_tail_are_no_missing_data() -> None:
    two = np.where(np.arange(KNOWN.size).reshape(KNOWN.shape) % 2, 0, 65535).astype(np.uint16)
    assert chosen(two) == (full_range(two.dtype), None)
    sky = (RNG.pareto(2, KNOWN.shape) * 100).clip(0, 9000).astype(np.uint16)
    assert "no data" not in (chosen(sky)[1] or "")


def test_values_that_no_range_can_span_are_one_sentence() -> None:
    values = np.where(np.arange(KNOWN.size).reshape(KNOWN.shape) % 2, -1.7e308, 1.7e308)
    with pytest.raises(UsageError, match=r"values from -1.7e\+308 to 1.7e\+308, too far apart; give the range min,max"):
        chosen(values)
    assert full_range(values.dtype).to_unit(values).tolist() == np.sign(values).tolist()


@pytest.mark.parametrize(
    "wrong", ["Auto", "1", "1,2,3", "5,5", "9,1", "a,b", "nan,1", "0,inf", "-1e308,1e308", 3, None, [1], object()]
)
def test_what_is_no_range_is_one_sentence(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"^a value range (is auto, full or min,max|goes from a smaller)"):
        parse_range(wrong)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_there_and_back(dtype: str) -> None:
    """float32 on [-1, 1] has steps of 2^-24 near 1, so values come back within 2^-24 of the span."""
    span = ValueRange(10, 250)
    values = np.linspace(10, 250, 241).astype(dtype)
    unit = span.to_unit(values)
    assert unit.dtype == np.float32 and unit[0] == -1 and unit[-1] == 1
    np.testing.assert_allclose(span.from_unit(unit.astype(np.float64)), values, atol=240 * 2**-24)
    outside = span.to_unit(np.array([0, 255]).astype(dtype))
    assert list(outside) == [-1, 1], "a hot pixel is white and no more"
    assert list(span.from_unit(np.array([-7.0, 7.0]))) == [10, 250]


def test_values_that_are_not_finite_are_hidden_and_become_0() -> None:
    assert list(ValueRange(0, 1).to_unit(np.array([np.nan, np.inf, -np.inf, 1.0]))) == [0, 0, 0, 1]
