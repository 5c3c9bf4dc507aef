"""One cell: a method draws samples of one problem; fit and sampling are timed apart, and the raw samples are stored."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..batch.runner import Item, Save, Step
from ..diffusion.rng import Streams, derive
from ..errors import PriorError, PriorpaintError
from ..imaging.mask_kinds import draw_mask
from ..imaging.writing import make_folder, write_array_atomic, write_text_atomic
from ..inpainting.coarse_to_fine import weight
from ..inpainting.levels import MAX_AREA_GRADIENT
from ..operators import Inpainting, Operator
from ..priors import CFGPrior
from ..priors.base import Prior
from ..solvers import Solver
from ..solvers.base import Callback, Problem
from .peak import peak_memory
from .pictures import digest_of, prepared
from .plan import CellCase, Plan, ProblemCase, solver_of

PROBLEMS, CELLS, SAMPLES = "problems", "cells", "samples.npy"
TRUTH, MASK, MEASUREMENT, ABOUT = "truth.npy", "mask.npy", "y.npy", "problem.json"
# Seeds stay below this, so that every JSON reader gets them exactly.
_SEEDS = 2**48

Floats = NDArray[np.float32]


def mask_seed(case: ProblemCase) -> int:
    """The seed of a problem's mask: it belongs to kind, picture and seed, and to nothing else in the grid."""
    return derive("bench mask", case.condition.mask or "", case.picture.digest, case.seed) % _SEEDS


def fit_seed(case: ProblemCase) -> int:
    """The seed of what the samples of a problem share (`Solver.condition`)."""
    return derive("bench fit", case.key) % _SEEDS


def sample_seed(case: ProblemCase) -> int:
    """The seed of a problem's samples (`PosteriorSampler.draw`), the same for every method."""
    return derive("bench sample", case.key) % _SEEDS


@dataclass(frozen=True, eq=False)
class Measured:
    """A problem as it is stored.

    Attributes:
        truth: (C, H, W) in [-1, 1].
        known: (H, W), bool; None without a mask.
        y: the measurement, without an axis for images.
    """

    truth: Floats
    known: NDArray[np.bool_] | None
    y: Floats

    @staticmethod
    def of(case: ProblemCase, truth: Tensor) -> Measured:
        """A x + sigma_y n for the truth (C, H, W), with mask and noise of the problem's own seeds.

        Raises:
            UsageError: no mask of this kind and size can be drawn.
        """
        kind = case.condition.mask
        known = None if kind is None else draw_mask(kind, (truth.shape[1], truth.shape[2]), mask_seed(case))
        operator = _operator(case, known)
        y = operator(truth[None])
        if case.condition.sigma_y > 0:
            noise = Streams([derive("bench noise", case.key)]).normal(*y.shape[1:])
            y = operator.measured(y + case.condition.sigma_y * noise)
        return Measured(truth.numpy(), known, y[0].numpy())

    @staticmethod
    def read(folder: Path) -> Measured:
        """What `write` left in a folder."""
        mask = folder / MASK
        known = np.load(mask, allow_pickle=False) if mask.exists() else None
        arrays = (np.load(folder / name, allow_pickle=False) for name in (TRUTH, MEASUREMENT))
        truth, y = arrays
        return Measured(truth, known, y)

    def write(self, folder: Path, case: ProblemCase) -> None:
        """Into a folder, problem.json last: where it is, the rest is complete."""
        make_folder(folder)
        write_array_atomic(folder / TRUTH, self.truth)
        write_array_atomic(folder / MEASUREMENT, self.y)
        if self.known is not None:
            write_array_atomic(folder / MASK, self.known)
        about = {"picture": case.picture.name, **case.condition.model_dump(), "seed": case.seed}
        write_text_atomic(folder / ABOUT, json.dumps(about, indent=1) + "\n")


@dataclass
class Timed:
    """Seconds and network evaluations of a part of a cell."""

    seconds: float = 0.0
    nfe_forward: int = 0
    nfe_backward: int = 0


