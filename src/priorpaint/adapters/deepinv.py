"""deepinv, both ways: its physics and denoisers as operators and priors here, priors and solvers here as its models.

deepinv's pictures lie in [0, 1] and ours in [-1, 1]: x' = 2 x - 1. So y = A x + sigma n is y' = A x' + sigma' n with
y' = 2 y - A 1 and sigma' = 2 sigma, and a denoiser at sigma is one at 2 sigma. Only this module converts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diffusion.schedules import EDM, Schedule
from ..diffusion.transitions import like
from ..errors import MissingExtra, UsageError
from ..operators import Inpainting, LinearOperator
from ..operators.matrix import MatrixOperator
from ..operators.spectral import Basis, Shape, SpectralOperator, without_small
from ..priors import DenoiserPrior, Prior
from ..solvers import Solver, solver
from ..solvers.krylov import conjugate_gradients, dot

try:
    import deepinv
except ImportError:
    raise MissingExtra("this adapter needs deepinv; run: pip install deepinv") from None

_DENSE = 1024  # values of a picture up to which any A is written down as a matrix
_ITERATIONS, _BLOCK = 100, 20  # of conjugate gradients: at most, and between two looks at what is left
_SMOOTH = 1e-2  # of a first guess, of the square of the largest singular value
_RTOL = 1e-6  # singular values below this times the largest are 0
_AGREES = 1e-3  # relative error up to which a decomposition is believed
_POWER_STEPS = 30


class PriorDenoiser(deepinv.models.Denoiser):  # type: ignore[misc]
    """A prior as a denoiser of deepinv: E[x | x + sigma n] for pictures in [0, 1], differentiable.

    Args:
        prior: a pixel prior. Noise levels outside of its schedule are taken as the nearest one inside.

    Raises:
        UsageError: a latent prior.
    """

    def __init__(self, prior: Prior) -> None:
        super().__init__(device=prior.device)
        if prior.latent:
            raise UsageError(f"{prior.name} denoises latents, which deepinv has no place for; take a pixel prior.")
        self.prior = prior

    def forward(self, x: Tensor, sigma: float | Tensor, **_: Any) -> Tensor:
        """Pictures (B, C, H, W) in about [0, 1] with noise of ``sigma``, a number or (B,), denoised."""
        schedule = self.prior.schedule
        nsr = 2 * self._handle_sigma(sigma, batch_size=len(x)).detach().cpu().double()
        t = schedule.time_at(nsr.clamp(*schedule.nsr_range))
        x_t = like(schedule.alpha(t), x) * (2 * x - 1)
        return (self.prior.denoise(x_t, t) + 1) / 2


class SolverReconstructor(deepinv.models.Reconstructor):  # type: ignore[misc]
    """A prior and a method as a reconstructor of deepinv: ``model(y, physics)`` is the mean of posterior samples.

    Args:
        prior: the prior.
        method: a key of ``priorpaint.SOLVERS``, or a solver.
        num_samples: how many samples the mean is of; 1 is a sample itself.
        seed: of the samples.
        settings: of the method.

    Raises:
        UsageError: no such method or setting.
    """

    def __init__(
        self, prior: Prior, method: str | Solver = "ddnm", num_samples: int = 1, seed: int = 0, **settings: Any
    ) -> None:
        super().__init__(device=prior.device)
        self.prior, self.num_samples, self.seed = prior, num_samples, seed
        self.solver = solver(method, **settings) if isinstance(method, str) else method

    def sample(self, y: Tensor, physics: Any) -> Tensor:
        """Posterior samples (B, num_samples, C, H, W) in about [0, 1] of what ``physics`` measured as y (B, ...).

        Raises:
            UsageError: a physics that is not linear, or what the method does not solve.
        """
        operator, measured, sigma_y = problem(physics, y)
        samples = self.solver.sample(
            self.prior, operator, measured, sigma_y=sigma_y, num_samples=self.num_samples, seed=self.seed
        )
        return (samples + 1) / 2

    def forward(self, y: Tensor, physics: Any, **_: Any) -> Tensor:
        """The mean of the samples, (B, C, H, W)."""
        return self.sample(y, physics).mean(1)


def prior_of(denoiser: Any, shape: tuple[int, int | None, int | None], schedule: Schedule | None = None) -> Prior:
    """A denoiser of deepinv as a prior.

    Args:
        denoiser: ``denoiser(x, sigma)``, of pictures in [0, 1].
        shape: (C, H, W) of the pictures; None is any size.
        schedule: noise levels that it knows, in units of [-1, 1], twice those of [0, 1]; None is EDM's.
    """
    levels = schedule or EDM()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = levels.alpha(t), levels.sigma(t)
        x: Tensor = denoiser((x_t / like(alpha, x_t) + 1) / 2, (sigma / alpha / 2).to(x_t))
        return 2 * x - 1

    return DenoiserPrior(denoise, levels, shape, name=type(denoiser).__name__)


def problem(physics: Any, y: Tensor) -> tuple[LinearOperator, Tensor, float]:
    """(operator, y', sigma_y') of a measurement y (B, ...) of deepinv, for pictures in [-1, 1].

    The operator is by the first that works: our own `Inpainting`, for a mask of pixels; the singular value
    decomposition of a ``DecomposablePhysics``; a matrix, for pictures of up to 1024 values; conjugate gradients.
    sigma_y' is from a Gaussian noise model, else 0.

    Raises:
        UsageError: ``physics`` is not linear, has parameters for each image of a batch, or a noise level for each.
    """
    if not isinstance(physics, deepinv.physics.LinearPhysics):
        raise UsageError(f"{type(physics).__name__} is not a linear physics of deepinv; give one that is.")
    with torch.no_grad():
        shape: Shape = tuple(physics.A_adjoint(y).shape[1:])
        if len(shape) != 3:
            raise UsageError(f"pictures have the axes (C, H, W), and this physics measures ones of shape {shape}.")
        measured = 2 * y - physics.A(torch.ones(len(y), *shape, dtype=y.dtype, device=y.device))
    operator = _operator(physics, shape, y)
    if isinstance(operator, MatrixOperator):
        measured = measured.flatten(1)
    sigmas = {float(sigma) for sigma in torch.as_tensor(getattr(physics.noise_model, "sigma", 0.0)).flatten()}
    if len(sigmas) != 1:
        raise UsageError("the noise has another level for each image; reconstruct those of a level together.")
    return operator, measured, 2 * sigmas.pop()


def _operator(physics: Any, shape: Shape, y: Tensor) -> LinearOperator:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, *shape, generator=generator).to(y)
    try:
        expected = physics.A(x)
    except RuntimeError:  # it has a mask or a kernel for each image
        expected = None
    if expected is None or len(expected) != 1:
        raise UsageError("this physics has parameters for each image of a batch; give one image at a time.")
    if isinstance(physics, deepinv.physics.Inpainting):
        known = physics.mask.expand(1, *shape)[0]
        if bool(((known == known[:1]) & ((known == 0) | (known == 1))).all()):
            return Inpainting(known[0])
    if isinstance(physics, deepinv.physics.DecomposablePhysics):
        decomposed = DecomposedPhysics(physics, shape)
        if _holds(decomposed, x, expected):
            return decomposed
    if math.prod(shape) <= _DENSE:
        columns = torch.eye(math.prod(shape), dtype=y.dtype, device=y.device).reshape(-1, *shape)
        with torch.no_grad():
            return MatrixOperator(torch.cat([physics.A(one[None]) for one in columns]).flatten(1).T, shape)
    return IterativePhysics(physics, shape)


def _holds(operator: DecomposedPhysics, x: Tensor, expected: Tensor) -> bool:
    """Whether a decomposition gives A, A^+ and (A A^T + I)^-1; deepinv's own need no more than A and A^T."""
    try:
        made = operator(x)
        solved = operator.solve(made, 1.0)
        pairs = (
            (made, expected),
            (operator(operator.pinv(made)), made),
            (operator(operator.adjoint(solved)) + solved, made),
        )
        return all(float((a - b).norm()) <= _AGREES * float(b.norm()) for a, b in pairs)
    except (RuntimeError, NotImplementedError, TypeError, ValueError):
        return False


