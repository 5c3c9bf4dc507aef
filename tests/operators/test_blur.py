"""Circular blurs: kernels of lines, and convolution written out."""

from __future__ import annotations

import math

import pytest
import torch

from priorpaint import Blur, MotionBlur, UsageError
from priorpaint.operators.blur import line_kernel
from tests.operators.test_registry import noise


def point(height: int, width: int) -> torch.Tensor:
    x = torch.zeros(1, 1, height, width, dtype=torch.float64)
    x[..., height // 2, width // 2] = 1
    return x


def test_a_point_becomes_the_kernel() -> None:
    kernel = torch.tensor([[0.0, 1, 2], [4, 3, 0], [0, 0, 5], [1, 0, 0]])
    got = Blur(kernel, rtol=1e-9)(point(8, 7))[0, 0]
    torch.testing.assert_close(got[2:6, 2:5], kernel.double() / 16)  # the centre of the kernel, (2, 1), on (4, 3)
    assert float(got.abs().sum()) == pytest.approx(1)


def test_convolution_goes_round() -> None:
    """sum_k kernel[k] x[i - k], with indices modulo the size."""
    x, kernel = noise(2, 3, 5, 6), noise(3, 5).abs()
    expected = torch.zeros_like(x)
    for down in range(3):
        for across in range(5):
            expected += kernel[down, across] * x.roll((down - 1, across - 2), (2, 3))
    torch.testing.assert_close(Blur(kernel, rtol=1e-9)(x), expected / kernel.sum())


def test_a_line_along_a_row_and_a_column() -> None:
    torch.testing.assert_close(line_kernel(5, 0), _cross(5, row=True))
    torch.testing.assert_close(line_kernel(5, 90), _cross(5, row=False))
    assert line_kernel(1, 77).tolist() == [[1.0]]
    # 4 pixels: half of each end falls into the next pixel
    torch.testing.assert_close(line_kernel(4, 0)[2], torch.tensor([1, 2, 2, 2, 1], dtype=torch.float64) / 8)


def _cross(side: int, *, row: bool) -> torch.Tensor:
    kernel = torch.zeros(side, side, dtype=torch.float64)
    kernel[side // 2] = 1 / side
    return kernel if row else kernel.mT


def test_a_diagonal_runs_from_lower_left_to_upper_right() -> None:
    kernel = line_kernel(5 * math.sqrt(2), 45)
    torch.testing.assert_close(kernel[2:-2, 2:-2], torch.eye(5, dtype=torch.float64).flip(0) / 5)
    torch.testing.assert_close(line_kernel(5 * math.sqrt(2), 135), kernel.flip(1))


@pytest.mark.parametrize("length", [0.5, 1, 3, 6.4, 15])
@pytest.mark.parametrize("angle", [0, 17, 45, 90, 123, -60, 400])
def test_kernels_of_lines(length: float, angle: float) -> None:
    """Weights sum to 1, the centre of mass is the middle, and the moments are those of a line in pixels."""
    kernel = line_kernel(length, angle)
    assert (kernel >= 0).all() and float(kernel.sum()) == pytest.approx(1)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    torch.testing.assert_close(kernel, line_kernel(length, angle + 180))
    place = torch.arange(len(kernel), dtype=torch.float64) - len(kernel) // 2
    second = float((kernel.sum(0) * place**2).sum())
    exact = (length * math.cos(math.radians(angle))) ** 2 / 12
    assert second == pytest.approx(exact, abs=1 / 12 + 0.26 * math.sqrt(exact))  # a pixel has a width of its own


def test_motion_of_a_point() -> None:
    got = MotionBlur(3, rtol=1e-9)(point(5, 9))[0, 0]
    expected = torch.zeros(5, 9, dtype=torch.float64)
    expected[2, 3:6] = 1 / 3
    torch.testing.assert_close(got, expected)


def test_motion_keeps_constants_and_the_mean() -> None:
    x = noise(2, 3, 9, 14)
    operator = MotionBlur(6.5, 30)
    torch.testing.assert_close(operator(torch.full((1, 1, 9, 14), 0.3)), torch.full((1, 1, 9, 14), 0.3))
    torch.testing.assert_close(operator(x).mean((2, 3)), x.mean((2, 3)))


def test_frequencies_that_the_motion_deletes_cannot_come_back() -> None:
    """Three pixels of motion on a wave of period three."""
    wave = torch.cos(2 * math.pi * torch.arange(12, dtype=torch.float64) / 3).expand(1, 1, 4, 12)
    operator = MotionBlur(3)
    torch.testing.assert_close(operator(wave), torch.zeros_like(wave))
    torch.testing.assert_close(operator.pinv(operator(wave + 0.5)), torch.full_like(wave, 0.5))


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (torch.ones(3), "2 axes"),
        (torch.tensor([[1.0, -0.1]]), ">= 0"),
        (torch.zeros(2, 2), "not all of them 0"),
        (torch.tensor([[math.nan, 1]]), "finite"),
        (torch.tensor([[math.inf, 1]]), "finite"),
    ],
)
def test_kernels_that_cannot_be_used(kernel: torch.Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Blur(kernel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "length"), ((math.inf,), "length"), ((5, math.nan), "angle"), ((5, 0, 2), "rtol")],
)
def test_motions_that_do_not_exist(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MotionBlur(*arguments)