@dataclass
class Bench:
    """What the cells of a plan share.

    Attributes:
        plan: what to run.
        prior: its prior, under no condition.
        folder: of the store.
        images: the folder of the pictures.
        batch_size: rows (image, sample) computed together; None is what the size of the pictures suggests.
    """

    plan: Plan
    prior: Prior
    folder: Path
    images: Path
    batch_size: int | None = None
    _conditioned: tuple[int | None, Prior] | None = field(default=None, init=False)
    _measured: tuple[str, Measured] | None = field(default=None, init=False)

    def items(self) -> Iterator[Item]:
        """Every cell as an item, made when its turn comes."""
        for case in self.plan.cells():
            yield Item(case.key, case.about, case)

    def run(self, case: CellCase, step: Step) -> tuple[dict[str, Any], Save]:
        """Compute one cell (a `batch.runner.Work`)."""
        prior = self._prior(case.problem.picture.label)
        measured = self._problem(case.problem)
        operator = _operator(case.problem, measured.known).to(prior.device)
        y = torch.from_numpy(measured.y)[None].to(prior.device)
        problem = Problem(prior, operator, y, case.problem.condition.sigma_y)
        num_samples, rows = self.plan.samples, self.batch_size or rows_of(self.plan)
        with peak_memory(prior.device) as peak:
            samples, fit, sampling = draw(solver_of(case.method), problem, case.problem, num_samples, rows, step)
        if not np.isfinite(samples).all():
            raise PriorError(f"{case.method.label} gave values that are not numbers; use other settings.")
        record = {
            "num_samples": num_samples,
            "fit": vars(fit),
            "sampling": vars(sampling),
            "peak_bytes": peak.bytes,
        }
        return record, lambda: self._save(case.key, samples)

    def _save(self, key: str, samples: Floats) -> None:
        folder = self.folder / CELLS / key
        make_folder(folder)
        write_array_atomic(folder / SAMPLES, samples)

    def _prior(self, label: int | None) -> Prior:
        """The prior under a label; the last one is kept, as pictures of a class come together."""
        if self._conditioned is None or self._conditioned[0] != label:
            ready = self.prior if label is None else CFGPrior(self.prior, label=label, scale=self.plan.prior.guidance)
            self._conditioned = (label, ready)
        return self._conditioned[1]

    def _problem(self, case: ProblemCase) -> Measured:
        """The stored problem, which is made where it is not there yet; the last one is kept for the next method."""
        if self._measured is None or self._measured[0] != case.key:
            folder = self.folder / PROBLEMS / case.key
            if not (folder / ABOUT).exists():
                truth = prepared(self.images / case.picture.name, self.plan.shape)
                if digest_of(truth) != case.picture.digest:
                    raise PriorpaintError(f"{case.picture.name} has changed since the run began; start it again.")
                Measured.of(case, truth).write(folder, case)
            self._measured = (case.key, Measured.read(folder))
        return self._measured[1]


def rows_of(plan: Plan) -> int:
    """Rows (image, sample) that are computed together where nobody says how many."""
    _, height, width = plan.shape
    return max(1, MAX_AREA_GRADIENT // (height * width))


def draw(
    solver: Solver, problem: Problem, case: ProblemCase, num_samples: int, rows: int, step: Step = lambda share: None
) -> tuple[Floats, Timed, Timed]:
    """Samples (n, C, H, W) as the solver gives them, and what fit and sampling took.

    Sample i does not depend on ``rows``, of which so many are computed together.
    """
    fit, sampling = Timed(), Timed()
    done = weight(solver.shared_cost()) / weight(solver.cost(num_samples))
    with _timed(problem.prior, fit) if solver.fits else nullcontext():
        sampler = solver.condition(problem, seed=fit_seed(case), batch_size=rows, callback=_progress(step, 0, done))
    with _timed(problem.prior, sampling):
        rest = _progress(step, done, 1 - done)
        out = sampler.draw(num_samples, seed=sample_seed(case), batch_size=rows, callback=rest)
        samples: Floats = out.detach().float().cpu().contiguous().numpy()
    return samples, fit, sampling


@contextmanager
def _timed(prior: Prior, part: Timed) -> Iterator[None]:
    before, begun = prior.nfe.copy(), time.perf_counter()
    yield
    if prior.device.type == "cuda":
        torch.cuda.synchronize(prior.device)
    spent = prior.nfe - before
    part.seconds = time.perf_counter() - begun
    part.nfe_forward, part.nfe_backward = spent.forward, spent.backward


def _progress(step: Step, begun: float, part: float) -> Callback:
    """A solver's callback: ``part`` of the cell, from the share ``begun`` on."""

    def callback(done: int, total: int, x_0: Tensor) -> None:
        step(min(begun + part * done / total, 1.0))

    return callback


def _operator(case: ProblemCase, known: NDArray[np.bool_] | None) -> Operator:
    return case.condition.made() if known is None else Inpainting(torch.from_numpy(known))