class DecomposedPhysics(SpectralOperator):
    """A ``DecomposablePhysics`` of deepinv, with its U, V and singular values, for pictures (C, H, W) of one shape."""

    title = "a decomposable physics of deepinv"

    def __init__(self, physics: Any, shape: Shape) -> None:
        self.physics, self.shape = physics, shape
        with torch.no_grad():
            one = physics.V_adjoint(torch.zeros(1, *shape, device=physics.device))
        self._coefficients: tuple[int, ...] = tuple(one.shape[1:])
        values = torch.as_tensor(physics.mask, device=one.device)
        self._values = without_small(values.detach().real.expand(one.shape).reshape(1, 1, 1, -1), _RTOL)

    def image_shape(self, y: Tensor) -> Shape:
        return self.shape

    def norm(self) -> float:
        """The largest singular value."""
        return float(self._values.abs().amax())

    def _basis(self, shape: Shape, like: Tensor) -> Basis:
        physics = self.physics

        def flat(z: Tensor) -> Tensor:
            return z.reshape(len(z), 1, 1, -1)

        def full(z: Tensor) -> Tensor:
            return z.reshape(len(z), *self._coefficients)

        return Basis(
            self._values.to(like),
            left=lambda z: physics.U(full(z)),
            left_t=lambda y: flat(physics.U_adjoint(y)),
            right=lambda z: physics.V(full(z)),
            right_t=lambda x: flat(physics.V_adjoint(x)),
        )


