"""What `priorpaint batch` does with 1,000 pictures of which some cannot be done, killed ten times, and what it costs.

    python benchmarks/many_pictures.py --photos ../shared/data/photos-cid22/val --json out.json
    python benchmarks/many_pictures.py --photos FOLDER --pictures 60 --kills 2 --tiny 200 --rounds 1

1. Small crops of photos, with faults planted among them; one run that nothing disturbs, and one that is killed
   (SIGKILL) at random moments and gone on with. Every picture must be done or listed in both, with the same sentence,
   and all files but the records of the runs must be the same bytes.
2. Seconds an item of the executor beside a plain loop of `inpaint` over the same pictures, in turn, and of 10,000 items
   with nothing to compute: listing and hashing, running, resuming, and the memory of the process that hands them out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from priorpaint.batch import Processes, Store, run_all
from priorpaint.batch.entries import MaskFiles, find_entries
from priorpaint.batch.pictures import Request
from priorpaint.batch.runner import Record, Save, Step, Work
from priorpaint.imaging.reading import FILE_FORMATS
from priorpaint.imaging.writing import FORMATS
from priorpaint.inpainting.api import plan as plan_job
from priorpaint.priors.loading import load_prior

FAULTS = ("empty", "truncated", "wrong mask", "full mask", "16 bits", "CMYK", "animated", "folder")
FINE = ("16 bits",)  # which is done
PRIOR = "avatars"


def main() -> None:
    """Print one JSON object, and write it where that is asked for."""
    options = _options()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "killed": lambda: _killed(Path(folder), options),
            "overhead": lambda: _overhead(Path(folder), options),
            "tiny": lambda: _tiny(Path(folder), options.tiny),
        }
        figures = {name: parts[name]() for name in options.part or parts}
    text = json.dumps(figures, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="a folder of photos")
    parser.add_argument(
        "--part", action="append", choices=("killed", "overhead", "tiny"), help="repeatable; default: all"
    )
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--tiny", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def opened(photos: Path) -> list[Image.Image]:
    """Some photos of a folder."""
    files = sorted(path for path in photos.iterdir() if path.suffix.lower() in FORMATS)
    return [Image.open(path, formats=FILE_FORMATS).convert("RGB") for path in files[:20]]


def write_pictures(folder: Path, photos: Path, count: int, seed: int) -> int:
    """``count`` crops in subfolders and a mask each, every 25th with a fault; returns how many cannot be done."""
    rng, images, failing = np.random.default_rng(seed), opened(photos), 0
    for i in range(count):
        image, (width, height) = images[i % len(images)], (int(rng.integers(32, 49)), 32)
        left, top = int(rng.integers(image.width - width)), int(rng.integers(image.height - height))
        crop = image.crop((left, top, left + width, top + height))
        name = f"{i % 7}/{i:04}"
        for part in ("pictures", "masks"):
            (folder / part / name).parent.mkdir(parents=True, exist_ok=True)
        fault = FAULTS[i // 25 % len(FAULTS)] if i % 25 == 12 else ""
        failing += bool(fault) and fault not in FINE
        _write_mask(folder / "masks" / f"{name}.png", crop.size, fault, rng)
        _write_picture(folder / "pictures" / f"{name}.png", crop, fault)
    return failing


def _write_mask(path: Path, size: tuple[int, int], fault: str, rng: np.random.Generator) -> None:
    width, height = (size[0] + 1, size[1]) if fault == "wrong mask" else size
    values = np.full((height, width), 255 if fault == "full mask" else 0, dtype=np.uint8)
    left, top = int(rng.integers(width - 12)), int(rng.integers(height - 12))
    values[top : top + 12, left : left + 12] = 255
    Image.fromarray(values).save(path)


def _write_picture(path: Path, crop: Image.Image, fault: str) -> None:
    if fault == "folder":
        path.mkdir()
    elif fault == "empty":
        path.touch()
    elif fault == "16 bits":
        Image.fromarray(np.asarray(crop.convert("L")).astype(np.uint16) * 257).save(path)
    elif fault == "CMYK":
        crop.convert("CMYK").save(path, format="JPEG")
    elif fault == "animated":
        crop.save(path, format="PNG", save_all=True, append_images=[crop.rotate(90), crop.rotate(180)])
    else:
        crop.save(path)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[:300])


def _start(folder: Path, out: Path) -> subprocess.Popen[str]:
    options = ["--masks", str(folder / "masks"), "--prior", PRIOR, "-n", "2", "--set", "steps=2", "--resume", "--json"]
    command = [sys.executable, "-m", "priorpaint", "batch", str(folder / "pictures"), "-o", str(out), *options]
    return subprocess.Popen(
        [*command, "--workers", "1", "--threads", "1", "--quiet"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def _events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def _killed(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The two runs, and that they are one.

    Raises:
        SystemExit: they are not.
    """
    failing = write_pictures(folder, options.photos, options.pictures, options.seed)
    begun = time.monotonic()
    calm = _start(folder, folder / "calm")
    last = [*_events(calm)][-1]
    seconds = time.monotonic() - begun
    _check(calm.wait() == 3, "the run that nothing disturbs must end with 3")
    _check((last["done"], last["failed"]) == (options.pictures - failing, failing), f"planted {failing}, {last}")
    rng = random.Random(options.seed)
    moments = sorted(rng.sample(range(1, options.pictures - failing), options.kills))
    begun_twice, going_on, started = 0, [], set[str]()
    for moment in [*moments, None]:
        at, process = time.monotonic(), _start(folder, folder / "killed")
        kept = first = 0
        for event in _events(process):
            kept += event["event"] in ("kept", "done")
            if event["event"] == "started":
                first = first or time.monotonic()
                begun_twice += event["out"] in started
                started.add(event["out"])
            if event["event"] == "failed":
                started.discard(event["out"])  # which every run tries again
            if moment is not None and kept >= moment and process.poll() is None:
                time.sleep(rng.uniform(0, 0.2))
                os.kill(process.pid, signal.SIGKILL)  # and what it said before that is still read
        if first and moment != moments[0]:
            going_on.append(first - at)
        code = process.wait()
        _check(code == (-signal.SIGKILL if moment is not None else 3), f"a run ended with {code}")
    files = _compare(folder / "calm", folder / "killed")
    return {
        "pictures": options.pictures, "failed": failing, "kills": options.kills, "files": files,
        "seconds_undisturbed": round(seconds, 1), "begun_twice": begun_twice,
        "seconds_to_go_on": round(statistics.median(going_on), 2),
    }  # fmt: skip


