"""Items one after another or by several workers: what is finished is passed over, a failure is recorded, and the rest
goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..errors import Cancelled, CancelToken, PriorpaintError, UsageError
from .store import Record, Store

Step = Callable[[float], None]
Save = Callable[[], None]
# Does the task of an item. It calls its second argument with the share of the work that is done as it goes, which
# raises ``Cancelled`` once the run is to stop, and returns what the log says beside the item's ``about``, and a
# function that writes the files.
Work = Callable[[Any, Step], tuple[Record, Save]]


@dataclass(frozen=True)
class Item:
    """One piece of work.

    Attributes:
        key: a hash of everything that its result depends on (`content_key`).
        about: what it is, for the logs; JSON values.
        task: what a `Work` is to do; an executor of other processes pickles it.
    """

    key: str
    about: Record
    task: Any = None


@dataclass(frozen=True)
class Event:
    """What happens to an item.

    Attributes:
        kind: ``started``; ``step``; then ``done`` or ``failed``; ``kept`` alone where it was finished before.
        item: which.
        share: of a step, how much of the item is done, in [0, 1].
        error: of a failure, one sentence.
        record: of what is done, what the log says beside ``item.about``.
    """

    kind: Literal["kept", "started", "step", "done", "failed"]
    item: Item
    share: float = 0.0
    error: str = ""
    record: Record | None = None


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


class Executor(Protocol):
    """Who does the work of items."""

    def __call__(self, items: Iterator[Item], cancel: CancelToken, hear: Callable[[Event], None]) -> None:
        """Take items as there is room for them, and tell all that happens to them; ``done`` once files are in place.

        Raises:
            Cancelled: the token was cancelled, and items in flight are lost.
            UsageError: results cannot be written.
        """


@dataclass(frozen=True)
class Inline:
    """The executor that does one item after another in this process."""

    work: Work

    def __call__(self, items: Iterator[Item], cancel: CancelToken, hear: Callable[[Event], None]) -> None:
        for item in items:

            def step(share: float, item: Item = item) -> None:
                cancel.check()
                hear(Event("step", item, share))

            hear(Event("started", item))
            hear(done_or_failed(self.work, item, step))


def done_or_failed(work: Work, item: Item, step: Step) -> Event:
    """Do one item.

    Raises:
        Cancelled: by ``step``.
        UsageError: results cannot be written. That is no fault of an item.
    """
    try:
        record, save = work(item.task, step)
    except Cancelled:
        raise
    except Exception as error:  # whatever a solver of somebody else raises
        return Event("failed", item, error=sentence_of(error))
    try:
        save()
    except UsageError:
        raise
    except PriorpaintError as error:  # such as a file that reads back as something else
        return Event("failed", item, error=sentence_of(error))
    return Event("done", item, 1.0, record=record)


def run_all(
    store: Store,
    items: Iterable[Item],
    executor: Executor,
    *,
    on_event: Callable[[Event], None] = lambda event: None,
    cancel: CancelToken | None = None,
    limit: int | None = None,
    stop_on_error: bool = False,
) -> Outcome:
    """Run items in their order.

    Args:
        store: knows the finished items, and hears of each new one as soon as it is finished.
        items: may be made as they are needed; none is kept.
        executor: does the work.
        on_event: hears all that happens.
        cancel: looked at before each item and in each of its steps; the items in flight are lost.
        limit: most items that are computed now; those that are finished already do not count.
        stop_on_error: whether no item is begun after a failure.

    Raises:
        UsageError: results cannot be written. That is no fault of an item, so the run ends.
    """
    cancel, outcome = cancel or CancelToken(), Outcome()

    def left() -> Iterator[Item]:
        begun = 0
        for item in items:
            if item.key in store:
                outcome.kept += 1
                on_event(Event("kept", item))
                continue
            if cancel.cancelled:
                outcome.cancelled = True
                return
            if (limit is not None and begun >= limit) or (stop_on_error and outcome.failed):
                return
            begun += 1
            yield item

    def hear(event: Event) -> None:
        if event.kind == "done":
            store.finish(event.item.key, {**event.item.about, **(event.record or {})})
            outcome.done += 1
        elif event.kind == "failed":
            store.fail(event.item.key, event.item.about, event.error)
            outcome.failed += 1
        on_event(event)

    try:
        executor(left(), cancel, hear)
    except Cancelled:
        outcome.cancelled = True
    return outcome


def sentence_of(error: Exception) -> str:
    """What an error says, with its kind where it is none of ours."""
    said = " ".join(str(error).split())
    return said if isinstance(error, PriorpaintError) and said else f"{type(error).__name__}: {said}".rstrip(": ")
