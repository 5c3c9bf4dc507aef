"""What every operator promises, present and future: a new one in ``OPERATORS`` needs an entry in ``CASES``.

All identities are checked in float64 to rounding (1e-10 relative to the size of what is compared), most of them against
the operator written out as a matrix.
"""

from __future__ import annotations

import importlib
import inspect
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

import priorpaint
from priorpaint import (
    JPEG,
    OPERATORS,
    Blur,
    Downsampling,
    GaussianBlur,
    Grayscale,
    Inpainting,
    LinearOperator,
    MatrixOperator,
    MotionBlur,
    Operator,
    RandomPixels,
    UsageError,
    WalshHadamard,
)
from priorpaint.cli.restore import operators
from priorpaint.operators import operator as operator_by_name
from priorpaint.operators import settings_of

BATCH = 3


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_mask(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(5)) < 0.6


@dataclass(frozen=True)
class Case:
    """An operator for images (3, *shape)."""

    make: Callable[[], Operator]
    shape: tuple[int, int, int] = (2, 4, 6)


RANK_TWO = noise(4, 2) @ noise(2, 6, seed=1)
CASES = {
    "inpainting": Case(lambda: Inpainting(random_mask(4, 6))),
    "inpainting-by-channel": Case(lambda: Inpainting(random_mask(1, 2, 4, 6))),
    "inpainting-by-image": Case(lambda: Inpainting(random_mask(3, 1, 4, 6))),
    "inpainting-by-image-and-channel": Case(lambda: Inpainting(random_mask(3, 2, 4, 6))),
    "inpainting-nothing-known": Case(lambda: Inpainting(torch.zeros(4, 6))),
    "inpainting-all-known": Case(lambda: Inpainting(torch.ones(4, 6))),
    "random_pixels": Case(lambda: RandomPixels((4, 6), keep=0.4)),
    "downsampling-box": Case(lambda: Downsampling(2, "box")),
    "downsampling-bicubic": Case(lambda: Downsampling(2)),
    "downsampling-bicubic-4": Case(lambda: Downsampling(4), (1, 8, 12)),
    "downsampling-to-one-pixel": Case(lambda: Downsampling(4), (3, 4, 4)),
    "downsampling-1": Case(lambda: Downsampling(1)),
    "gaussian_blur": Case(lambda: GaussianBlur(0.7)),
    "gaussian_blur-that-deletes": Case(lambda: GaussianBlur(2.0, rtol=0.01), (1, 9, 7)),
    "gaussian_blur-narrow": Case(lambda: GaussianBlur(0.1)),
    "gaussian_blur-wider-than-the-image": Case(lambda: GaussianBlur(9.0)),
    "motion_blur": Case(lambda: MotionBlur(3, 30), (2, 5, 6)),
    "motion_blur-with-zeros": Case(lambda: MotionBlur(3, 0)),
    "motion_blur-longer-than-the-image": Case(lambda: MotionBlur(11, 60), (1, 7, 5)),
    "blur": Case(lambda: Blur(torch.tensor([[0, 1, 3, 1], [2, 0, 0, 1]])), (2, 5, 7)),
    "grayscale": Case(Grayscale, (3, 4, 5)),
    "matrix-wide": Case(lambda: MatrixOperator(noise(5, 12), (1, 3, 4)), (1, 3, 4)),
    "matrix-tall": Case(lambda: MatrixOperator(noise(9, 6)), (1, 1, 6)),
    "matrix-rank-2": Case(lambda: MatrixOperator(RANK_TWO), (1, 1, 6)),
    "matrix-rank-2-tall": Case(lambda: MatrixOperator(RANK_TWO.mT), (1, 1, 4)),
    "matrix-zero": Case(lambda: MatrixOperator(torch.zeros(2, 6)), (1, 1, 6)),
    "matrix-by-image": Case(lambda: MatrixOperator(noise(3, 5, 12), (2, 2, 3)), (2, 2, 3)),
    "matrix-by-image-tall": Case(lambda: MatrixOperator(noise(3, 5, 4), (1, 2, 2)), (1, 2, 2)),
    "walsh_hadamard": Case(lambda: WalshHadamard((4, 8), keep=0.3), (2, 4, 8)),
    "walsh_hadamard-all": Case(lambda: WalshHadamard((2, 4), keep=1), (1, 2, 4)),
    "jpeg": Case(lambda: JPEG(30), (3, 9, 11)),
    "jpeg-grey": Case(lambda: JPEG(80), (1, 8, 16)),
    "jpeg-444-cubic": Case(lambda: JPEG(50, "4:4:4", "cubic"), (3, 8, 8)),
}
LINEAR = [name for name, case in CASES.items() if isinstance(case.make(), LinearOperator)]
GAINS: dict[str, Callable[[Tensor], Tensor]] = {
    "1": torch.ones_like,
    "s": lambda s: s,
    "1/(s^2 + 1/2)": lambda s: 1 / (s**2 + 0.5),
    "s = 0": lambda s: (s == 0).to(s),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture(params=LINEAR)
def linear(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def operator(case: Case) -> LinearOperator:
    linear = case.make()
    assert isinstance(linear, LinearOperator)
    return linear


def images(case: Case, seed: int = 0) -> Tensor:
    return noise(BATCH, *case.shape, seed=seed)


def measurements(case: Case, seed: int = 1) -> Tensor:
    return noise(*case.make()(images(case)).shape, seed=seed)


def dense(case: Case, function: str = "__call__", row: int = 0) -> Tensor:
    """A of image ``row`` as (m, d); A^T with "adjoint" and A^+ with "pinv" as (d, m)."""
    start = images(case) if function == "__call__" else measurements(case)
    basis = torch.eye(start[0].numel(), dtype=torch.float64).reshape(-1, *start.shape[1:])
    repeated = operator(case).select(torch.full((len(basis),), row))
    return getattr(repeated, function)(basis).flatten(1).mT


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


# -- the registry ------------------------------------------------------------------------------------------------------


def test_every_operator_is_here() -> None:
    """A new operator in the registry, or a new public one, without a case fails."""
    tested = {type(case.make()) for case in CASES.values()}
    assert set(OPERATORS.values()) <= tested
    public = {c for _, c in inspect.getmembers(priorpaint, inspect.isclass) if issubclass(c, Operator)}
    assert public - {Operator, LinearOperator} == set(OPERATORS.values())
    assert list(OPERATORS) == sorted(OPERATORS)


_MODULE = '''
from priorpaint import Operator


class Negative(Operator{name}):
    """y = -x."""

    title = "the negative"

    def __init__(self, factor=1):
        self.factor = factor

    def __call__(self, x):
        return -self.factor * x

    def image_shape(self, y):
        return tuple(y.shape[1:])

    def guess(self, y):
        return -y
'''


@pytest.mark.parametrize("name", ["", ', name="negative"'])
def test_a_class_with_a_name_registers_itself(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And is then on the command line, and in `restore` by its name."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "negative_module.py").write_text(_MODULE.format(name=name), encoding="utf-8")
    before = dict(OPERATORS)
    try:
        cls = importlib.import_module("negative_module").Negative
        assert (OPERATORS.get("negative") is cls) == bool(name)
        assert list(OPERATORS) == sorted({**before, **({"negative": cls} if name else {})})
        operators()
        assert ("negative  " in capsys.readouterr().out) == bool(name)
        if name:
            negative = operator_by_name("negative", factor=2)
            assert type(negative) is cls and settings_of(negative) == {"factor": 2}
    finally:
        OPERATORS.clear()
        OPERATORS.update(before)
        sys.modules.pop("negative_module", None)


@pytest.mark.parametrize("name", OPERATORS)
def test_description(name: str) -> None:
    cls = OPERATORS[name]
    assert "\n" not in cls.title and 5 < len(cls.title) < 70 and cls.title[-1] != "."
    assert cls.__doc__ and cls.__doc__ != (cls.__base__ or object).__doc__
    assert len({c.title for c in OPERATORS.values()}) == len(OPERATORS)


# -- linear algebra ----------------------------------------------------------------------------------------------------


def test_linearity(linear: Case) -> None:
    a, x, z = operator(linear), images(linear), images(linear, seed=1)
    close(a(2.5 * x - z), 2.5 * a(x) - a(z))


def test_adjoint(linear: Case) -> None:
    """<A x, y> = <x, A^T y> for each image."""
    a, x, y = operator(linear), images(linear), measurements(linear)
    close((a(x) * y).flatten(1).sum(1), (x * a.adjoint(y)).flatten(1).sum(1))


def test_pinv_is_moore_penrose(linear: Case) -> None:
    """The four conditions that have one solution, and x -> A^+ A x and y -> A A^+ y on batches."""
    for row in range(BATCH):
        a, p = dense(linear, row=row), dense(linear, "pinv", row)
        close(a @ p @ a, a)
        close(p @ a @ p, p)
        close(a @ p, (a @ p).mT)
        close(p @ a, (p @ a).mT)
    op, x, y = operator(linear), images(linear), measurements(linear)
    close(op(op.pinv(op(x))), op(x))
    close(op.pinv(op(op.pinv(y))), op.pinv(y))


@pytest.mark.parametrize("c", [1e-3, 2.0])
def test_solve(linear: Case, c: float) -> None:
    a, r = operator(linear), measurements(linear)
    z = a.solve(r, c)
    close(a(a.adjoint(z)) + c * z, r)


def test_solve_without_c_is_the_pseudo_inverse(linear: Case) -> None:
    """A A^T z is the part of r in the range of A, and z has no other part."""
    a, r = operator(linear), measurements(linear)
    z = a.solve(r, 0.0)
    close(a(a.adjoint(z)), a(a.pinv(r)))
    close(a(a.pinv(z)), z)
    close(a.adjoint(a.solve(a(images(linear)), 0.0)), a.pinv(a(images(linear))))


def test_solve_takes_one_c_an_image(linear: Case) -> None:
    a, r = operator(linear), measurements(linear)
    c = torch.tensor([0.1, 0.0, 3.0], dtype=torch.float64)
    together = a.solve(r, c)
    for row in range(BATCH):
        one = a.select(torch.tensor([row]))
        close(together[row : row + 1], one.solve(r[row : row + 1], float(c[row])))


def test_norm_is_what_power_iteration_finds(linear: Case) -> None:
    a, x = operator(linear), images(linear).abs()
    for _ in range(200):
        x = a.adjoint(a(x))
        x = x / x.flatten(1).norm(dim=1).clamp(min=1e-300).reshape(-1, 1, 1, 1)
    assert a.norm() == pytest.approx(float(a(x).flatten(1).norm(dim=1).max()), rel=1e-9, abs=1e-12)


def test_project_is_the_nearest_image_that_fits(linear: Case) -> None:
    a, x = operator(linear), images(linear)
    y = a(images(linear, seed=1))
    projected = a.project(x, y)
    close(a(projected), y)
    close(a.project(projected, y), projected)
    close(projected, x + a.pinv(y - a(x)))
    close(a.guess(y), a.pinv(y))


def test_gradient_is_the_adjoint(linear: Case) -> None:
    a, x, y = operator(linear), images(linear).requires_grad_(), measurements(linear)
    (gradient,) = torch.autograd.grad((a(x) * y).sum(), x)
    close(gradient, a.adjoint(y))


# -- filters -----------------------------------------------------------------------------------------------------------


def test_filter_with_squares_is_the_normal_matrix(linear: Case) -> None:
    a, x = operator(linear), images(linear)
    close(a.filter(x, torch.square), a.adjoint(a(x)))


def test_filter_with_ones_is_the_identity(linear: Case) -> None:
    close(operator(linear).filter(images(linear), torch.ones_like), images(linear))


def test_filter_with_inverses_is_the_pseudo_inverse(linear: Case) -> None:
    """A^+ = (A^T A)^+ A^T and A^+ A; singular values are 0 or far from it."""
    a, x, y = operator(linear), images(linear), measurements(linear)
    close(a.filter(a.adjoint(y), lambda s: torch.where(s > 0, 1 / s**2, 0)), a.pinv(y))
    close(a.filter(x, lambda s: (s > 0).to(s)), a.pinv(a(x)))


def test_filter_through_solve(linear: Case) -> None:
    """A^T (A A^T + c I)^-1 A = V S^2 / (S^2 + c) V^T."""
    a, x = operator(linear), images(linear)
    close(a.filter(x, lambda s: s**2 / (s**2 + 0.3)), a.adjoint(a.solve(a(x), 0.3)))


@pytest.mark.parametrize("gain", GAINS.values(), ids=GAINS.keys())
def test_filters_are_symmetric_linear_and_commute(linear: Case, gain: Callable[[Tensor], Tensor]) -> None:
    a, x, z = operator(linear), images(linear), images(linear, seed=1)
    close(a.filter(x - 2 * z, gain), a.filter(x, gain) - 2 * a.filter(z, gain))
    close((a.filter(x, gain) * z).flatten(1).sum(1), (x * a.filter(z, gain)).flatten(1).sum(1))
    close(a.filter(a.filter(x, gain), torch.exp), a.filter(x, lambda s: gain(s) * s.exp()))


def test_gain_sees_singular_values(linear: Case) -> None:
    """Four axes, >= 0, in the precision of the image, at most ``norm``, which is reached."""
    a, x = operator(linear), images(linear).float()
    singular_values: list[Tensor] = []

    def watch(s: Tensor) -> Tensor:
        singular_values.append(s)
        return s

    a.filter(x, watch)
    for s in singular_values:
        assert s.ndim == 4 and len(s) in (1, BATCH) and s.dtype == torch.float32 and (s >= 0).all()
    assert max(float(s.max()) for s in singular_values) == pytest.approx(a.norm(), rel=1e-6, abs=1e-9)


def test_one_gain_an_image(linear: Case) -> None:
    a, x = operator(linear), images(linear)
    c = torch.tensor([0.1, 1.0, 7.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    together = a.filter(x, lambda s: c / (s**2 + c))
    for row in range(BATCH):
        one, value = a.select(torch.tensor([row])), float(c[row])
        close(together[row : row + 1], one.filter(x[row : row + 1], lambda s, v=value: v / (s**2 + v)))  # type: ignore[misc]


# -- batches, dtypes, what must not be touched -------------------------------------------------------------------------


def outputs(a: Operator, x: Tensor, y: Tensor) -> list[Tensor]:
    """All that an operator computes."""
    out = [a(x), a.guess(y), a.project(x, y), a.measured(y)]
    if isinstance(a, LinearOperator):
        out += [a.adjoint(y), a.pinv(y), a.solve(y, 0.5), a.solve(y, 0.0), a.filter(x, lambda s: s + 1)]
    return out


def test_a_batch_is_its_images_alone(case: Case) -> None:
    a, x, y = case.make(), images(case), measurements(case)
    together = outputs(a, x, y)
    for row in range(BATCH):
        alone = outputs(a.select(torch.tensor([row])), x[row : row + 1], y[row : row + 1])
        for one, many in zip(alone, together, strict=True):
            close(one, many[row : row + 1])


def test_select_picks_rows(case: Case) -> None:
    a, x = case.make(), images(case)
    rows = torch.tensor([2, 0, 0, 1])
    close(a.select(rows)(x[rows]), a(x)[rows])
    close(a.select(rows).select(rows)(x[rows[rows]]), a(x)[rows[rows]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_kept_and_single_precision_is_near_double(case: Case, dtype: torch.dtype) -> None:
    a, x, y = case.make(), images(case), measurements(case)
    for exact, got in zip(outputs(a, x, y), outputs(case.make(), x.to(dtype), y.to(dtype)), strict=True):
        assert got.dtype == dtype
        scale = float(exact.abs().max()) + 1
        torch.testing.assert_close(got.double(), exact, rtol=0, atol=3e-4 * scale)


def test_arguments_are_untouched_and_nothing_is_shared(case: Case) -> None:
    """Changing what an operator returned changes neither its arguments nor its next answer."""
    a, x, y = case.make(), images(case), measurements(case)
    x_before, y_before, first = x.clone(), y.clone(), [out.clone() for out in outputs(a, x, y)]
    changed = outputs(a, x, y)
    for out in changed:
        if out.data_ptr() not in (x.data_ptr(), y.data_ptr()):  # project and measured may return what they were given
            out += 1
    assert torch.equal(x, x_before) and torch.equal(y, y_before)
    for again, before in zip(outputs(a, x, y), first, strict=True):
        assert torch.equal(again, before)


def test_gradients_after_inference_mode(case: Case) -> None:
    """What is kept from a first use in inference mode must not stop a gradient later."""
    a, x = case.make(), images(case)
    with torch.inference_mode():
        a(x)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(a(x).sum(), x)
    assert gradient.shape == x.shape and gradient.isfinite().all()


def test_shape_comes_from_y_alone(case: Case) -> None:
    y = case.make()(images(case))
    fresh = case.make()
    assert fresh.image_shape(y) == case.shape
    close(fresh.measured(y), y)


def test_device_and_pickle(case: Case) -> None:
    a, x = case.make(), images(case)
    y = a(x)
    close(a.to(torch.device("cpu"))(x), y)
    close(pickle.loads(pickle.dumps(a))(x), y)


def test_everything_happens_on_the_device_of_the_image(case: Case) -> None:
    """The meta device computes shapes only, and refuses to mix with the CPU as any accelerator does."""
    a = case.make()
    here, there = outputs(a, images(case), measurements(case)), torch.device("meta")
    moved = outputs(a, images(case).to(there), measurements(case).to(there))
    for one, other in zip(here, moved, strict=True):
        assert other.device == there and other.shape == one.shape and other.dtype == one.dtype


def test_sizes_do_not_mix() -> None:
    """One operator on images of several sizes, in any order, is an operator for each."""
    for make in (Downsampling, GaussianBlur, MotionBlur):
        shared = make()
        for size in ((8, 12), (12, 8), (8, 12), (4, 4)):
            x = noise(1, 2, *size)
            close(shared(x), make()(x))
            close(shared(x.float()).double(), make()(x.float()).double())


# -- errors ------------------------------------------------------------------------------------------------------------


def test_measurements_that_do_not_fit(case: Case) -> None:
    y = measurements(case)
    for bad in (y[..., None], y[0, 0], torch.zeros(2, 3, 4, 5, 6)):
        with pytest.raises(UsageError):
            case.make().image_shape(bad)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not isinstance(case.make(), Inpainting)])
def test_images_and_dtypes_that_cannot_be_used(name: str) -> None:
    case = CASES[name]
    with pytest.raises(UsageError, match="4 axes"):
        case.make()(images(case)[0])
    for dtype in (torch.int64, torch.float16):
        with pytest.raises(UsageError, match="convert the image first"):
            case.make()(images(case).to(dtype))
