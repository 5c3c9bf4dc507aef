"""The process that computes: one JSON object a line comes in (run, cancel) and goes out (what happened).

A process of its own, so that a crash or a lack of memory ends a job and not the page. It ends when its input does.

Run as ``python -m priorpaint.server.worker``; it writes nothing but events to its standard output.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Queue
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from priorpaint.errors import CancelToken, PriorpaintError, out_of_memory
from priorpaint.imaging import Picture, read_picture, write_bytes_atomic
from priorpaint.imaging.sheets import colour_map
from priorpaint.inpainting.api import plan
from priorpaint.inpainting.events import Completion, Event, Loading, Step
from priorpaint.inpainting.plans import Plan, Stopped
from priorpaint.inpainting.record import Record
from priorpaint.inpainting.result import Output, Result, suffix_for
from priorpaint.priors import Prior
from priorpaint.priors.loading import load_prior
from priorpaint.priors.verify import doubts

from .masks import read_hole
from .views import LONGEST, png, view

STEM = "result"
"""The start of the names of a job's files."""
PREVIEW = "preview.png"
_STEP_SECONDS, _PREVIEW_SECONDS = 0.1, 0.4
_PREVIEW_SHARE = 0.1  # of the time, at most, goes into previews
_PREVIEW_LONGEST = 800
_NO_MEMORY = "there is not enough memory for this job; take fewer samples or a smaller picture."


