"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

_PLAIN_SECONDS = 10.0


class Display:
    """What the user sees while completions are drawn.

    Args:
        samples: how many completions.
        quiet: whether to show no progress.
    """

    def __init__(self, samples: int, *, quiet: bool) -> None:
        self.samples, self.finished, self.quiet = samples, 0, quiet
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._begun = self._last = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=self.console, disable=quiet or not self.console.is_terminal)
        self._task = self._bar.add_task(self._words(), total=1.0)

    def __enter__(self) -> Display:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, sentence: str) -> None:
        """One line, above the bar where there is one."""
        self.console.print(sentence, markup=False)

    def step(self, share: float) -> None:
        """A step of the solver is done, and with it this share of the work."""
        self._bar.update(self._task, completed=share)
        if time.monotonic() - self._last >= _PLAIN_SECONDS:
            self._line(share)

    def sample(self) -> None:
        """One more completion is finished."""
        self.finished += 1
        self._bar.update(self._task, description=self._words())
        self._line(self.finished / self.samples)

    def _line(self, share: float) -> None:
        if self.quiet or self.console.is_terminal:
            return
        self._last = time.monotonic()
        left = (self._last - self._begun) * (1 - share) / max(share, 1e-6)
        self.say(f"{share:4.0%}  {self._words()}  {left:.0f} s left")

    def _words(self) -> str:
        return f"{self.finished} of {self.samples} completions"
