"""VIPaint's own figures: what its levels expect of a picture, and how a fit goes on (Agarwal et al., Figs. 1 and 4)."""

from __future__ import annotations

import torch
from torch import Tensor

from ...diffusion.schedules import VP, Schedule
from ...errors import UsageError
from ...imaging.sheets import labelled_rows
from ...solvers.vipaint.posterior import Posterior
from .base import Drawn, Request, cells, figure, given, rounded


@figure("vipaint-levels", "VIPaint, Fig. 1", "iterations", "steps", "levels", "method")
def levels(request: Request) -> Drawn:
    """What VIPaint expects of a picture at T_e ... T_s, halfway through phase 2, and its inpaintings"""
    prior, examples, settings = request.prior, request.examples, request.settings
    method, count = request.vipaint(), settings.samples or 3
    if method.corrected:
        raise UsageError(
            "vipaint-levels follows the path to a sample, and correct has particles instead; leave it out."
        )
    request.report(0, 2, "fitting")
    posterior = method.fit(prior, examples.operator, examples.y, seed=settings.seed)
    request.report(1, 2, "sampling")
    expected = posterior.expectations(1, seed=settings.seed)[:, 0]
    halfway = _Halfway()
    samples = posterior.sample(count, seed=settings.seed, callback=halfway)
    # The rows of a report are (picture, sample); the column shows the way to the first sample.
    x_0 = halfway.estimate.reshape(*samples.shape[:2], *halfway.estimate.shape[1:])[:, 0]
    with torch.no_grad():
        middle = prior.decode(x_0).float()
    request.report(2, 2, "drawn")
    times = method.ladder(posterior.prior).levels
    names = [_level_name(prior.schedule, t, i, len(times)) for i, t in enumerate(times)]
    inpaintings = [f"inpainting {i + 1}" for i in range(count)]
    rows = [
        given(examples, row)
        + cells(names, expected[row])
        + cells([f"phase 2,\n{halfway.step} of {halfway.total}"], middle[row, None])
        + cells(inpaintings, samples[row])
        for row in range(len(samples))
    ]
    numbers = {
        "levels": [_level(prior.schedule, t) for t in times],
        "error_at_levels": rounded(examples.error(expected)),
        "error_halfway": rounded(examples.error(middle[:, None])[:, 0]),
        "error": rounded(examples.error(samples)),
        "losses": {name: rounded(value) for name, value in posterior.losses._asdict().items()},
        "objective": rounded(posterior.objective),
    }
    return Drawn(labelled_rows(rows), numbers)


@figure("vipaint-progress", "VIPaint, Fig. 4", "iterations", "steps", "levels", "every", "method")
def progress(request: Request) -> Drawn:
    """Samples of VIPaint after every so many iterations of one fit, with the same noise"""
    examples, settings = request.examples, request.settings
    method, count = request.vipaint(), settings.samples or 1
    stops = settings.stops(method.rules.iterations)
    kept: dict[int, Posterior] = {}

    def watch(iteration: int, posterior: Posterior) -> None:
        if iteration in stops:
            kept[iteration] = posterior

    request.report(0, 1 + len(stops), "fitting")
    posterior = method.fit(request.prior, examples.operator, examples.y, seed=settings.seed, watch=watch)
    drawn = []
    for done, stop in enumerate(stops):
        request.report(1 + done, 1 + len(stops), f"sampling after {stop} iterations")
        drawn.append(kept[stop].sample(count, seed=settings.seed))
    samples = torch.stack(drawn, 2)  # (B, n, stops, C, H, W)
    request.report(1 + len(stops), 1 + len(stops), "drawn")
    names = ["start", *(f"{stop} iterations" for stop in stops[1:])]
    rows = [given(examples, row) + cells(names, samples[row, i]) for row in range(len(samples)) for i in range(count)]
    numbers = {
        "iterations": stops,
        "error": rounded(torch.stack([examples.error(each) for each in drawn], 2)),
        "objective": rounded(posterior.objective),
        "bound": rounded(posterior.losses.total()),
    }
    return Drawn(labelled_rows(rows), numbers)


class _Halfway:
    """A callback that keeps the estimate of x_0 in the middle of phase 2, with its step."""

    def __init__(self) -> None:
        self.step = self.total = 0
        self.estimate = torch.empty(0)

    def __call__(self, step: int, total: int, x_0: Tensor) -> None:
        if step == max(1, total // 2):
            self.step, self.total, self.estimate = step, total, x_0


def _index(schedule: Schedule, t: Tensor) -> int | None:
    """The entry of the table of betas that a time is, as papers count; None in other schedules."""
    if not isinstance(schedule, VP):
        return None
    return int((schedule.nsr().log() - schedule.log_nsr(t)).abs().argmin())


def _level(schedule: Schedule, t: Tensor) -> dict[str, float | int | None]:
    ratio = float(schedule.log_nsr(t).exp())
    return {"t": float(t), "sigma_over_alpha": float(f"{ratio:.6g}"), "index": _index(schedule, t)}


def _level_name(schedule: Schedule, t: Tensor, i: int, count: int) -> str:
    """T_e, T_s or a number, with what a paper would say of the level: its index in a table, else sigma / alpha."""
    level = _level(schedule, t)
    name = "T_s" if i == count - 1 else "T_e" if i == 0 else f"level {i + 1}"
    where = f"sigma/alpha {level['sigma_over_alpha']:.3g}" if level["index"] is None else f"t = {level['index']}"
    return f"E at {name},\n{where}"
