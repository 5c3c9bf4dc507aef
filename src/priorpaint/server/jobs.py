"""Jobs, their events, the queue, and the worker process that the queue feeds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .limits import Limits, Refused

_OFTEN = ("step", "preview")  # events of which a late listener needs the last one only
_LINE = 2**22
_GRACE = 120.0  # seconds beyond the limit of a job for which its worker may be silent
_LAST_WORDS = 5.0  # seconds that a worker has to end by itself


@dataclass
class Job:
    """What a session asked for, and what has happened to it.

    Attributes:
        folder: of its results.
        picture: id of the picture; ``mask``: the file of the mask.
        request: what the worker is sent.
        estimate: whether it only says what a job would cost.
        state: queued, running, done, cancelled or failed.
        kept: whether its files outlive the server.
        unwanted: whether it was cancelled while it was at work, which its worker may not know yet.
    """

    id: str
    folder: Path
    picture: str
    stem: str
    request: dict[str, Any]
    estimate: bool = False
    kept: bool = False
    unwanted: bool = False
    state: str = "queued"
    created: float = field(default_factory=time.time)
    planned: dict[str, Any] | None = None
    samples: list[dict[str, Any]] = field(default_factory=list)
    statistics: dict[str, Any] | None = None
    message: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    _number: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "cancelled", "failed")

    def happened(self, event: dict[str, Any]) -> None:
        """Take in an event; it gets the next number. Of steps and previews, only the last one is kept."""
        name = event["event"]
        if name == "started":
            self.state = "running"
        elif name == "planned":
            self.planned = {key: value for key, value in event.items() if key not in ("event", "job")}
        elif name == "sample":
            self.samples.append({key: event[key] for key in ("index", "file", "changed", "seed")})
        elif name == "statistics":
            self.statistics = {key: value for key, value in event.items() if key not in ("event", "job")}
        elif name == "failed":
            self.state, self.message = "failed", event["message"]
        elif name == "end":
            self.state, self.message = event["state"], event.get("message")
        self._number += 1
        if name in _OFTEN:
            self.events = [one for one in self.events if one["event"] != name]
        self.events.append({**event, "id": self._number})
        self._news.set()
        self._news = asyncio.Event()

    async def listen(self, after: int, beat: float = 15.0) -> AsyncIterator[dict[str, Any] | None]:
        """The events with a number above ``after``, as they come, to the last one; None where nothing came for a while.

        Args:
            beat: how long that is, in seconds.
        """
        while True:
            news = self._news
            for event in [one for one in self.events if one["id"] > after]:
                after = event["id"]
                yield event
            if self.over and after >= self._number:
                return
            if news is not self._news:
                continue
            try:
                await asyncio.wait_for(news.wait(), beat)
            except asyncio.TimeoutError:  # noqa: UP041 - another class before Python 3.11
                yield None


class JobQueue:
    """A bounded queue of jobs, and the one process that works them off.

    Args:
        options: of `worker.main`: device, threads, offline.
    """

    def __init__(self, limits: Limits, options: dict[str, Any]) -> None:
        self.limits, self.options = limits, options
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._wake, self._starting = asyncio.Event(), asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """End the worker; what it has written stays."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _LAST_WORDS)
        except asyncio.TimeoutError:  # noqa: UP041
            process.kill()
            await process.wait()

    @property
    def pid(self) -> int | None:
        """Of the worker process; None before its first job."""
        return None if self._process is None else self._process.pid

    def check_room(self, own: int, estimate: bool = False) -> None:
        """Say that no job can be taken in.

        Args:
            own: jobs of the same session that are not over, estimates left out.
            estimate: whether it is one; of these as many can wait beside the jobs, whose place they do not take.

        Raises:
            Refused: the queue is full.
        """
        if own >= self.limits.own:
            raise Refused(503, f"you have {own} jobs waiting already; wait for one to end.", {"Retry-After": "10"})
        if sum(job.estimate == estimate for job in self._waiting) >= self.limits.waiting:
            raise Refused(503, "the queue is full; try again in half a minute.", {"Retry-After": "30"})

    def add(self, job: Job) -> int:
        """Put a job at the end of the queue; how many are before it."""
        ahead = len(self._waiting) + (self._current is not None)
        job.happened({"event": "queued", "job": job.id, "ahead": ahead})
        self._waiting.append(job)
        self._wake.set()
        return ahead

    async def cancel(self, job: Job) -> None:
        """Stop a job within one call of its prior; what is finished stays."""
        if job in self._waiting:
            self._waiting.remove(job)
            job.happened({"event": "end", "job": job.id, "state": "cancelled", "finished": 0, "changed": 0})
        elif job is self._current:
            job.unwanted = True
            await self._send({"op": "cancel", "id": job.id})

    async def warm(self, prior: str) -> None:
        """Have the worker load a prior while nobody waits for it, so that the first job need not."""
        if self._process is None:
            with contextlib.suppress(OSError):  # a job will say what is wrong
                await self._started()
                await self._send({"op": "load", "prior": prior})

    async def _started(self) -> asyncio.subprocess.Process:
        """The worker process; a new one where there is none or it has died."""
        async with self._starting:
            if self._process is None or self._process.returncode is not None:
                command = [sys.executable, "-m", "priorpaint.server.worker", json.dumps(self.options)]
                pipe = asyncio.subprocess.PIPE
                self._process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=_LINE)
            return self._process

    async def _send(self, message: dict[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(ConnectionError):  # a worker that has died is told when its output ends
            process.stdin.write((json.dumps(message) + "\n").encode())
            await process.stdin.drain()

    async def _work(self) -> None:
        while True:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            self._current = self._waiting.popleft()
            try:
                await self._run(self._current)
            except Exception as error:  # whatever happens to one job, the next one gets its turn
                await self._failed(self._current, error)
            finally:
                self._current = None

    async def _failed(self, job: Job, error: Exception) -> None:
        """Tell that a job was lost, with the process, whose further lines nobody could tell from a new job's."""
        if isinstance(error, asyncio.TimeoutError):
            words = "the process that computes has said nothing for too long and was ended; try a smaller picture."
        else:
            words = f"the job was lost ({type(error).__name__}: {error}); start it again."
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if not job.over:
            job.happened({"event": "failed", "job": job.id, "message": words})

    async def _run(self, job: Job) -> None:
        process = await self._started()
        assert process.stdout is not None
        await self._send({"op": "run", "job": job.request})
        if job.unwanted:  # said while the process started, when nobody could hear it
            await self._send({"op": "cancel", "id": job.id})
        while not job.over:
            line = await asyncio.wait_for(process.stdout.readline(), self.limits.seconds + _GRACE)
            if not line:
                job.happened({"event": "failed", "job": job.id, "message": _death(await process.wait())})
                return
            job.happened(json.loads(line))


def _death(code: int) -> str:
    """Why a worker is gone, in a sentence."""
    if code >= 0:
        how = f"ended with exit code {code}"
    else:
        try:
            how = f"was ended by {signal.Signals(-code).name}"
        except ValueError:
            how = f"was ended by signal {-code}"
    return (
        f"the process that computes {how}, which is most often a lack of memory; finished samples are kept, and a new "
        "process takes the next job: try a smaller picture or fewer samples."
    )
