"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, Task, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text
from typing_extensions import Self

from priorpaint.errors import printable

if TYPE_CHECKING:
    from priorpaint.batch import Event
    from priorpaint.training.loop import Report

_PLAIN_SECONDS, _TRAINING_SECONDS, _GRID_SECONDS = 10.0, 30.0, 60.0


class _TimeLeft(TimeRemainingColumn):
    """Counts down from what was estimated last, where something was (field ``ends`` of the task); else as rich does."""

    def render(self, task: Task) -> Text:
        ends = task.fields.get("ends")
        if ends is None:
            return super().render(task)
        return Text(clock(max(0.0, ends - time.monotonic())), style="progress.remaining")


class _Shown:
    """A bar on a terminal, with room for sentences above it; sentences alone elsewhere."""

    def __init__(self, description: str, total: float | None, *, quiet: bool) -> None:
        self.quiet, self.console = quiet, Console(stderr=True, highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            _TimeLeft(),
        )
        self._bar = Progress(*columns, console=self.console, disable=quiet or not self.console.is_terminal)
        self._task = self._bar.add_task(description, total=total)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, sentence: str) -> None:
        """One line, above the bar where there is one."""
        self.console.print(printable(sentence), markup=False)


class Display(_Shown):
    """What the user sees while completions are drawn.

    Args:
        samples: how many completions.
        quiet: whether to show no progress.
        what: what is drawn.
    """

    def __init__(self, samples: int, *, quiet: bool, what: str = "completions") -> None:
        self.samples, self.finished, self.what = samples, 0, what
        self._share, self._last = 0.0, time.monotonic()
        self._ends: float | None = None
        super().__init__(self._words(), 1.0, quiet=quiet)

    def step(self, share: float, seconds_left: float | None) -> None:
        """A step of the solver is done, and with it this share of the work, which never falls."""
        self._share = max(self._share, share)
        self._ends = None if seconds_left is None else time.monotonic() + seconds_left
        self._bar.update(self._task, completed=self._share, ends=self._ends)
        if time.monotonic() - self._last >= _PLAIN_SECONDS:
            self._line()

    def sample(self, count: int = 1) -> None:
        """One more completion, or some, are finished."""
        self.finished += count
        self._bar.update(self._task, description=self._words())
        self._line()

    def _line(self) -> None:
        if self.quiet or self.console.is_terminal:
            return
        self._last = time.monotonic()
        ends = None if self._share == 1 else self._ends
        left = "" if ends is None else f"  {duration(max(0.0, ends - self._last))} left"
        # Rounded down: 100 % is said of what is over.
        self.say(f"{math.floor(100 * self._share):3d}%  {self._words()}{left}")

    def _words(self) -> str:
        return f"{self.finished} of {self.samples} {self.what}"