def _compare(calm: Path, killed: Path) -> int:
    """How many files are the same; all but logs and records, which have times in them, must be."""
    names = [{str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()} for root in (calm, killed)]
    _check({*names[0]} == {n for n in names[1] if not n.endswith(".lock")}, f"{len(names[0] ^ names[1])} files differ")
    same = [n for n in names[0] if not n.endswith((".json", ".jsonl", ".csv"))]
    for name in same:
        _check((calm / name).read_bytes() == (killed / name).read_bytes(), f"{name} differs")
    done = [{record["key"]: record["out"] for record in Store(root).done()} for root in (calm, killed)]
    failed = [{key: record["error"] for key, record in Store(root).failed().items()} for root in (calm, killed)]
    _check(done[0] == done[1] and failed[0] == failed[1], "the logs say different things")
    lines = (killed / "done.jsonl").read_text().count("\n")
    _check(lines == len(done[1]), f"{lines} lines of {len(done[1])} finished pictures")
    return len(same)


def _check(fine: bool, sentence: str) -> None:
    if not fine:
        sys.exit(f"many_pictures.py: {sentence}")


def _overhead(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """CPU seconds a picture (2 samples with 20 evaluations each): all of a plain loop, and what the executor's own
    process adds to those of its worker, which does the same as the loop."""
    prior = load_prior(PRIOR, device="cpu")
    for i, image in enumerate(opened(options.photos)):
        path = folder / "fine" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        image.crop((0, 0, 32, 32)).save(path)
    entries = find_entries([str(folder / "fine")], MaskFiles())
    spent: dict[str, list[float]] = {"executor": [], "loop": []}
    for i in range(options.rounds):
        begun = time.process_time()
        for entry in entries:
            job = plan_job(entry.picture, None, prior, num_samples=2, steps=20, boxes=[(8, 8, 12, 12)])
            job.run().save(folder / f"loop{i}", entry.out)
        spent["loop"].append((time.process_time() - begun) / len(entries))
        request = _request(folder / f"batch{i}", boxes=[(8, 8, 12, 12)], steps=20)
        store, moments = Store(request.out), list[float]()
        run_all(
            store, request.items(prior, entries, store), Processes(request.work, ["cpu"], 1),
            on_event=lambda event, moments=moments: moments.append(time.process_time())
            if event.kind == "done" else None,
        )  # fmt: skip
        spent["executor"].append((moments[-1] - moments[0]) / (len(moments) - 1))
    medians = {name: statistics.median(some) for name, some in spent.items()}
    return {**medians, "share": round(medians["executor"] / medians["loop"], 4)}


def _request(out: Path, *, steps: int, **arguments: Any) -> Request:
    plain = {"prior": PRIOR, "prior_flags": None, "offline": False, "mask": None, "num_samples": 2, "seed": 0}
    return Request.of(out, {**plain, **arguments}, {"steps": steps}, None, True)


def _null(device: str) -> Work:
    def work(task: object, step: Step) -> tuple[Record, Save]:
        return {}, lambda: None

    return work


def _tiny(folder: Path, count: int) -> dict[str, Any]:
    """Seconds and peak memory of items with nothing to compute."""
    pictures = folder / "tiny"
    for i in range(count):
        path = pictures / f"{i % 100:02}" / f"{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(i.to_bytes(8, "little"))
    prior, out = load_prior(PRIOR, device="cpu"), folder / "null"
    request = _request(out, steps=2)
    figures: dict[str, Any] = {"items": count}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name in ("run", "resume"):
        begun = time.monotonic()
        entries = find_entries([str(pictures)], MaskFiles())
        listed = time.monotonic()
        store = Store(out)
        run_all(store, request.items(prior, entries, store), Processes(_null, ["cpu"], 1))
        figures[name] = {"listing": round(listed - begun, 2), "rest": round(time.monotonic() - listed, 2)}
        _check(len(store) == count, f"{len(store)} of {count} items are finished")
    figures["peak_bytes_more"] = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    return figures


if __name__ == "__main__":
    main()
