"""The executor of one machine: spawned processes, one a device, with a pipe each.

Neither joblib nor ``concurrent.futures``: there, one worker that dies (of memory, of a broken driver) takes the items
of all others with it. Here it is replaced, and its item is tried once more, then listed as failed.
"""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from ..errors import Cancelled, CancelToken, PriorpaintError, UsageError
from .runner import Event, Item, Step, Work, done_or_failed, sentence_of

_TRIES = 2
_POLL = 0.2  # seconds after which the token is looked at again
_STEPS = 0.5  # seconds between two steps that a worker tells
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")  # read when torch is imported


@dataclass(frozen=True)
class Processes:
    """The executor with a process for each device.

    Args:
        make: called once in every process with its device; returns what does the tasks there. It is pickled.
        devices: of the processes, such as ``["cuda:0", "cuda:1"]`` or ``["cpu", "cpu"]``.
        threads: CPU threads of each process; None is torch's choice.
    """

    make: Callable[[str], Work]
    devices: Sequence[str]
    threads: int | None = None

    def __call__(self, items: Iterator[Item], cancel: CancelToken, hear: Callable[[Event], None]) -> None:
        """As `Executor`.

        Raises:
            PriorpaintError: a process cannot begin its work, or dies before it does.
        """
        pool = _Pool(self, items, hear)
        try:
            pool.run(cancel)
        finally:
            pool.end()


@dataclass(eq=False)
class _Worker:
    """A process as its starter sees it."""

    process: Any
    pipe: Connection
    device: str
    ready: bool = False
    item: Item | None = None


@dataclass
class _Pool:
    """The processes of one run, and the items in flight."""

    how: Processes
    items: Iterator[Item]
    hear: Callable[[Event], None]
    workers: list[_Worker] = field(default_factory=list)
    again: deque[Item] = field(default_factory=deque)
    tries: dict[str, int] = field(default_factory=dict)
    exhausted: bool = False

    def run(self, cancel: CancelToken) -> None:
        """Until all items are done or listed."""
        first = self._next()  # where nothing is left, no process is worth its start
        if first is None:
            return
        self.again.append(first)
        self.workers = [self._started(device) for device in self.how.devices]
        while self.workers:
            if cancel.cancelled:
                self._stop()
                raise Cancelled("the run was cancelled.")
            pipes = {worker.pipe: worker for worker in self.workers}
            for pipe in wait(list(pipes), _POLL):
                worker = pipes[pipe]  # type: ignore[index]
                if worker in self.workers:  # and not ended by what another one said
                    self._read(worker, cancel)

    def end(self) -> None:
        """No process is left behind, whatever has happened."""
        for worker in self.workers:
            worker.process.kill()  # most have ended by themselves
            worker.process.join()
            worker.pipe.close()

    def _started(self, device: str) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        with _environment(self.how.threads):
            process = context.Process(target=_work, args=(theirs, self.how.make, device), daemon=True)
            process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        return _Worker(process, ours, device)

    def _next(self) -> Item | None:
        if self.again:
            return self.again.popleft()
        item = None if self.exhausted else next(self.items, None)
        self.exhausted = item is None
        return item

    def _read(self, worker: _Worker, cancel: CancelToken) -> None:
        try:
            kind, value = worker.pipe.recv()
        except (EOFError, OSError):
            if not cancel.cancelled:
                self._replace(worker)
            return
        if kind == "broken":
            raise value
        if kind == "step":
            assert worker.item is not None
            self.hear(Event("step", worker.item, value))
            return
        worker.ready = True
        if kind != "ready":
            self._settle(worker, kind, value)
        self._give(worker)

    def _settle(self, worker: _Worker, kind: str, value: Any) -> None:
        item, worker.item = worker.item, None
        assert item is not None
        self.tries.pop(item.key, None)
        failed = kind == "failed"
        self.hear(Event("failed", item, error=value) if failed else Event("done", item, 1.0, record=value))

    def _give(self, worker: _Worker) -> None:
        """The next item, or where there is none the end; an item that is tried once more may still come."""
        item = self._next()
        if item is None:
            if not any(other.item for other in self.workers):
                self._stop()
            return
        worker.item = item
        if item.key not in self.tries:
            self.hear(Event("started", item))
        with suppress(OSError):  # a dead process is told by the end of its pipe
            worker.pipe.send(item)

    def _replace(self, worker: _Worker) -> None:
        self.workers.remove(worker)
        worker.process.join()
        worker.pipe.close()
        code = worker.process.exitcode
        how = f"signal {-code}" if code and code < 0 else f"exit code {code}"
        if not worker.ready:
            raise PriorpaintError(
                f"a worker on {worker.device} ended ({how}) before its first item; use fewer workers."
            )
        self.workers.append(self._started(worker.device))
        item = worker.item
        if item is None:
            return
        self.tries[item.key] = self.tries.get(item.key, 0) + 1
        if self.tries[item.key] < _TRIES:
            self.again.append(item)
            self._wake()
            return
        del self.tries[item.key]
        self.hear(
            Event("failed", item, error=f"its worker ended {_TRIES} times ({how}); there may be too little memory.")
        )

    def _wake(self) -> None:
        """Give what is to be tried again to a worker that waits."""
        idle = next((one for one in self.workers if one.ready and one.item is None), None)
        if idle is not None:
            self._give(idle)

    def _stop(self) -> None:
        """Tell every process to end at its next step, and wait for that."""
        for worker in self.workers:
            with suppress(OSError):
                worker.pipe.send(None)
        for worker in self.workers:
            if not worker.ready:
                worker.process.kill()
            self._hear_out(worker)
        self.end()
        self.workers = []

    def _hear_out(self, worker: _Worker) -> None:
        """What a process still says before it ends: an item may just have been finished."""
        with suppress(EOFError, OSError):
            while True:
                kind, value = worker.pipe.recv()
                if kind in ("done", "failed"):
                    self._settle(worker, kind, value)


@contextmanager
def _environment(threads: int | None) -> Iterator[None]:
    """What a process that is started inside finds in its environment."""
    before = {name: os.environ.get(name) for name in _THREADS}
    if threads is not None:
        os.environ.update(dict.fromkeys(_THREADS, str(threads)))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _work(pipe: Connection, make: Callable[[str], Work], device: str) -> None:
    """What a process does: items from its pipe until there is none, or until its starter is gone."""
    for signum in (signal.SIGINT, signal.SIGTERM):  # which a terminal or a cluster sends to all; the starter decides
        signal.signal(signum, signal.SIG_IGN)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError, Cancelled):
        try:
            work = make(device)
        except PriorpaintError as error:
            pipe.send(("broken", error))
            return
        except Exception as error:  # which may not be picklable
            pipe.send(("broken", PriorpaintError(f"a worker on {device} cannot begin ({sentence_of(error)}).")))
            return
        pipe.send(("ready", None))
        while (item := pipe.recv()) is not None:
            try:
                event = done_or_failed(work, item, _stepper(pipe))
            except UsageError as error:
                pipe.send(("broken", error))
                return
            pipe.send((event.kind, event.error if event.kind == "failed" else event.record))


def _stepper(pipe: Connection) -> Step:
    told = time.monotonic()

    def step(share: float) -> None:
        nonlocal told
        if pipe.poll():
            pipe.recv()  # nothing but the wish to stop comes now; where the starter is gone, EOFError
            raise Cancelled("the run was cancelled.")
        if time.monotonic() - told >= _STEPS:
            told = time.monotonic()
            pipe.send(("step", share))

    return step