class CellDisplay(_Shown):
    """What the user sees while a table is computed: a bar on a terminal, a line a cell elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self.done = self.total = 0
        super().__init__("starting", None, quiet=quiet)

    def advance(self, done: int, total: int, sentence: str) -> None:
        """``done`` of ``total`` cells are finished; the sentence is about the last."""
        self.done, self.total = done, total
        self._bar.update(self._task, completed=done, total=total, description=f"{done} of {total} cells")
        if not self.quiet:
            self.say(f"{done}/{total} {sentence}")


class GridDisplay(_Shown):
    """What the user sees of a benchmark: a bar with the time left, or a line a minute; failures in any case.

    Args:
        cells: how many the plan has.
        work: of a cell, in any unit, by method and operator.
        left: work that is to be done.
    """

    def __init__(self, cells: int, work: Mapping[tuple[str, str], float], left: float, *, quiet: bool) -> None:
        self.cells, self.finished, self.failed = cells, 0, 0
        self._work, self._left, self._done = work, left, 0.0
        self._shares: dict[str, float] = {}
        self._begun = self._last = time.monotonic()
        super().__init__(self._words(), 1.0, quiet=quiet)

    def __call__(self, event: Event) -> None:
        """An event of the run."""
        about, key = event.item.about, event.item.key
        work = self._work[about["method"], about["operator"]]
        if event.kind in ("kept", "done"):
            self.finished += 1
        if event.kind == "failed":
            self.failed += 1
            self.say(
                f"Failed: {about['method']} on {about['picture']}, {about['mask'] or about['operator']}: {event.error}"
            )
        if event.kind == "step":
            self._shares[key] = event.share * work
        if event.kind in ("done", "failed"):
            self._done += work
            self._shares.pop(key, None)
        self._show((self._done + sum(self._shares.values())) / (self._left or 1.0))

    def _show(self, share: float) -> None:
        self._bar.update(self._task, completed=share, description=self._words())
        now = time.monotonic()
        if self.quiet or self.console.is_terminal or now - self._last < _GRID_SECONDS:
            return
        self._last = now
        self.say(f"{share:4.0%}  {self._words()}  {clock((now - self._begun) * (1 - share) / max(share, 1e-9))} left")

    def _words(self) -> str:
        return f"{self.finished} of {self.cells} cells" + (f", {self.failed} failed" if self.failed else "")


class BatchDisplay(_Shown):
    """What the user sees of a batch: a bar, or a line a minute; failures and what is done again in any case.

    Args:
        pictures: how many it has.
        samples: of each.
    """

    def __init__(self, pictures: int, samples: int, *, quiet: bool) -> None:
        self.pictures, self.samples = pictures, samples
        self.finished = self.failed = self._now = 0
        self._shares: dict[str, float] = {}
        self._begun: float | None = None
        self._last = time.monotonic()
        super().__init__(self._words(), float(pictures), quiet=quiet)

    def __call__(self, event: Event) -> None:
        """An event of the run."""
        key, about = event.item.key, event.item.about
        if event.kind == "started":
            self._begun = self._begun or time.monotonic()
            if "again" in about:
                self.say(
                    f"Again: {about['picture']}, for it has changed since, or its mask, the prior or the settings, "
                    "or files of its results are gone."
                )
        self._shares[key] = event.share
        if event.kind in ("kept", "done", "failed"):
            del self._shares[key]
            self.finished += event.kind != "failed"
            self.failed += event.kind == "failed"
            self._now += event.kind != "kept"
        if event.kind == "failed":
            name = about["picture"]
            self.say(f"Failed: {event.error if event.error.startswith(name) else f'{name}: {event.error}'}")
        self._show()

    def _show(self) -> None:
        share = sum(self._shares.values())
        done = self.finished + self.failed + share
        self._bar.update(self._task, completed=done, description=self._words())
        now = time.monotonic()
        if self.quiet or self.console.is_terminal or now - self._last < _GRID_SECONDS:
            return
        self._last = now
        seconds = now - (self._begun or now)
        pace = (self._now + share) / seconds if seconds else 0.0
        left = f"  {pace * 60:.3g} a minute  {duration((self.pictures - done) / pace)} left" if pace else ""
        self.say(f"{math.floor(100 * done / self.pictures):3d}%  {self._words()}{left}")

    def _words(self) -> str:
        some = f"{self.finished} of {self.pictures} pictures, {self.finished * self.samples} samples"
        return some + (f", {self.failed} failed" if self.failed else "")


class PassDisplay(_Shown):
    """What the user sees while stored samples are measured: a bar, or a line a minute."""

    def __init__(self, *, quiet: bool) -> None:
        self._last = time.monotonic()
        super().__init__("measuring", None, quiet=quiet)

    def __call__(self, done: int, total: int) -> None:
        """``done`` of ``total`` cells have been looked at."""
        words, now = f"{done} of {total} cells measured", time.monotonic()
        self._bar.update(self._task, completed=done, total=total, description=words)
        if not self.quiet and not self.console.is_terminal and now - self._last >= _GRID_SECONDS:
            self._last = now
            self.say(words)


class AdaptingDisplay(_Shown):
    """What the user sees while a prior learns a picture: how long that takes, then a bar, or a line now and then."""

    def __init__(self, *, quiet: bool) -> None:
        self._last: float | None = None
        super().__init__("adapting the prior", 1.0, quiet=quiet)

    def __call__(self, crops: int, total: int, seconds_left: float | None) -> None:
        """So many of all crops are learned."""
        self._bar.update(self._task, completed=crops / total, description=f"{crops} of {total} crops learned")
        if self.quiet or seconds_left is None:
            return
        now = time.monotonic()
        if self._last is None:
            self._last = now
            self.say(f"Adapting the prior: {total} crops, about {duration(seconds_left)} in all.")
        elif now - self._last >= _PLAIN_SECONDS and not self.console.is_terminal:
            self._last = now
            self.say(f"{math.floor(100 * crops / total):3d}%  {crops} of {total} crops  {duration(seconds_left)} left")

    def stopped(self) -> None:
        """Say what was kept of learning that was stopped."""
        self.say("Stopped: the prior was still learning, and nothing of it is kept.")


class TrainingDisplay(_Shown):
    """What the user sees of a training run: notes, validations, and a bar or, in a log, a line every half minute."""

    def __init__(self) -> None:
        self._last = -_TRAINING_SECONDS
        super().__init__("reading pictures", 1.0, quiet=False)

    def __call__(self, report: Report) -> None:
        for note in report.notes:
            self.say(note)
        loss = "" if report.loss is None else f"  loss {report.loss:.4f}"
        rate = "" if report.rate is None else f"  {report.rate:.1f} images/s"
        state = f"{report.crops} crops{loss}{rate}"
        self._bar.update(self._task, completed=report.fraction, description=state)
        if report.notes:
            return
        now = time.monotonic()
        due = report.fraction >= 1 or (report.crops > 0 and now - self._last >= _TRAINING_SECONDS)
        if report.psnr is not None or (due and not self.console.is_terminal):
            self._last = now
            levels = " ".join(f"{level}: {value:.2f}" for level, value in (report.psnr or {}).items())
            quality = f"  held-out PSNR {levels}" if levels else ""
            self.say(f"{report.fraction:6.1%} {state}  {clock(report.seconds_left)} left{quality}")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds))) if seconds < float("inf") else "unknown time"


def duration(seconds: float) -> str:
    """In words: "40 s", "12 min", "3 h 20 min"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 100 else f"{round(hours / 24)} days"
