"""Runs as processes: kills at any moment, a full disk, too little memory, several at once, and going on afterwards."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from priorpaint.imaging import Picture
from priorpaint.inpainting.record import Record
from priorpaint.inpainting.result import Output
from tests import command_line
from tests.command_line import exit_code, start

resource = pytest.importorskip("resource")
finish = partial(command_line.finish, seconds=240)

# What a process does before the command line: a limit on file size or on memory, set when everything is imported.
LIMITED = """
import resource, sys
from priorpaint.cli import main
import priorpaint.inpainting.api
kind, amount = sys.argv.pop(1), int(sys.argv.pop(1))
if kind == "file":
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that writing fails as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (amount, amount))
else:
    pages = int(open("/proc/self/statm").read().split()[0])
    limit = pages * resource.getpagesize() + amount
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""

# A process that has imported everything, and for each line of its input makes a run that a signal ends.
FORKED = """
import json, os, signal, sys, time
import priorpaint.inpainting.api, priorpaint.inpainting.result
from priorpaint.__main__ import _interrupted, main
for line in sys.stdin:
    arguments, signum, seconds, stderr = json.loads(line)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
    child = os.fork()
    if not child:
        os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.signal(signal.SIGINT, _interrupted)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
        sys.argv = ["priorpaint", *arguments]
        main()
    end = time.monotonic() + seconds
    ended = os.waitpid(child, os.WNOHANG)
    while not ended[0] and time.monotonic() < end:
        time.sleep(min(0.005, max(0, end - time.monotonic())))
        ended = os.waitpid(child, os.WNOHANG)
    if not ended[0]:
        os.kill(child, signum)
        ended = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(ended[1]), flush=True)
"""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    return picture(tmp_path)


