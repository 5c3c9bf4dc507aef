"""Items one after another: what is finished is passed over, a failure is recorded, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from ..errors import Cancelled, CancelToken, PriorpaintError
from .store import Record, Store

Step = Callable[[float], None]
Save = Callable[[], None]


@dataclass(frozen=True)
class Item:
    """One piece of work.

    Attributes:
        key: a hash of everything that its result depends on (`content_key`).
        about: what it is, for the logs; JSON values.
        run: does it. It calls its argument with the share of the work that is done as it goes, which raises
            ``Cancelled`` once the run is to stop, and returns what the log says beside ``about``, and a function that
            writes its files.
    """

    key: str
    about: Record
    run: Callable[[Step], tuple[Record, Save]]


@dataclass(frozen=True)
class Event:
    """What happens to an item.

    Attributes:
        kind: ``started``; ``step``; then ``done`` or ``failed``; ``kept`` alone where it was finished before.
        item: which.
        share: of a step, how much of the item is done, in [0, 1].
        error: of a failure, one sentence.
    """

    kind: Literal["kept", "started", "step", "done", "failed"]
    item: Item
    share: float = 0.0
    error: str = ""


@dataclass
class Outcome:
    """What became of the items.

    Attributes:
        done, kept, failed: how many were computed now, were finished before, and failed.
        cancelled: whether the run was stopped before all had their turn.
    """

    done: int = 0
    kept: int = 0
    failed: int = 0
    cancelled: bool = False


def run_all(
    store: Store,
    items: Iterable[Item],
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    cancel: CancelToken | None = None,
    limit: int | None = None,
) -> Outcome:
    """Run items in their order, in this process.

    Args:
        store: knows the finished items, and hears of each new one as soon as it is finished.
        items: may be made as they are needed; none is kept.
        on_event: hears all that happens.
        cancel: looked at before each item and in each of its steps; the item in flight is lost.
        limit: most items that are computed now; those that are finished already do not count.

    Raises:
        UsageError: results cannot be written. That is no fault of an item, so the run ends.
    """
    cancel, outcome = cancel or CancelToken(), Outcome()
    for item in items:
        if item.key in store:
            outcome.kept += 1
            on_event(Event("kept", item))
            continue
        if cancel.cancelled or (limit is not None and outcome.done + outcome.failed >= limit):
            outcome.cancelled = cancel.cancelled
            break
        on_event(Event("started", item))
        try:
            record, save = item.run(_stepper(item, on_event, cancel))
        except Cancelled:
            outcome.cancelled = True
            break
        except Exception as error:  # whatever a solver of somebody else raises
            outcome.failed += 1
            sentence = _sentence(error)
            store.fail(item.key, item.about, sentence)
            on_event(Event("failed", item, error=sentence))
            continue
        save()
        store.finish(item.key, {**item.about, **record})
        outcome.done += 1
        on_event(Event("done", item, 1.0))
    return outcome


def _stepper(item: Item, on_event: Callable[[Event], None], cancel: CancelToken) -> Step:
    def step(share: float) -> None:
        cancel.check()
        on_event(Event("step", item, share))

    return step


def _sentence(error: Exception) -> str:
    """What an error says, with its kind where it is none of ours."""
    said = " ".join(str(error).split())
    return said if isinstance(error, PriorpaintError) and said else f"{type(error).__name__}: {said}".rstrip(": ")
