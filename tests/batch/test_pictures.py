"""Many pictures: which they are, that a sample is the one of `inpaint`, what is done again, what a kill leaves."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import priorpaint
from priorpaint.batch import Inline, Store, run_all
from priorpaint.batch.entries import Entry, MaskFiles, find_entries, parse_shard, sharded
from priorpaint.batch.pictures import Estimate, Painter, Request, open_store, write_summary
from priorpaint.cli.workers import processes
from priorpaint.errors import CancelToken, PriorpaintError, UsageError
from priorpaint.priors import Prior
from priorpaint.priors.loading import load_prior, precision_of
from tests.command_line import exit_code, finish, start

RUN = ("--prior", "avatars", "-n", "2", "--set", "steps=2")


def picture(path: Path, seed: int = 0, side: tuple[int, int] = (32, 32), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (side[1], side[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def mask(path: Path, size: int = 32, hole: slice = slice(10, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((size, size), dtype=np.uint8)
    values[hole, hole] = 255
    Image.fromarray(values).save(path)
    return path


@pytest.fixture(scope="module")
def prior() -> Prior:
    return load_prior("avatars", device="cpu")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures with all kinds of names, and what only looks like one."""
    folder = tmp_path / "pictures"
    names = ("a.png", "b.PNG", "b.jpg", "rooms/ü.webp", "rooms/a b.tif", "rooms/.hidden.png", ".git/x.png")
    for seed, name in enumerate(names):
        picture(folder / name, seed)
    (folder / "notes.txt").write_text("no picture")
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:400])
    (folder / "album.png").mkdir()
    picture(folder / "scans.tif" / "one.bmp", 9)
    return folder


def request(out: Path, **options: Any) -> Request:
    plain = {"prior": "avatars", "prior_flags": None, "offline": False, "mask": None, "num_samples": 2, "seed": 0}
    return Request.of(out, {**plain, **options}, {"steps": 2}, None, True)


def test_the_precision_is_that_of_the_prior_and_part_of_what_a_result_depends_on(tmp_path: Path) -> None:
    exact, rough = (request(tmp_path, precision=name) for name in ("float32", "bfloat16"))
    assert "precision" not in exact.arguments
    priors = exact.loaded("cpu"), rough.loaded("cpu")
    assert [precision_of(prior) for prior in priors] == ["float32", "bfloat16"]
    assert exact._key(priors[0]) != rough._key(priors[1])


def test_a_tree_is_mirrored_and_every_picture_has_its_place(tree: Path, tmp_path: Path) -> None:
    shared = mask(tree / "rooms/mask.png")
    picture(tree / "out/a_0.png")
    entries = find_entries([str(tree)], MaskFiles(shared), [tree / "out"])
    places = ["a", "album", "b.PNG", "b.jpg", "cut", "empty", "rooms/a b", "rooms/ü", "scans.tif/one"]
    assert [entry.out for entry in entries] == places
    assert {entry.out for entry in entries if entry.problem} == {"album"}
    assert all(entry.mask == shared for entry in entries if not entry.problem)
    globbed = find_entries([f"{tree}/rooms/*"], MaskFiles(shared))
    assert [entry.out for entry in globbed] == ["a b", "ü"]
    assert [entry.out for entry in find_entries([f"{tree}/**/*.webp", str(tree / "a.png")], MaskFiles())] == [
        *("a", "rooms/ü")
    ]


def test_masks_are_found_by_name_and_their_absence_is_a_problem_of_one_picture(tree: Path, tmp_path: Path) -> None:
    mask(tree / "a_mask.png")
    mask(tree / "rooms/ü_mask.bmp")
    found = {entry.out: entry for entry in find_entries([str(tree)], MaskFiles(suffix="_mask"))}
    assert "a_mask" not in found and "rooms/ü_mask" not in found
    assert found["a"].mask == tree / "a_mask.png" and found["rooms/ü"].mask == tree / "rooms/ü_mask.bmp"
    assert found["b.jpg"].problem == f"there is no mask b_mask.* in {tree}; put one there."
    folder = tmp_path / "masks"
    for name in ("a.png", "a.bmp", "rooms/a b.png"):
        mask(folder / name)
    found = {entry.out: entry for entry in find_entries([str(tree)], MaskFiles(folder=folder))}
    assert found["rooms/a b"].mask == folder / "rooms/a b.png"
    assert found["a"].problem == f"there are several masks (a.bmp, a.png) in {folder}; put one there."


