"""Masks: what is let through, what is refused, and what hidden pixels cannot do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from priorpaint import Inpainting, UsageError

MASK = torch.tensor([[1, 0, 1], [0, 0, 1]])
X = torch.arange(1.0, 13.0).reshape(1, 2, 2, 3)


def test_known_pixels_pass_and_hidden_ones_become_zero() -> None:
    y = Inpainting(MASK)(X)
    assert torch.equal(y, X * MASK) and y.dtype == X.dtype and y.shape == X.shape


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_hidden_garbage_does_not_leak(bad: float) -> None:
    operator = Inpainting(MASK)
    dirty = torch.where(MASK > 0, X, bad)
    for function in (operator, operator.adjoint, operator.pinv, operator.measured):
        assert torch.equal(function(dirty), X * MASK)
    assert torch.equal(operator.project(torch.zeros_like(X), dirty), X * MASK)


@pytest.mark.parametrize("mask", [
    MASK, MASK.bool(), MASK.to(torch.uint8), MASK.float(), MASK.double(), MASK.half(), MASK.numpy(),
    MASK.bool().numpy(), np.asarray(MASK, dtype=np.float64), MASK[None, None], MASK.expand(1, 2, 2, 3),
])  # fmt: skip
def test_masks_of_any_kind(mask: torch.Tensor) -> None:
    assert torch.equal(Inpainting(mask)(X), X * MASK)


def test_the_operator_keeps_its_own_mask() -> None:
    mask = MASK.float()
    operator = Inpainting(mask)
    mask.zero_()
    assert torch.equal(operator(X), X * MASK)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_dtype_of_the_image_is_kept(dtype: torch.dtype) -> None:
    operator, x = Inpainting(MASK), X.to(dtype)
    for out in (operator(x), operator.adjoint(x), operator.pinv(x), operator.solve(x, 0.5), operator.project(x, x)):
        assert out.dtype == dtype


def test_solve_with_nothing_added_is_the_pseudo_inverse() -> None:
    out = Inpainting(MASK).solve(X, 0.0)
    assert torch.equal(out, X * MASK)


def test_project_is_exact() -> None:
    y = Inpainting(MASK)(X) / 3
    out = Inpainting(MASK).project(-X, y)
    assert torch.equal(out, torch.where(MASK > 0, y, -X))


def test_masks_of_a_batch() -> None:
    masks = torch.stack([MASK, 1 - MASK, MASK])[:, None]
    operator, x = Inpainting(masks), X.expand(3, 2, 2, 3)
    assert torch.equal(operator(x), x * masks)
    rows = torch.tensor([1, 1, 0, 2])
    picked = operator.select(rows)
    assert torch.equal(picked(X.expand(4, 2, 2, 3)), X * masks[rows])
    shared = Inpainting(MASK)
    assert shared.select(rows) is shared
    assert torch.equal(operator.to(torch.device("cpu"))(x), x * masks)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.tensor([[0.5, 1.0]]), "only 0 .* and 1"),
        (torch.tensor([[0, 255]]), "threshold it first"),
        (torch.tensor([[0, float("nan")]]), "only 0"),
        (torch.ones(3), "not 1"),
        (torch.ones(1, 2, 3), "not 3"),
    ],
)
def test_masks_that_cannot_be_used(mask: torch.Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Inpainting(mask)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 2, 3, 2), "does not fit"),
        ((1, 3, 2, 3), "does not fit"),
        ((2, 2, 3), "does not fit"),
        ((2, 2, 2, 3), "3 masks for 2"),
    ],
)
def test_images_that_do_not_fit(shape: tuple[int, ...], message: str) -> None:
    operator = Inpainting(MASK.expand(3, 2, 2, 3))
    with pytest.raises(UsageError, match=message):
        operator.image_shape(torch.zeros(shape))


def test_image_shape() -> None:
    assert Inpainting(MASK).image_shape(torch.zeros(5, 4, 2, 3)) == (4, 2, 3)
