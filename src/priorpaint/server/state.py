"""What is alive while the server runs."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import Request, Response
from starlette.requests import HTTPConnection

from .guard import NO_TOKEN
from .jobs import JobQueue
from .limits import Limits, Refused
from .sessions import Session, Sessions

STATIC = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Options:
    """How a server is started.

    Attributes:
        hosts: names by which it may be asked, besides those of loopback.
        any_address: whether it may be asked by any IP address.
        token: that opens a session; None where only this computer reaches the server.
        priors: names and paths for `load_prior` that jobs may name, besides the embedded ones.
        keep: folder in which results stay; None is a temporary one.
        cookie: the cookie's name: cookies do not tell ports apart.
    """

    hosts: frozenset[str] = frozenset()
    any_address: bool = False
    token: str | None = None
    priors: tuple[str, ...] = ()
    keep: Path | None = None
    device: str | None = None
    threads: int | None = None
    offline: bool = False
    cookie: str = "priorpaint"
    limits: Limits = field(default_factory=Limits)


class State:
    """What routes need: options, sessions and the queue.

    Args:
        root: a folder of the server's own.
    """

    def __init__(self, options: Options, root: Path) -> None:
        self.options = options
        self.sessions = Sessions(root, options.limits)
        worker = {"device": options.device, "threads": options.threads, "offline": options.offline}
        self.queue = JobQueue(options.limits, worker)
        self.decoding = asyncio.Semaphore(2)  # pictures at a time; each takes up to 40 megapixels of memory

    def admits(self, request: HTTPConnection) -> bool:
        """Whether a request has an open session, or may open one."""
        return self._told_token(request) or self.sessions.find(request.cookies.get(self.options.cookie)) is not None

    def _told_token(self, request: HTTPConnection) -> bool:
        token = self.options.token
        said = request.headers.get("authorization", "").removeprefix("Bearer ")
        return token is None or hmac.compare_digest(said.encode(), token.encode())

    def session(self, request: Request, response: Response) -> Session:
        """The session that asks, or a new one, whose cookie goes with the answer.

        Raises:
            Refused: the token is missing or wrong.
        """
        found = self.sessions.find(request.cookies.get(self.options.cookie))
        if found is not None:
            return found
        if not self._told_token(request):
            raise Refused(401, NO_TOKEN)
        session = self.sessions.open()
        response.set_cookie(self.options.cookie, session.id, httponly=True, samesite="strict", path="/")
        return session
