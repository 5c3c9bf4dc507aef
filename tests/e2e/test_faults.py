"""Runs that the system breaks off: signals at any moment, full disks, too little memory, a folder that vanishes."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from priorpaint import cli
from priorpaint.errors import PriorError
from priorpaint.imaging import Picture
from priorpaint.inpainting.record import Record
from priorpaint.inpainting.result import Output
from tests import command_line
from tests.command_line import exit_code, start
from tests.e2e.several import check_finished, completions

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


def own_disks() -> bool:
    """Whether anybody may mount a file system that only his processes see."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not own_disks(), reason="needs unshare -Urm, which Linux systems may forbid")
def test_a_disk_that_fills_while_it_runs(
    run: list[object],
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A disk of 64 kB, of which the plan needs 45 at least and all files 145; what is on it is copied in the end."""
    out, disk = tmp_path / "out", tmp_path / "disk"
    disk.mkdir()
    mount = 'mount -t tmpfs -o size=64k none "$0"; "$@"; code=$?; cp -r "$0/out" "$0/.."; exit $code'
    program = [sys.executable, "-m", "priorpaint", *map(str, run), "-o", str(disk / "out")]
    command = ["unshare", "-Urm", "sh", "-c", mount, str(disk), *program]
    code, stdout, stderr = finish(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    last = stderr.splitlines()[-1]
    assert (code, stdout) == (2, "") and "cannot be written (No space left on device)" in last, stderr
    assert "Traceback" not in stderr and not list(out.glob(".*.part"))
    files = {file.name: file.read_bytes() for file in completions(out)}
    assert 1 <= json.loads((out / "run.json").read_text())["finished_samples"] <= len(files) < 6
    assert files.items() <= whole.items()
    assert exit_code(monkeypatch, *run, "--resume", "--quiet") == 0, capsys.readouterr().err
    check_finished(out, whole)


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


def test_ctrl_c_while_python_ends_is_no_traceback() -> None:
    ending = """
import atexit, os, signal
from priorpaint.__main__ import main
atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
main()
"""
    code, stdout, stderr = finish(start("--version", program=("-c", ending)))
    assert (code, stderr) == (0, "") and stdout


def test_an_interrupt_that_a_library_swallows_is_no_damaged_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PyTorch's C code clears a KeyboardInterrupt that it meets, and goes on to say something else."""

    def swallowed(*_: object, **__: object) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        raise PriorError("x.safetensors is damaged; download it again.")

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, "run_commands", swallowed)
    monkeypatch.setattr(sys, "argv", ["priorpaint", "priors"])
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 130 and capsys.readouterr().err == "priorpaint: stopped.\n"


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
            maps = Path(f"/proc/{running.pid}/maps")
            while maps.exists() and "libtorch" not in maps.read_text():  # before, Python itself is being imported
                time.sleep(0.01)
            time.sleep(random.uniform(0, 6))
            running.send_signal(signum)
            code, _, stderr = finish(running)
        else:
            code, stderr = forked(out, random.uniform(0, 0.7 * usual), *resumed)
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
    assert finish(process)[0] == 0


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
    last = told.err.splitlines()[-1]
    assert (told.out, last) == ("", f"priorpaint: {out} cannot be made (File exists); choose another folder.")
    assert "Traceback" not in told.err
    assert out.read_bytes() == b"mine"