def test_a_manifest_says_everything_of_each_picture(tree: Path) -> None:
    rows = [
        {"picture": "a.png", "mask": "m.png", "label": "2", "seed": "7", "out": "first/one"},
        {"picture": "rooms/ü.webp", "prompt": "a, b"},
        {"picture": "gone.png"},
    ]
    with open(tree / "list.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["picture", "mask", "label", "seed", "out", "prompt"])
        writer.writeheader()
        writer.writerows(rows)
    (tree / "list.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    expected = [
        Entry(tree / "a.png", "first/one", tree / "m.png", 2, None, 7),
        Entry(tree / "gone.png", "gone"),
        Entry(tree / "rooms/ü.webp", "rooms/ü", prompt="a, b"),
    ]
    for name in ("list.csv", "list.jsonl"):
        assert find_entries([str(tree / name)], MaskFiles()) == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("picture,size\na.png,3\n", "line 2: there is no column 'size'"),
        ("picture,label\na.png,cat\n", "line 2: label is a whole number, not 'cat'"),
        ("picture,out\na.png,../b\n", "line 2: out is a place below the output folder"),
        ("mask\nm.png\n", "line 2 names no picture"),
        ("picture\na.png\na.png\n", "two pictures would have the results a"),
        ("picture\n", "there is no picture in"),
    ],
)
def test_a_wrong_manifest_is_refused_with_its_line(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=error.replace(".", r"\.")):
        find_entries([str(path)], MaskFiles())


def test_shards_share_the_pictures_among_them() -> None:
    entries = [Entry(Path(f"{i}.png"), f"rooms/{i}") for i in range(600)]
    parts = [sharded(entries, parse_shard(f"{i}/3")) for i in (1, 2, 3)]
    assert sorted((entry for part in parts for entry in part), key=entries.index) == entries
    assert all(abs(len(part) - 200) < 5 * np.sqrt(600 * 2 / 9) for part in parts)  # five standard deviations
    for text in ("0/3", "4/3", "3", "a/b", "-1/2"):
        with pytest.raises(UsageError, match="--shard is i/n"):
            parse_shard(text)


