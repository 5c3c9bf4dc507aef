"""The time that is left: right within 20 % after a tenth of the work, whatever a call costs; by a scripted clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import Tensor

from priorpaint import DenoiserPrior, plan, schedules
from priorpaint.inpainting import forecast, job
from priorpaint.inpainting.events import Step
from priorpaint.inpainting.forecast import Forecast
from priorpaint.solvers.vipaint import VIPaint


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


def scripted_prior(clock: Clock, call: float, pixel: float) -> DenoiserPrior:
    """A prior whose calls take seconds of the clock: some each and for each pixel, three times as many with a gradient,
    twice as many where the size is new; and the first of all 30 s more."""
    sizes: set[tuple[int, ...]] = set()

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        size = tuple(x_t.shape[2:])
        seconds = len(x_t) * (call + pixel * size[0] * size[1])
        clock.now += seconds * (3 if x_t.requires_grad else 1) + (0 if size in sizes else seconds)
        clock.now += 0 if sizes else 30
        sizes.add(size)
        return 0.5 * x_t

    return DenoiserPrior(denoise, schedules.EDM(), (3, None, None), name="scripted")


FIT = VIPaint(preset="exact", levels=1, iterations=6, mc_samples=1, refine_steps=6, top_steps=4, fill_steps=0)


@pytest.mark.parametrize("name", ["default", "timed before", "fit"])
def test_time_left_is_right_after_a_tenth_and_the_share_never_falls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of several sizes and scales, and four samples; calls cost most for their pixels or, where they were timed
    before, by themselves.
    """
    timed = name == "timed before"
    clock = Clock()
    monkeypatch.setattr(forecast, "time", clock)
    monkeypatch.setattr(job, "time", clock)
    hole = np.zeros((48, 320), dtype=bool)
    hole[20:24, 5:25], hole[20:44, 266:312] = True, True
    image = np.full((48, 320, 3), 100, dtype=np.uint8)
    prior = scripted_prior(clock, 2.0 if timed else 0.1, 3e-5)
    ready = plan(image, hole, prior, FIT if name == "fit" else None, batch_size=1)
    assert len({(box["scale"], *box["box"][2:]) for box in ready.windows}) > 1
    if timed:
        ready.seconds()
    told: list[tuple[float, float | None, float]] = []

    def hear(event: Any) -> None:
        if isinstance(event, Step):
            told.append((event.done / event.total, event.seconds_left, clock.now))

    result = ready.run(hear)
    assert result.info["nfe"] == {"forward": ready.cost.forward, "backward": ready.cost.backward}
    shares = [share for share, _, _ in told]
    assert shares == sorted(shares) and shares[-1] == 1
    assert told[-1][1] == pytest.approx(0, abs=1e-6)
    late = [(left, clock.now - now) for share, left, now in told if 0.1 <= share < 1]
    assert len(late) > 10
    for left, truth in late:
        assert left == pytest.approx(truth, rel=0.2, abs=0.5)


def test_a_speed_of_its_own_for_each_kind_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(forecast, "time", clock)
    run = Forecast({"small": 4.0, "large": 4.0})
    assert run.seconds_left() is None and run.share == 0
    for seconds, kind, left in [
        (9, "small", None),
        (2, "small", 2 * 2 + 4 * 2),
        (70, "large", 12 - 2),
        (3, "large", 2 * 2 + 2 * 3),
    ]:
        clock.now += seconds
        run.step(kind, 1.0)
        assert run.seconds_left() == left
    assert run.share == 0.5
