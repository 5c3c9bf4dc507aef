"""What a stranger may ask of the server, and the sentence for whatever is more."""

from __future__ import annotations

from dataclasses import dataclass

from priorpaint.errors import PriorpaintError


class Refused(PriorpaintError):
    """A request that is answered with an HTTP status and one sentence.

    Attributes:
        status: the HTTP status code.
        headers: that go with it.
    """

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


@dataclass(frozen=True)
class Limits:
    """Limits of the server; sizes in bytes, times in seconds.

    Attributes:
        upload: of one request.
        samples: of one job.
        evaluations: calls of the prior for all samples of a job.
        seconds: that one job may take.
        waiting: jobs in the queue of all sessions; ``own`` of one session, the one at work included.
        session: of the files of one session; ``total`` of all of them.
        idle: after which a session that nobody asks for is removed with its files.
    """

    upload: int = 128 * 2**20
    samples: int = 16
    evaluations: int = 50_000
    seconds: float = 3600.0
    waiting: int = 8
    own: int = 4
    session: int = 2**30
    total: int = 8 * 2**30
    idle: float = 4 * 3600.0