class _Deadline(CancelToken):
    """A token that cancels itself after some seconds of work."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._end = time.monotonic() + seconds

    @property
    def late(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self._end

    @property
    def cancelled(self) -> bool:
        """Whether somebody cancelled, or the time is over."""
        return self._cancelled or self.late

    def check(self) -> None:
        """As for any token."""
        if self.late:
            self.cancel()
        super().check()


@dataclass
class _Job:
    """One job at work. ``request`` is what the server sent, see `jobs.Job.request`."""

    request: dict[str, Any]
    out: TextIO
    cancel: _Deadline
    _next_step: float = 0.0
    _next_preview: float = 0.0
    _icc: bytes | None = None
    _changed: int = 0

    def tell(self, event: str, **about: Any) -> None:
        """One line for the server."""
        self.out.write(json.dumps({"job": self.request["id"], "event": event, **about}) + "\n")
        self.out.flush()

    def run(self, prior: Prior) -> None:
        """Plan, say what it costs, and unless that is all draw the samples into files."""
        request = self.request
        picture = read_picture(Path(request["picture"]).read_bytes())
        mask = Path(request["mask"]).read_bytes()
        ready = plan(
            replace(picture, orientation=1),  # the mask was painted on the upright view
            mask,
            prior,
            request["method"],
            request["samples"],
            request["seeds"],
            opaque_holes=_transparent_inside(picture, mask),
            **request["options"],
            **request["settings"],
        )
        evaluations, seconds = ready.cost.forward + ready.cost.backward, ready.seconds()
        warnings = [*doubts(prior), *ready.warnings]
        about = {"evaluations": evaluations, "seconds": round(seconds, 2), "windows": len(ready.windows)}
        self.tell("planned", **about, warnings=warnings)
        most_calls, most_seconds = request["limits"]["evaluations"], request["limits"]["seconds"]
        if evaluations > most_calls or seconds > most_seconds:
            raise PriorpaintError(
                f"this job would take about {seconds:.0f} seconds and {evaluations} calls of the prior; this server "
                f"allows {most_seconds:.0f} and {most_calls}: take fewer samples, fewer steps or a smaller hole."
            )
        if request["estimate"]:
            self.tell("end", state="done", finished=0, changed=0)
            return
        self._icc = ready.picture.icc
        output = Output(request["folder"], STEM, suffix_for(None, ready.picture))
        try:
            with output.reserved(len(ready.seeds), ready.info, picture=ready.looks) as record:
                self._draw(ready, output, record)
        except Stopped:  # before the first sample; of such a run nothing stays
            self._end("cancelled", 0)

    def _draw(self, ready: Plan, output: Output, record: Record) -> None:
        folder = Path(self.request["folder"])

        def hear(event: Event) -> None:
            if isinstance(event, Loading):
                self.tell("loading", what=event.what)
            elif isinstance(event, Step):
                self._step(event, folder)
            elif isinstance(event, Completion):
                path = output.write_completion(event.index, event.image, ready.picture)
                record.sample()
                changed = changed_pixels(ready.picture, ready.known, path)
                self._changed += changed
                write_bytes_atomic(folder / f"view_{event.index}.png", png(view(event.image, self._icc)))
                self.tell("sample", index=event.index, file=path.name, changed=changed, seed=ready.seeds[event.index])

        try:
            state, result = "done", ready.run(hear, self.cancel)
        except PriorpaintError as error:
            if error.result is None:
                raise
            self._summary(error.result, output, record, folder)
            if not isinstance(error, Stopped):
                raise
            state, result = "cancelled", error.result
        else:
            self._summary(result, output, record, folder)
        self._end(state, len(result.images))

    def _end(self, state: str, finished: int) -> None:
        why = {}
        if self.cancel.late:
            why = {"message": "the time that this server gives a job is over; what was finished is kept."}
        self.tell("end", state=state, finished=finished, changed=self._changed, **why)

    def _summary(self, result: Result, output: Output, record: Record, folder: Path) -> None:
        output.write_summary(result, record)
        write_bytes_atomic(folder / "view_mean.png", png(view(result.mean, self._icc)))
        about: dict[str, Any] = {"samples": len(result.images), "nfe": result.info["nfe"]}
        if result.uncertainty is not None:
            inside = result.uncertainty[~result.known]
            top = float(np.percentile(inside, 99.5)) if inside.size else 0.0
            write_bytes_atomic(folder / "view_uncertainty.png", png(overlay(result, top)))
            about |= {"largest": round(top, 4), "mean": round(float(inside.mean()), 4)}
        self.tell("statistics", **about)

    def _step(self, step: Step, folder: Path) -> None:
        now, share = time.monotonic(), step.done / step.total
        if now < self._next_step:
            return
        self._next_step = now + _STEP_SECONDS
        left = None if step.seconds_left is None else round(step.seconds_left, 1)
        about = {"share": round(share, 4), "seconds_left": left, "samples": list(step.samples)}
        self.tell("step", **about, window=list(step.window), scale=step.scale)
        if now < self._next_preview:
            return
        write_bytes_atomic(folder / PREVIEW, png(view(step.preview(), self._icc, _PREVIEW_LONGEST)))
        spent = time.monotonic() - now
        self._next_preview = time.monotonic() + max(_PREVIEW_SECONDS, spent / _PREVIEW_SHARE)
        self.tell("preview", samples=list(step.samples), window=list(step.window))


def _transparent_inside(picture: Picture, mask: bytes) -> bool:
    """Whether nobody would see what is painted somewhere in the hole, unless it becomes opaque."""
    return picture.alpha is not None and bool((picture.alpha < 128)[read_hole(mask, picture.size)].any())


def changed_pixels(picture: Picture, known: NDArray[np.bool_], path: Path) -> int:
    """How many known pixels of the file at ``path`` are not the picture's own, opacity included.

    Args:
        known: (H, W), True where a pixel is to be the picture's own.
    """
    back = read_picture(path)
    if back.size != picture.size:
        return int(known.sum())
    there, own = (np.ascontiguousarray(one.values()) for one in (back, picture))
    if there.dtype != own.dtype or there.shape != own.shape:
        return int(known.sum())
    differs = (there != own).any(axis=2)
    opacity = [np.full(known.shape, 255, np.uint8) if one.alpha is None else one.alpha for one in (back, picture)]
    return int(((differs | (opacity[0] != opacity[1])) & known).sum())


def overlay(result: Result, top: float) -> Image.Image:
    """The uncertainty as colours, transparent on known pixels, at most as large as a `view`; ``top`` is brightest."""
    assert result.uncertainty is not None
    colours = np.zeros((*result.known.shape, 4), dtype=np.uint8)
    hole = ~result.known
    colours[hole, :3] = colour_map(np.clip(result.uncertainty[hole] / (top or 1.0), 0, 1))
    colours[hole, 3] = 255
    image = Image.fromarray(colours)
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    return image


class Worker:
    """Runs one job after the other; the prior of the last one stays loaded."""

    def __init__(self, out: TextIO, device: str | None, offline: bool) -> None:
        self._out, self._device, self._offline = out, device, offline
        self._jobs: Queue[dict[str, Any]] = Queue()
        self._lock = threading.Lock()
        self._current: _Job | None = None
        self._cancelled: set[str] = set()
        self._prior: tuple[str, Prior] | None = None

    def listen(self, lines: TextIO) -> None:
        """Take in what the server says, until it is gone; then the process ends at once."""
        for line in lines:
            message = json.loads(line)
            if message["op"] != "cancel":
                self._jobs.put(message)
                continue
            with self._lock:
                self._cancelled.add(message["id"])
                if self._current is not None and self._current.request["id"] == message["id"]:
                    self._current.cancel.cancel()
        os._exit(0)

    def work(self) -> None:
        """Run jobs for ever."""
        while True:
            message = self._jobs.get()
            if message["op"] == "load":
                with suppress(PriorpaintError):  # a job that wants it will say what is wrong
                    self._loaded(message["prior"])
                continue
            request = message["job"]
            job = _Job(request, self._out, _Deadline(request["limits"]["seconds"]))
            with self._lock:
                self._current = job
                if request["id"] in self._cancelled:
                    job.cancel.cancel()
            try:
                job.tell("started")
                if not self._has(request["prior"]):
                    job.tell("loading", what=f"the prior {request['prior']}")
                job.run(self._loaded(request["prior"]))
            except PriorpaintError as error:
                job.tell("failed", message=_NO_MEMORY if isinstance(error, MemoryError) else str(error))
            except Exception as error:
                words = f"the job failed ({type(error).__name__}: {error}); the server's terminal may say more."
                job.tell("failed", message=_NO_MEMORY if out_of_memory(error) else words)
            with self._lock:
                self._current = None
                self._cancelled.discard(request["id"])

    def _has(self, spec: str) -> bool:
        return self._prior is not None and self._prior[0] == spec

    def _loaded(self, spec: str) -> Prior:
        if self._prior is None or not self._has(spec):
            self._prior = None  # its memory is free before the next one is read
            self._prior = spec, load_prior(spec, device=self._device, offline=self._offline)
        return self._prior[1]


def main() -> None:
    """Serve one server over standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the server, which ends this process
    options = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no event
    if options["threads"] is not None:
        import torch

        torch.set_num_threads(options["threads"])
    worker = Worker(out, options["device"], options["offline"])
    threading.Thread(target=worker.listen, args=(sys.stdin,), daemon=True).start()
    worker.work()


if __name__ == "__main__":
    main()
