"""Who owns what: sessions, their pictures, and the folder in which all of it lies."""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from priorpaint.errors import UsageError
from priorpaint.imaging import Picture, read_picture, write_bytes_atomic

from .jobs import Job
from .limits import Limits, Refused
from .views import picture_view

_MOST_SESSIONS = 1000
PICTURE, MASK, VIEW = "picture", "mask.png", "view.png"


def new_id() -> str:
    """128 random bits that nobody guesses, for an address."""
    return secrets.token_urlsafe(16)


@dataclass
class Upload:
    """A picture of a session.

    Attributes:
        folder: with the file as it came (``picture``) and its view.
        stem: of the name that the user's file had, for downloads.
        size: (width, height) in pixels, upright.
    """

    id: str
    folder: Path
    stem: str
    size: tuple[int, int]
    mode: str
    format: str | None
    warnings: tuple[str, ...]
    transparent: bool

    @property
    def path(self) -> Path:
        """The untouched file."""
        return self.folder / PICTURE

    def read(self) -> Picture:
        """The picture, read again."""
        return read_picture(self.path.read_bytes())


@dataclass
class Session:
    """What one browser, or one script with its cookies, owns."""

    id: str
    folder: Path
    pictures: dict[str, Upload] = field(default_factory=dict)
    jobs: dict[str, Job] = field(default_factory=dict)
    seen: float = field(default_factory=time.monotonic)

    def picture(self, id: str) -> Upload:
        """One of its pictures.

        Raises:
            Refused: it has none of this id.
        """
        if id not in self.pictures:
            raise Refused(404, "there is no such picture; upload it again: the server keeps pictures for a while only.")
        return self.pictures[id]

    @property
    def unfinished(self) -> int:
        """How many of its jobs are not over; estimates are none."""
        return sum(not job.over and not job.estimate for job in list(self.jobs.values()))

    def job(self, id: str) -> Job:
        """One of its jobs.

        Raises:
            Refused: it has none of this id.
        """
        if id not in self.jobs:
            raise Refused(404, "there is no such job; start it again, for the server keeps results for a while only.")
        return self.jobs[id]


def bytes_in(folder: Path) -> int:
    """Bytes of all files below a folder; those that vanish meanwhile do not count."""
    total = 0
    for file in folder.rglob("*"):
        try:
            total += file.stat().st_size if file.is_file() else 0
        except OSError:
            continue
    return total


class Sessions:
    """All sessions. Files lie in ``root``, a folder for each session.

    Args:
        root: an empty folder of the server's own.
    """

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root, self.limits = root, limits
        self._all: dict[str, Session] = {}

    def find(self, id: str | None) -> Session | None:
        """The session of this id, which counts as seen."""
        session = self._all.get(id or "")
        if session is not None:
            session.seen = time.monotonic()
        return session

    def open(self) -> Session:
        """A new session.

        Raises:
            Refused: there are too many that have pictures or jobs; one that has none makes room.
        """
        if len(self._all) >= _MOST_SESSIONS and not self._drop_empty():
            raise Refused(503, "too many people are here; try again in a minute.", {"Retry-After": "60"})
        id = new_id()
        session = Session(id, self.root / new_id())
        self._all[id] = session
        return session

    def _drop_empty(self) -> bool:
        """Forget the one that was not seen for longest, of those without pictures and jobs."""
        empty = [one for one in self._all.values() if not one.pictures and not one.jobs]
        if not empty:
            return False
        oldest = min(empty, key=lambda one: one.seen)
        del self._all[oldest.id]
        shutil.rmtree(oldest.folder, ignore_errors=True)
        return True

    def check_space(self, session: Session, more: int) -> None:
        """Say that there is no room for ``more`` bytes.

        Raises:
            Refused: the session's quota, the server's or the disk would be over.
        """
        if bytes_in(session.folder) + more > self.limits.session:
            raise Refused(507, "your pictures and results take all the space that you have here; remove some.")
        if bytes_in(self.root) + more > self.limits.total or shutil.disk_usage(self.root).free < more:
            raise Refused(507, "the server's disk is full; try again later, or ask whoever runs it for more space.")

    def add_picture(self, session: Session, data: bytes, name: str) -> Upload:
        """Take in a picture's file.

        Args:
            name: that the user's file had; only what a file system bears of its stem is kept, for downloads.

        Raises:
            UsageError: it cannot be used.
            Refused: there is no room for it.
        """
        self.check_space(session, 2 * len(data))
        picture = read_picture(data)
        stem = "".join(one if one.isalnum() or one in "-_ ." else "_" for one in Path(name).stem).strip(" .")[:80]
        id = new_id()
        folder = session.folder / id
        folder.mkdir(parents=True)
        write_bytes_atomic(folder / PICTURE, data)
        write_bytes_atomic(folder / VIEW, picture_view(picture))
        transparent = picture.alpha is not None and bool((picture.alpha < 128).any())
        upload = Upload(
            id, folder, stem or "picture", picture.size, picture.mode, picture.format, picture.warnings, transparent
        )
        session.pictures[id] = upload
        return upload

    def remove_picture(self, session: Session, id: str) -> None:
        """Forget a picture that no job at work needs."""
        upload = session.picture(id)
        if any(job.picture == id and not job.over for job in list(session.jobs.values())):
            raise UsageError("a job at work needs this picture; cancel the job first.")
        del session.pictures[id]
        shutil.rmtree(upload.folder, ignore_errors=True)

    def remove_job(self, session: Session, job: Job) -> None:
        """Forget a job that is over; with ``--keep`` its files stay."""
        del session.jobs[job.id]
        Path(job.request["mask"]).unlink(missing_ok=True)
        if not job.kept:
            shutil.rmtree(job.folder, ignore_errors=True)

    def sweep(self) -> list[Session]:
        """Remove the sessions that nobody has asked for in a while and that have no job at work."""
        now, gone = time.monotonic(), []
        for session in list(self._all.values()):
            if now - session.seen < self.limits.idle or any(not job.over for job in list(session.jobs.values())):
                continue
            self._all.pop(session.id, None)
            shutil.rmtree(session.folder, ignore_errors=True)
            gone.append(session)
        return gone
