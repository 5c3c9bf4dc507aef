"""What a run tells while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image


@dataclass(frozen=True)
class Loading:
    """Something is being read: the prior, or the picture.

    Attributes:
        what: in words.
    """

    what: str


@dataclass(frozen=True)
class Adapting:
    """The prior learns the known part of the picture, before the plan is ready.

    Attributes:
        crops: learned so far.
        total: crops in all.
        seconds_left: estimate; None before there is one.
        source: the file where an earlier run has left all of it; None while it is learned.
    """

    crops: int
    total: int
    seconds_left: float | None
    source: Path | None = None


@dataclass(frozen=True)
class Step:
    """One step of the solver.

    Attributes:
        done: units of work that are over; never falls.
        total: units of work of the whole run.
        window: (x, y, width, height) in pixels of the full-size picture, what the prior sees; it may reach beyond the
            picture, which is reflected there.
        scale: 1 is full size, 2 is half the size, ...
        samples: the completions that are being drawn; where one fit serves all of them, all.
        seconds_left: estimate for the whole run, from the steps before; None before there is one.
    """

    done: int
    total: int
    window: tuple[int, int, int, int]
    scale: int
    samples: tuple[int, ...]
    seconds_left: float | None = field(compare=False)
    _draw: Callable[[], Image.Image] = field(repr=False, compare=False)

    def preview(self) -> Image.Image:
        """The picture with the first sample's estimate of x_0 in its place, decoded where the prior is latent.

        Takes a moment for large pictures, and is valid only while the event is handled.
        """
        return self._draw()


@dataclass(frozen=True)
class Completion:
    """A completion is finished.

    Attributes:
        index: which, from 0.
        image: of the input's size and mode.
    """

    index: int
    image: Image.Image


Event = Loading | Adapting | Step | Completion
OnEvent = Callable[[Event], None]