@dataclass
class IterativePhysics(LinearOperator):
    """Any linear physics of deepinv: A and A^T are its own, ``solve`` and ``pinv`` take conjugate gradients.

    Without a singular value decomposition there is no ``filter``: methods that work in the singular basis say so.
    """

    title = "a linear physics of deepinv"

    physics: Any
    shape: Shape
    iterations: int = _ITERATIONS

    def __post_init__(self) -> None:
        x = torch.randn(1, *self.shape, generator=torch.Generator().manual_seed(0)).to(self.physics.device)
        with torch.no_grad():
            for _ in range(_POWER_STEPS):
                x = self.physics.A_adjoint(self.physics.A(x / x.norm()))
        self._norm = math.sqrt(float(x.norm()))

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self.physics.A(x)
        return y

    def image_shape(self, y: Tensor) -> Shape:
        return self.shape

    def adjoint(self, y: Tensor) -> Tensor:
        x: Tensor = self.physics.A_adjoint(y)
        return x

    def pinv(self, y: Tensor) -> Tensor:
        return self.adjoint(self.solve(y, 0.0))

    def solve(self, r: Tensor, c: float | Tensor) -> Tensor:
        added = torch.as_tensor(c, dtype=r.dtype, device=r.device).clamp(min=_RTOL * self._norm**2).expand(len(r))

        def apply(u: Tensor) -> tuple[Tensor, Tensor]:
            return self(self.adjoint(u)) + like(added, u) * u, u

        u, rest, size = torch.zeros_like(r), r, dot(r, r)
        for _ in range(0, self.iterations, _BLOCK):  # begun anew, to see which rows are done
            left = dot(rest, rest) > _RTOL**2 * size
            if not bool(left.any()):
                break
            u = torch.where(like(left, u) > 0, u + conjugate_gradients(apply, rest, _BLOCK)[0], u)
            rest = r - apply(u)[0]
        return u

    def guess(self, y: Tensor) -> Tensor:
        """A^T (A A^T + c I)^-1 y, which the noise of y does not swamp as it does A^+ y."""
        return self.adjoint(self.solve(y, _SMOOTH * self._norm**2))

    def filter(self, x: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        raise UsageError(
            f"{type(self.physics).__name__} has no singular value decomposition at this size, which this method needs; "
            "take dps, pigdm, mmps or diffpir."
        )

    def norm(self) -> float:
        """The largest singular value, by power iteration."""
        return self._norm
