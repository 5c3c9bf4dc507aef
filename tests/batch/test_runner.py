"""The executor: every item is done or listed, what is done is passed over, and a stop keeps what is finished."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from priorpaint.batch import Event, Inline, Item, Outcome, Store, run_all
from priorpaint.batch.runner import Save, Step
from priorpaint.errors import CancelToken, UsageError

# The task of an item is what does it.
inline = Inline(lambda task, step: task(step))


def item(folder: Path, name: str, work: Callable[[Step], None] = lambda step: None) -> Item:
    def run(step: Step) -> tuple[dict[str, int], Save]:
        work(step)
        return {"size": len(name)}, lambda: None if (folder / name).write_text(name) else None

    return Item(name, {"name": name}, run)


def fails(error: Exception) -> Callable[[Step], None]:
    def work(step: Step) -> None:
        raise error

    return work


def test_a_failure_is_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    store, events = Store(tmp_path), list[Event]()
    bad, worse = fails(UsageError("the mask is empty.")), fails(ZeroDivisionError())
    items = [item(tmp_path, "a"), item(tmp_path, "b", bad), item(tmp_path, "c", worse), item(tmp_path, "d")]
    outcome = run_all(store, items, inline, on_event=events.append)
    assert outcome == Outcome(done=2, failed=2)
    assert [(event.kind, event.item.key) for event in events] == [
        *(("started", "a"), ("done", "a"), ("started", "b"), ("failed", "b")),
        *(("started", "c"), ("failed", "c"), ("started", "d"), ("done", "d")),
    ]
    errors = {key: record["error"] for key, record in store.failed().items()}
    assert errors == {"b": "the mask is empty.", "c": "ZeroDivisionError"}
    assert list(store.done()) == [{"key": name, "name": name, "size": 1} for name in "ad"]


def test_what_is_finished_is_never_done_again(tmp_path: Path) -> None:
    run_all(Store(tmp_path), [item(tmp_path, "a"), item(tmp_path, "b", fails(RuntimeError("x")))], inline)
    calls: list[str] = []
    items = [item(tmp_path, name, lambda step, name=name: calls.append(name)) for name in "abc"]  # type: ignore[misc]
    assert run_all(Store(tmp_path), items, inline) == Outcome(done=2, kept=1)
    assert calls == ["b", "c"] and Store(tmp_path).failed() == {}


def test_a_limit_counts_what_is_computed_now(tmp_path: Path) -> None:
    items = [item(tmp_path, name) for name in "abcd"]
    assert run_all(Store(tmp_path), items, inline, limit=2) == Outcome(done=2)
    assert run_all(Store(tmp_path), items, inline, limit=1) == Outcome(done=1, kept=2)
    assert run_all(Store(tmp_path), items, inline) == Outcome(done=1, kept=3)


def test_a_stop_loses_the_item_in_flight_and_no_other(tmp_path: Path) -> None:
    token, store = CancelToken(), Store(tmp_path)

    def stopped(step: Step) -> None:
        step(0.1)
        token.cancel()
        step(0.2)
        raise AssertionError("the step must not return")

    items = [item(tmp_path, "a"), item(tmp_path, "b", stopped), item(tmp_path, "c")]
    assert run_all(store, items, inline, cancel=token) == Outcome(done=1, cancelled=True)
    assert [*store.done()][0]["key"] == "a" and len(store) == 1 and store.failed() == {}


def test_results_that_cannot_be_written_end_the_run(tmp_path: Path) -> None:
    def save() -> None:
        raise UsageError("the disk is full")

    items = [Item("a", {}, lambda step: ({}, save)), item(tmp_path, "b")]
    store = Store(tmp_path)
    with pytest.raises(UsageError, match="disk is full"):
        run_all(store, items, inline)
    assert len(store) == 0 and store.failed() == {} and not (tmp_path / "b").exists()


def test_items_are_made_one_at_a_time(tmp_path: Path) -> None:
    alive: list[str] = []

    def items() -> object:
        for name in "abc":
            alive.append(name)
            assert len(alive) == 1
            yield item(tmp_path, name, lambda step: None)
            alive.remove(name)

    assert run_all(Store(tmp_path), items(), inline).done == 3  # type: ignore[arg-type]
