"""The store: equal contents have equal keys, and a log survives whatever a kill leaves of it."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from priorpaint.batch.store import DONE, FAILED, Store, content_key
from priorpaint.errors import UsageError


def test_a_key_is_of_contents_and_not_of_their_order() -> None:
    assert content_key("cell", {"a": 1, "b": [2, 3]}) == content_key("cell", {"b": [2, 3], "a": 1})
    keys = {content_key(*parts) for parts in (("a",), ("a", ""), ("b",), (["a"],), ({"a": 1},), ({"a": 1.5},))}
    assert len(keys) == 6 and all(len(key) == 32 for key in keys)
    with pytest.raises(ValueError):
        content_key(float("nan"))


def test_what_is_finished_is_found_again(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.finish("k1", {"seconds": 1.5})
    store.fail("k2", {"picture": "a.png"}, "no\nluck")
    again = Store(tmp_path / "out")
    assert "k1" in again and "k2" not in again and len(again) == 1
    assert list(again.done()) == [{"key": "k1", "seconds": 1.5}]
    assert again.failed() == {"k2": {"key": "k2", "picture": "a.png", "error": "no luck"}}


def test_a_failure_that_was_made_good_is_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.fail("k", {}, "first")
    store.fail("k", {}, "second")
    assert store.failed()["k"]["error"] == "second"
    store.finish("k", {})
    assert store.failed() == {} and Store(tmp_path).failed() == {}


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_line_that_was_cut_off_is_an_item_that_was_not_finished(tmp_path: Path, cut: int) -> None:
    store = Store(tmp_path)
    store.finish("k1", {})
    store.finish("k2", {})
    log = tmp_path / DONE
    whole = log.read_bytes()
    log.write_bytes(whole[:-cut])
    again = Store(tmp_path)
    assert "k1" in again and ("k2" in again) == (cut == 1)  # a line without its end is whole
    again.finish("k2", {})
    again.finish("k3", {})
    assert [record["key"] for record in Store(tmp_path).done()] == ["k1", "k2", "k3"]


def test_duplicates_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    lines = ['{"key": "k1", "n": 1}', "", "[1]", "\x00\x00", '{"nokey": 1}', '{"key": "k1", "n": 2}', '{"key": 3}']
    (tmp_path / DONE).write_text("\n".join(lines) + "\n")
    store = Store(tmp_path)
    assert [record["n"] for record in store.done()] == [1]
    before = (tmp_path / DONE).read_bytes()
    store.finish("k1", {"n": 3})
    assert (tmp_path / DONE).read_bytes() == before


def _add(folder: Path, name: str) -> None:
    store = Store(folder)
    for i in range(200):
        store.finish(f"{name}-{i}", {"filling": "x" * 500})
        store.fail(f"{name}-{i}-failed", {}, "y" * 500)


def test_processes_that_write_at_once_lose_no_line(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(tmp_path, name)) for name in ("a", "b", "c")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Store(tmp_path)) == 600 and len(Store(tmp_path).failed()) == 600
    for log in (DONE, FAILED):
        # A process that looks while another one is in its write takes the line for cut off, and leaves a blank one.
        assert all(json.loads(line) for line in (tmp_path / log).read_text().splitlines() if line)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be used for results"):
        Store(tmp_path / "file")
    store = Store(tmp_path / "out")
    (tmp_path / "out" / DONE).mkdir()
    with pytest.raises(UsageError, match="cannot be written"):
        store.finish("k", {})


def test_a_later_item_in_the_same_place_replaces_the_earlier_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key in ("old", "new"):
        store.finish(key, {"out": "a/cat"})
    store.finish("other", {"out": "a/dog"})
    for one in (store, Store(tmp_path)):
        assert "old" not in one and "new" in one and one.at("a/cat") == "new" and len(one) == 2
        assert [record["key"] for record in one.done()] == ["new", "other"]
