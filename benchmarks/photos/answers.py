"""What a method makes of a hidden picture, and what that costs."""

from __future__ import annotations

import argparse
import ast
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.baselines import CLASSICAL
from benchmarks.photos.pictures import composed, to_bytes, to_tensor
from priorpaint.diffusion.rng import derive
from priorpaint.imaging import mask_generators as masks
from priorpaint.inpainting.coarse_to_fine import weight
from priorpaint.operators import Inpainting
from priorpaint.priors.base import Denoising, Prior
from priorpaint.priors.wrapped import WrappedPrior
from priorpaint.solvers import Cost

# The method name that stands for the default of priorpaint.inpaint; "default/NAME" is the main job with another method.
MAIN_JOB = "default"


@dataclass(frozen=True)
class Method:
    """A solver with its settings, as the command line names it: ``name[:key=value,...]``."""

    label: str
    name: str
    settings: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> Method:
        name, _, rest = text.partition(":")
        settings = {}
        for part in filter(None, rest.split(",")):
            key, equals, value = part.partition("=")
            if not equals:
                raise argparse.ArgumentTypeError(f"{part!r} in {text!r} is not key=value")
            settings[key.strip()] = _literal(value.strip())
        return cls(text, name, settings)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


class MeteredPrior(WrappedPrior):
    """The same prior, which also counts ``work``: network evaluations x pixels, one with a gradient as three."""

    def __init__(self, inner: Prior) -> None:
        super().__init__(inner)
        self._seen, self._area, self._work = inner.nfe.copy(), 0, 0.0

    def evaluate(self, x_t: Tensor, t: Tensor | float, given: Mapping[str, Tensor] | None = None) -> Denoising:
        self._settle()  # a method may add backward passes of the last call until now
        self._area = x_t.shape[2] * x_t.shape[3]
        return self.inner.evaluate(x_t, t, given)

    @property
    def work(self) -> float:
        """Pixels so far."""
        self._settle()
        return self._work

    def _settle(self) -> None:
        spent, self._seen = self.nfe - self._seen, self.nfe.copy()
        self._work += weight(Cost(spent.forward, spent.backward)) * self._area


def metered(prior: WrappedPrior) -> MeteredPrior:
    """Put a meter around the innermost prior, in its place."""
    while isinstance(prior.inner, WrappedPrior):
        prior = prior.inner
    prior.inner = meter = MeteredPrior(prior.inner)
    return meter


@dataclass
class Answer:
    """What one method made of one hole, and the price of all its samples.

    Attributes:
        samples: (n, 3, H, W), rounded as bytes are.
        seconds: of the clock.
        cpu_seconds: of all threads.
        prepare_seconds: of all threads, before: plans, and what a prior learns of the picture.
        forward, backward: network evaluations without and with a gradient.
        work: pixels that they looked at, see `MeteredPrior`.
    """

    samples: Tensor
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    prepare_seconds: float = 0.0
    forward: int = 0
    backward: int = 0
    work: float = 0.0

    @property
    def mean(self) -> Tensor:
        """(1, 3, H, W)."""
        return self.samples.mean(dim=0, keepdim=True)


def classical_answer(name: str, x: Tensor, known: masks.Mask, num: int, seed: int) -> Answer:
    """One of the classical programs: ``num`` fills where it listens to a seed, or one.

    The hidden pixels are black in what it gets.
    """
    program, picture = CLASSICAL[name], np.where(known[..., None], to_bytes(x[0]), 0).astype(np.uint8)
    seeds = [derive("classical", seed, i) % 2**31 for i in range(num if program.seeded else 1)]
    with _timed() as price:
        filled = [program.fill(picture.copy(), known, one) for one in seeds]
    samples = composed(torch.cat([to_tensor(one) for one in filled]), x, known)
    return Answer(samples, price.seconds, price.cpu_seconds)


def solver_answer(
    method: Method, prior: Prior, x: Tensor, known: masks.Mask, num: int, seed: int, batch_size: int | None
) -> Answer:
    """``num`` samples of a solver at full scale."""
    from priorpaint.solvers import solver

    meter = MeteredPrior(prior)
    operator = Inpainting(torch.from_numpy(known)[None, None]).to(prior.device)
    y = operator(x.to(prior.device))
    runner, before = solver(method.name, **method.settings), prior.nfe.copy()
    with _timed() as price:
        drawn = runner.sample(meter, operator, y, num_samples=num, seed=seed, batch_size=batch_size)[0].cpu()
    samples = composed(torch.cat([to_tensor(to_bytes(sample)) for sample in drawn]), x, known)
    spent = prior.nfe - before
    return Answer(samples, price.seconds, price.cpu_seconds, 0.0, spent.forward, spent.backward, meter.work)


def main_job_answer(
    method: Method, prior: Prior, x: Tensor, known: masks.Mask, num: int, seed: int, batch_size: int | None
) -> Answer:
    """``num`` completions as ``priorpaint.inpaint`` makes them: windows, coarse to fine."""
    from priorpaint.inpainting.api import plan

    name = method.name.partition("/")[2] or None
    with _timed() as preparation:
        ready = plan(to_bytes(x[0]), ~known, prior, name, num, seed, batch_size=batch_size, **method.settings)
    assert isinstance(ready.prior, WrappedPrior)  # as every run can be cancelled
    meter = metered(ready.prior)  # of the prior that runs, which may not be the one that was given
    with _timed() as price:
        result = ready.run()
    samples = torch.cat([to_tensor(np.asarray(image)) for image in result.images])
    nfe = result.info["nfe"]
    times = price.seconds, price.cpu_seconds, preparation.cpu_seconds
    return Answer(samples, *times, nfe["forward"], nfe["backward"], meter.work)


def answer_of(
    method: Method, prior: Prior, x: Tensor, known: masks.Mask, num: int, seed: int, batch_size: int | None
) -> Answer:
    """The main job's answer where the method is named so, or a solver's."""
    run = main_job_answer if method.name.partition("/")[0] == MAIN_JOB else solver_answer
    return run(method, prior, x, known, num, seed, batch_size)


def warm_up(prior: Prior | None) -> None:
    """Import and start what the first call of each program and of the prior would be billed for."""
    known = masks.box(32, 8)
    for program in CLASSICAL.values():
        program.fill(np.zeros((32, 32, 3), dtype=np.uint8), known, 0)
    if prior is not None:
        with prior.nfe.uncounted(), torch.no_grad():
            prior.denoise(torch.zeros(1, 3, 64, 64, device=prior.device), 0.5)


@dataclass
class _Price:
    """Seconds of the clock, and of all threads."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextmanager
def _timed() -> Iterator[_Price]:
    """The price of what happens inside, once that is done."""
    price, started, cpu_started = _Price(), time.perf_counter(), time.process_time()
    yield price
    price.seconds, price.cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