def picture(folder: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(values).save(folder / "photo.png")
    return folder / "photo.png"


@pytest.fixture
def run(photo: Path, prior: Path, tmp_path: Path) -> list[object]:
    return command(photo, prior, tmp_path / "out")


def command(photo: Path, prior: Path, out: Path) -> list[object]:
    """The command, of 6 samples of several steps each."""
    method = ["--method", "replacement", "--set", "steps=30", "--threads", "1", "--batch-size", "1"]
    return ["inpaint", photo, "--box", "10,12,9,8", "-o", out, "--prior", prior, "-n", "6", *method]


@pytest.fixture(scope="module")
def undisturbed(prior: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        assert exit_code(patch, *command(picture(folder), prior, folder / "out"), "--quiet") == 0
    return folder / "out"


@pytest.fixture
def whole(undisturbed: Path) -> dict[str, bytes]:
    """Its completions."""
    return {file.name: file.read_bytes() for file in completions(undisturbed)}


def completions(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("photo_*.png") if re.fullmatch(r"photo_\d+\.png", file.name))


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


def test_a_full_disk_leaves_whole_files_and_a_record(
    run: list[object], whole: dict[str, bytes], tmp_path: Path
) -> None:
    """No file may be larger than the smaller completions, so that one of the later ones cannot be written."""
    sizes = [len(whole[f"photo_{k}.png"]) for k in range(6)]
    first = next(k for k in range(6) if sizes[k] == max(sizes))
    limit = max(sizes) - 1
    out = tmp_path / "out"
    code, stdout, stderr = finish(start("file", limit, *run, program=("-c", LIMITED)))
    failed = next(k for k in range(6) if sizes[k] > limit)
    assert code == 2 and stdout == "" and f"photo_{failed}.png cannot be written" in stderr and failed == first
    assert "Traceback" not in stderr and len(stderr.split("priorpaint: ")[-1].splitlines()) == 1
    if not failed:
        assert not out.exists()
        return
    assert json.loads((out / "run.json").read_text())["finished_samples"] == failed
    assert {file.name: file.read_bytes() for file in completions(out)} == {
        f"photo_{k}.png": whole[f"photo_{k}.png"] for k in range(failed)
    }
    assert not list(out.glob(".*"))
    code, stdout, stderr = finish(start(*run, "--resume"))  # once there is room
    assert code == 0, stderr
    assert {file.name: file.read_bytes() for file in completions(out)} == whole


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory of a process is known on Linux only")
def test_too_little_memory_is_a_sentence(run: list[object], prior: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1200, 1200), (9, 90, 200)).save(tmp_path / "large.png")
    large = ["inpaint", tmp_path / "large.png", "--box", "100,100,1000,1000", *run[4:], "--set", "steps=2"]
    code, stdout, stderr = finish(start("memory", 150_000_000, *large, program=("-c", LIMITED)))
    assert (code, stdout) == (1, ""), stderr
    last = stderr.splitlines()[-1]
    assert last.startswith("priorpaint: there is not enough memory; use --batch-size 1") and "--max-memory" in last
    assert "Traceback" not in stderr


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the libraries of a process are known on Linux only")
@pytest.mark.parametrize("library", ["libtorch", "pydantic_core", "PIL/_imaging"])
def test_ctrl_c_while_libraries_are_imported_is_no_traceback(library: str, run: list[object], tmp_path: Path) -> None:
    process = start(*run)
    while library not in Path(f"/proc/{process.pid}/maps").read_text():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, _, stderr = finish(process)
    # Python ends itself by the signal where it came while a text was evaluated; shells say 130 of both.
    assert code in (130, -signal.SIGINT), stderr
    assert "Traceback" not in stderr and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_signals_at_any_moment(
    signum: signal.Signals, photo: Path, prior: Path, run: list[object], tmp_path: Path
) -> None:
    """What is under a final name is whole, exit codes are right, and runs are gone on with until they are finished.

    Of 34 runs for each signal 4 begin with the imports, and 30 behind them.
    """
    random, rounds = np.random.default_rng(int(signum)), 0
    process = start(program=("-c", FORKED), stdin=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None

    def forked(folder: Path, seconds: float, *options: str) -> tuple[int, str]:
        arguments = [*run, "-o", folder, "--set", "steps=8", *options]
        order = list(map(str, arguments)), int(signum), seconds, str(tmp_path / "stderr")
        print(json.dumps(order), file=process.stdin, flush=True)
        return int(process.stdout.readline()), (tmp_path / "stderr").read_text()

    forked(tmp_path / "first", 240)
    begun = time.monotonic()
    assert forked(tmp_path / "whole", 240)[0] == 0
    usual = time.monotonic() - begun
    whole = {file.name: file.read_bytes() for file in completions(tmp_path / "whole")}
    assert len(whole) == 6
    for index in range(34):
        out = tmp_path / f"out{rounds}"
        resumed = ["--resume"] if (out / "run.json").exists() else []
        if index < 4:
            running = start(*run, "-o", out, "--set", "steps=8", *resumed)
            time.sleep(random.uniform(0.2, 6))
            running.send_signal(signum)
            code, _, stderr = finish(running)
        else:
            code, stderr = forked(out, random.uniform(0, usual), *resumed)
        assert code in {0, 128 + signum, -signum}, stderr
        assert "Traceback" not in stderr
        for file in completions(out):
            assert file.read_bytes() == whole[file.name]
        if code == 0:
            check_finished(out, whole)
            rounds += 1
    out = tmp_path / f"out{rounds}"
    code, stderr = forked(out, 240, *(["--resume"] if (out / "run.json").exists() else []))
    assert code == 0, stderr
    check_finished(out, whole)
    process.stdin.close()
    assert finish(process)[0] == 0


def check_finished(out: Path, whole: dict[str, bytes]) -> None:
    """All files of a run are there, and no others."""
    assert {file.name: file.read_bytes() for file in completions(out)} == whole
    info = json.loads((out / "run.json").read_text())
    assert sorted(file.name for file in out.iterdir()) == sorted(info["outputs"])


def test_what_is_removed_meanwhile_is_written_again(
    run: list[object], whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, sample = tmp_path / "out", Record.sample

    def removed(record: Record) -> None:
        sample(record)
        if record.finished in (2, 6):
            shutil.rmtree(out)

    monkeypatch.setattr(Record, "sample", removed)
    assert exit_code(monkeypatch, *run, "--quiet") == 0
    check_finished(out, whole)


@pytest.mark.parametrize("finished", [0, 2])
def test_a_folder_that_becomes_a_file_is_a_sentence(
    finished: int,
    run: list[object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, write = tmp_path / "out", Output.write_completion

    def replaced(output: Output, index: int, image: Image.Image, picture: Picture) -> Path:
        if index == finished:
            shutil.rmtree(out)
            out.write_bytes(b"mine")
        return write(output, index, image, picture)

    monkeypatch.setattr(Output, "write_completion", replaced)
    assert exit_code(monkeypatch, *run, "--quiet") == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err == f"priorpaint: {out} cannot be made (File exists); choose another folder.\n"
    assert out.read_bytes() == b"mine"


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
