"""The executor of several processes: every item is done or listed, whatever becomes of a process."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from threading import Timer

import pytest

from priorpaint.batch import Event, Item, Outcome, Processes, Store, run_all
from priorpaint.errors import CancelToken, PriorError, UsageError
from tests.batch import workers


def items(*tasks: str) -> list[Item]:
    return [Item(task, {"name": task}, task) for task in tasks]


def processes(folder: Path, *devices: str) -> Processes:
    return Processes(partial(workers.make, folder), devices, threads=1)


def test_a_process_that_dies_is_replaced_and_its_item_tried_once_more(tmp_path: Path) -> None:
    store, events = Store(tmp_path), list[Event]()
    names = ["a", "dies once", "raises", "dies", *"bcdefgh"]
    outcome = run_all(store, items(*names), processes(tmp_path, "one", "two"), on_event=events.append)
    assert outcome == Outcome(done=9, failed=2)
    errors = {key: record["error"] for key, record in store.failed().items()}
    assert errors["raises"] == "the mask is empty."
    assert errors["dies"] == "its worker ended 2 times (signal 9); there may be too little memory."
    done = {record["key"]: record for record in store.done()}
    assert done.keys() | errors.keys() == set(names)
    assert all(record["threads"] == "1" and (tmp_path / key).read_text() == key for key, record in done.items())
    assert [event.item.key for event in events if event.kind == "started"] == names


def test_a_stop_ends_every_process_and_keeps_what_is_finished(tmp_path: Path) -> None:
    store, token = Store(tmp_path), CancelToken()

    def hear(event: Event) -> None:
        if event.kind == "done":
            Timer(0.3, token.cancel).start()

    work = items("a", "lasts")
    begun = time.monotonic()
    assert run_all(store, work, processes(tmp_path, "one"), on_event=hear, cancel=token) == Outcome(1, cancelled=True)
    assert time.monotonic() - begun < 60 and "a" in store and store.failed() == {}


@pytest.mark.parametrize(
    ("task", "device", "error"),
    [("full", "one", UsageError("the disk is full.")), ("a", "none", PriorError("there is no such device."))],
)
def test_what_no_item_is_guilty_of_ends_the_run(tmp_path: Path, task: str, device: str, error: Exception) -> None:
    store = Store(tmp_path)
    with pytest.raises(type(error), match=str(error)):
        run_all(store, items(task), processes(tmp_path, device))
    assert len(store) == 0 and store.failed() == {}