def test_every_picture_is_done_as_inpaint_does_it_or_listed(tree: Path, tmp_path: Path, prior: Prior) -> None:
    shared = mask(tmp_path / "m.png")
    asked, entries = request(tmp_path / "out"), find_entries([str(tree)], MaskFiles(shared))
    store = open_store(asked.out, {}, resume=False)
    outcome = run_all(store, asked.items(prior, entries, store), Inline(Painter(asked, prior)))
    assert (outcome.done, outcome.failed) == (6, 3)
    assert {record["out"] for record in store.failed().values()} == {"album", "cut", "empty"}
    alone = priorpaint.inpaint(tree / "rooms/ü.webp", shared, prior=prior, num_samples=2, steps=2)
    for i, image in enumerate(alone.images):
        assert np.array_equal(Image.open(asked.out / f"rooms/ü_{i}.png"), image)
    files = {"0.png", "1.png", "mean.png", "uncertainty.png", "uncertainty.npy", "sheet.png", "run.json"}
    assert {path.name for path in asked.out.glob("rooms/ü_*")} == {f"ü_{name}" for name in files}
    with open(write_summary(store), newline="", encoding="utf-8") as file:
        rows = {row["out"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {entry.out for entry in entries}
    assert rows["a"]["nfe_forward"] == "4" and float(rows["a"]["hole_share"]) == pytest.approx(100 / 1024, abs=1e-6)
    assert rows["cut"]["state"] == "failed" and "damaged or incomplete" in rows["cut"]["error"]


def _other_picture(folder: Path, options: dict[str, Any]) -> None:
    picture(folder / "a.png", seed=50)


def _other_mask(folder: Path, options: dict[str, Any]) -> None:
    mask(folder.parent / "m.png", hole=slice(4, 9))


def _other_setting(folder: Path, options: dict[str, Any]) -> None:
    options["grow"] = 1


def _other_memory(folder: Path, options: dict[str, Any]) -> None:
    options["batch_size"] = 1


@pytest.mark.parametrize(
    ("change", "again"), [(_other_picture, 1), (_other_mask, 2), (_other_setting, 2), (_other_memory, 0)]
)
def test_what_has_changed_is_done_again_and_the_rest_is_not(
    tmp_path: Path, prior: Prior, change: Callable[[Path, dict[str, Any]], None], again: int
) -> None:
    folder, options = tmp_path / "pictures", dict[str, Any]()
    picture(folder / "a.png")
    picture(folder / "b.png", seed=1)

    def outcome(*, resume: bool) -> tuple[int, int, int]:
        asked = request(tmp_path / "out", **options)
        entries = find_entries([str(folder)], MaskFiles(mask(tmp_path / "m.png") if not resume else tmp_path / "m.png"))
        store, said = open_store(asked.out, {}, resume=resume), list[bool]()
        items = asked.items(prior, entries, store)
        ran = run_all(
            store,
            items,
            Inline(Painter(asked, prior)),
            on_event=lambda event: said.append(event.kind == "done" and "again" in event.item.about),
        )
        return ran.done, ran.kept, sum(said)

    assert outcome(resume=False) == (2, 0, 0)
    change(folder, options)
    assert outcome(resume=True) == (again, 2 - again, again)
    assert outcome(resume=True) == (0, 2, 0)
    assert len(Store(tmp_path / "out")) == 2


def test_a_picture_that_breaks_after_it_was_finished_is_listed(tmp_path: Path, prior: Prior) -> None:
    path, asked = picture(tmp_path / "in/a.png"), request(tmp_path / "out", boxes=[(8, 8, 6, 6)])

    def state() -> list[str]:
        store, entries = Store(asked.out), find_entries([str(path.parent)], MaskFiles())
        run_all(store, asked.items(prior, entries, store), Inline(Painter(asked, prior)))
        with open(write_summary(store), newline="", encoding="utf-8") as file:
            return [row["state"] for row in csv.DictReader(file)]

    assert state() == ["done"]
    path.write_bytes(path.read_bytes()[:200])
    assert state() == ["failed"]
    picture(path, seed=3)
    assert state() == ["done"]


def test_files_that_are_gone_are_made_again_and_a_failure_of_other_contents_is_settled(
    tmp_path: Path, prior: Prior
) -> None:
    path, asked = picture(tmp_path / "in/a.png"), request(tmp_path / "out", boxes=[(8, 8, 6, 6)], num_samples=1)

    def run() -> tuple[int, int, int, bool, list[str]]:
        store, entries, said = Store(asked.out), find_entries([str(path.parent)], MaskFiles()), list[bool]()
        items = asked.items(prior, entries, store)
        ran = run_all(
            store, items, Inline(Painter(asked, prior)), on_event=lambda event: said.append("again" in event.item.about)
        )
        with open(write_summary(store), newline="", encoding="utf-8") as file:
            return ran.done, ran.kept, ran.failed, said[-1], [row["state"] for row in csv.DictReader(file)]

    assert run() == (1, 0, 0, False, ["done"])
    (asked.out / "a_0.png").unlink()
    assert run() == (1, 0, 0, True, ["done"])
    assert run() == (0, 1, 0, False, ["done"])
    record = asked.out / "a_run.json"
    facts = json.loads(record.read_text())
    del facts["nfe"]  # as a run leaves it that was killed while it replaced the results
    record.write_text(json.dumps({**facts, "finished_samples": 0}))
    assert run() == (1, 0, 0, True, ["done"])
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    assert run() == (0, 0, 1, True, ["failed"])
    path.write_bytes(whole)
    assert run() == (0, 1, 0, False, ["done"])
    assert Store(asked.out).failed() == {} and len([*Store(asked.out).done()]) == 1


def test_a_stop_in_a_picture_leaves_no_file_of_it(tmp_path: Path, prior: Prior) -> None:
    path, asked, token = picture(tmp_path / "in/a.png"), request(tmp_path / "out", boxes=[(8, 8, 6, 6)]), CancelToken()
    store = Store(asked.out)
    items = asked.items(prior, [Entry(path, "a")], store)
    stop: Callable[[Any], None] = lambda event: token.cancel() if event.kind == "step" and event.share else None  # noqa: E731
    assert run_all(store, items, Inline(Painter(asked, prior)), on_event=stop, cancel=token).cancelled
    assert list(asked.out.iterdir()) == []


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(UsageError, match="holds other files"):
            open_store(tmp_path, {}, resume=resume)
    open_store(tmp_path, {}, resume=False, overwrite=True).finish("k", {})
    with pytest.raises(UsageError, match="holds a batch already"):
        open_store(tmp_path, {}, resume=False)
    assert "k" in open_store(tmp_path, {}, resume=True)
    assert "k" not in open_store(tmp_path, {}, resume=False, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_an_estimate_writes_nothing_and_counts_what_a_run_takes(tree: Path, tmp_path: Path, prior: Prior) -> None:
    asked = request(tmp_path / "out", boxes=[(8, 8, 16, 16)])
    estimate = Estimate(Painter(asked, prior))
    share, cost, seconds = estimate.of(Entry(tree / "a.png", "a"))  # type: ignore[misc]
    assert (share, cost.forward, cost.backward) == (0.25, 4, 0) and seconds > 0  # type: ignore[union-attr]
    assert "is damaged or incomplete" in str(estimate.of(Entry(tree / "cut.png", "cut")))
    wide = Entry(picture(tmp_path / "wide.png", side=(96, 96)), "wide")
    first = estimate.painter.plan(Entry(tree / "a.png", "a")).load
    estimate.painter = Painter(request(tmp_path / "out", boxes=[(8, 8, 56, 56)]), prior)
    _, dear, longer = estimate.of(wide)  # type: ignore[misc]
    assert longer / seconds == pytest.approx(estimate.painter.plan(wide).load / first)  # type: ignore[operator]
    assert longer / seconds > 1.5 * dear.forward / cost.forward  # type: ignore
    assert not asked.out.exists()


def test_a_condition_that_the_prior_does_not_take_is_refused_before_any_work(tmp_path: Path, prior: Prior) -> None:
    with pytest.raises(PriorpaintError, match="99"):
        request(tmp_path, label=99).checked(prior, [Entry(Path("a.png"), "a")])
    with pytest.raises(UsageError, match="stepz"):
        Request.of(tmp_path, {"prior": "avatars", "prior_flags": None, "offline": False}, {"stepz": 2}, None, True)


def test_a_source_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: str) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match=r"the folder .* cannot be read \(Permission denied\); check"):
        find_entries([str(tmp_path)], MaskFiles())


def test_a_gpu_with_a_number_has_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    assert processes(Painter, None, "cpu", 2).devices == ["cpu"] * 2  # type: ignore[arg-type]
    assert processes(Painter, None, "cuda:1", 1).devices == ["cuda:1"]  # type: ignore[arg-type]
    assert processes(Painter, 3, "cuda:1", 1).devices == ["cuda:1"] * 3  # type: ignore[arg-type]


def test_a_dry_run_learns_nothing_and_a_shard_removes_nothing_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("priorpaint.inpainting.adapting.adapted", lambda *_, **__: pytest.fail("it learns"))
    path = picture(tmp_path / "a.png")
    command = ("batch", path, "-o", tmp_path / "out", "--box", "8,8,16,16", *RUN, "--threads", "1")
    assert exit_code(monkeypatch, *command, "--dry-run", "--adapt", "--device", "cpu") == 0
    assert "learning each picture (--adapt) comes on top" in capsys.readouterr().out
    assert exit_code(monkeypatch, *command, "--overwrite", "--shard", "1/2") == 2
    assert "give --resume to all parts" in " ".join(capsys.readouterr().err.split())


def test_the_command_lists_then_does_then_passes_over(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("batch", tree, "-o", tmp_path / "out", "--box", "8,8,16,16", *RUN, "--threads", "1", "--workers", "1")
    assert exit_code(monkeypatch, *command, "--dry-run", "--json") == 3
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["event"] for one in listed] == ["listed"] * 9 + ["end"] and listed[-1]["failed"] == 3
    assert not (tmp_path / "out").exists()
    assert exit_code(monkeypatch, *command, "--json") == 3
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert [sum(one["event"] == kind for one in events) for kind in ("started", "done", "failed")] == [9, 6, 3]
    assert events[0]["pictures"] == 9 and events[-1]["event"] == "end" and events[-1]["done"] == 6
    assert "6 of 9 pictures are finished" in err and err.count("Failed: ") == 3
    assert exit_code(monkeypatch, *command) == 2
    assert "--resume" in capsys.readouterr().err
    for name in ("album.png", "cut.png", "empty.png"):
        (tree / name).rename(tree / f"{name}.txt")
    assert exit_code(monkeypatch, *command, "--resume") == 0
    assert "6 of 6 pictures are finished" in capsys.readouterr().err


@pytest.mark.slow
def test_a_kill_loses_the_pictures_in_flight_and_nothing_else(tmp_path: Path, prior: Prior) -> None:
    folder, out = tmp_path / "pictures", tmp_path / "out"
    for seed in range(12):
        picture(folder / f"{seed}.png", seed)
    command = ("batch", folder, "-o", out, "--box", "8,8,16,16", *RUN, "--threads", "1", "--workers", "1", "--resume")
    running = start(*command)
    while not (out / "done.jsonl").exists() or (out / "done.jsonl").read_bytes().count(b"\n") < 3:
        assert running.poll() is None, running.communicate()
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.communicate()
    before = [*Store(out).done()]
    code, text, err = finish(start(*command, "--json"))
    assert code == 0, err
    kinds = [json.loads(line)["event"] for line in text.splitlines()]
    assert kinds.count("kept") == len(before) and kinds.count("done") == 12 - len(before)
    assert not list(out.rglob("*.part"))
    asked = request(tmp_path / "calm", boxes=[(8, 8, 16, 16)])
    store, entries = Store(asked.out), find_entries([str(folder)], MaskFiles())
    run_all(store, asked.items(prior, entries, store), Inline(Painter(asked, prior)))
    for path in asked.out.glob("*_*.*"):
        if path.suffix != ".json":
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
