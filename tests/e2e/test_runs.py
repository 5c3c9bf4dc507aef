"""Several runs, and runs that go on: one folder at once, what a kill leaves, what a long run asks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import command_line
from tests.command_line import exit_code, start
from tests.e2e.several import completions

resource = pytest.importorskip("resource")
finish = partial(command_line.finish, seconds=240)


def until_sample(process: subprocess.Popen[str], count: int) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if f" {count} of " in line:
            return
    raise AssertionError("the run ended too early")


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_a_killed_run_leaves_a_record_and_is_gone_on_with(
    run: list[object],
    whole: dict[str, bytes],
    undisturbed: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    process = start(*run)
    until_sample(process, 2)
    process.kill()
    finish(process)
    record = json.loads((out / "run.json").read_text())
    kept = record["finished_samples"]
    assert 2 <= kept <= 6 and len(record["sample_seeds"]) == 6 and record["call"]["steps"] == 30
    assert "nfe" not in record  # it did not come to its end
    for file in completions(out)[:kept]:
        assert file.read_bytes() == whole[file.name]
    (out / ".photo_3.png.0123456789ab.part").write_bytes(b"half")  # as a kill in the middle of a file leaves it
    (out / ".other_3.png.0123456789ab.part").write_bytes(b"of another picture, whose run may be alive")

    # The next run says what to do, changes nothing, and refuses to go on with something else.
    assert exit_code(monkeypatch, *run) == 2
    told = capsys.readouterr().err
    assert f"holds {kept} of 6 samples of an interrupted run of photo" in told and "--resume" in told
    for other, difference in [
        (["--seed", "7"], r"seed \(0 there, 7 now\)"),
        (["--box", "30,20,5,5"], "the mask"),
        (["--set", "steps=31"], r"steps \(30 there, 31 now\)"),
        (["--prior", "photos"], "the prior"),
        (["--format", "tiff"], "the format"),
    ]:
        assert exit_code(monkeypatch, *run, "--resume", *other) == 2
        assert re.search(rf"run\.json is of another run: .*{difference}.* differ", capsys.readouterr().err)

    assert exit_code(monkeypatch, *run, "--resume", "--batch-size", "3") == 0
    told = capsys.readouterr()
    assert f"Plan: {6 - kept} of 6 samples" in told.err or kept == 6
    assert {file.name: file.read_bytes() for file in completions(out)} == whole
    hidden = [file.name for file in out.iterdir() if file.name.startswith(".")]
    assert hidden == [".other_3.png.0123456789ab.part"]
    info = json.loads((out / "run.json").read_text())
    assert info["finished_samples"] == 6 and info.get("resumed_after", 6) == kept and "nfe" in info
    assert told.out.split() == [str(out / name) for name in info["outputs"]]
    mean, alone = pixels(out / "photo_mean.png"), pixels(undisturbed / "photo_mean.png")
    assert np.abs(mean.astype(int) - alone.astype(int)).max() <= 1  # of rounded samples

    # There is nothing more to do, and nothing is written anew.
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in out.iterdir()}
    assert exit_code(monkeypatch, *run, "--resume") == 0
    assert capsys.readouterr().out == told.out
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in out.iterdir()} == before


def test_going_on_draws_what_is_damaged_again_and_needs_a_run(
    run: list[object],
    whole: dict[str, bytes],
    undisturbed: Path,
    tmp_path: Path,
    photo: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_code(monkeypatch, *run, "--resume") == 2
    assert "holds no run of photo to go on with" in capsys.readouterr().err
    assert exit_code(monkeypatch, *run, "--resume", "--overwrite") == 2
    finished = tmp_path / "finished"
    shutil.copytree(undisturbed, finished)
    (finished / "photo_4.png").write_bytes(whole["photo_4.png"][:1000])
    assert exit_code(monkeypatch, *run, "-o", finished, "--resume") == 0
    assert {file.name: file.read_bytes() for file in completions(finished)} == whole
    assert json.loads((finished / "run.json").read_text())["resumed_after"] == 4
    values = pixels(photo)
    values[0, 0] ^= 1
    Image.fromarray(values).save(photo)
    assert exit_code(monkeypatch, *run, "-o", finished, "--resume") == 2
    assert "is of another run: the picture differs" in capsys.readouterr().err


def test_of_four_runs_into_one_folder_one_writes_it(run: list[object], tmp_path: Path) -> None:
    running = [start(*run, "--seed", str(seed)) for seed in range(4)]
    ended = [finish(process) for process in running]
    codes = [code for code, _, _ in ended]
    assert sorted(codes) == [0, 2, 2, 2], ended
    assert all(re.search(r"another run is writing|interrupted run|exist", err) for code, _, err in ended if code)
    info = json.loads((tmp_path / "out" / "run.json").read_text())
    assert info["call"]["seed"] == codes.index(0) and info["finished_samples"] == 6
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(info["outputs"])


def test_runs_of_different_pictures_share_a_folder_at_once(run: list[object], photo: Path, tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(photo.read_bytes())
    running = [start("inpaint", tmp_path / f"{name}.png", *run[2:]) for name in names]
    ended = [finish(process) for process in running]
    assert [code for code, _, _ in ended] == [0, 0, 0], ended
    records = sorted(file.name for file in (tmp_path / "out").glob("*run.json"))
    assert len(records) == 3 and "run.json" in records
    for name, (_, out, _) in zip(names, ended, strict=True):
        info = json.loads(Path(out.split()[-1]).read_text())
        assert info["outputs"][0] == f"{name}_0.png" and info["finished_samples"] == 6


def test_a_long_run_asks_first(
    run: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, *run, "-n", "100000", "--set", "steps=900") == 2
    told = capsys.readouterr().err
    assert re.search(r"100000 samples, about \d+ (h|days).*of memory, at most .* on disk; add --yes", told)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("priorpaint.cli.running._LONG_SECONDS", 0.0)
    assert exit_code(monkeypatch, *run, "-n", "1", "--set", "steps=2") == 2
    assert exit_code(monkeypatch, *run, "-n", "1", "--set", "steps=2", "--yes") == 0
    assert re.search(r"Plan: 1 sample, about \d+ s, .* of memory, at most .* on disk\.", capsys.readouterr().err)


def test_a_slip_of_the_finger_is_refused_at_once(
    run: list[object], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(monkeypatch, *run, "-n", "999999999999") == 2
    assert "100000" in capsys.readouterr().err
