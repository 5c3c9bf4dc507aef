"""The errors that priorpaint raises on purpose, one sentence each that says what to do next; and the token that stops.

Imports neither torch nor anything else that takes time: the command line reads it before it knows what to run.
"""

from __future__ import annotations

import errno
import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

NO_MEMORY = (
    "there is not enough memory; use --batch-size 1 (batch_size=1), set a limit below what is free, such as "
    "--max-memory 2GB (max_memory), or take a smaller picture."
)
# Of PyTorch on the CPU, of C++, and of the libraries that PyTorch calls on a GPU.
_NO_MEMORY = (
    "DefaultCPUAllocator",
    "bad_alloc",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Cannot allocate memory",
    "unable to mmap",
)


class PriorpaintError(Exception):
    """Base of every error that priorpaint raises on purpose.

    Attributes:
        result: what a run had finished before the error, a `Result`; None where nothing was.
    """

    result: Any = None


class UsageError(PriorpaintError, ValueError):
    """An argument, setting, mask or picture that cannot be used as it is."""


class PriorError(PriorpaintError):
    """A prior that cannot be found, read or run."""


class CheckpointError(PriorError):
    """A checkpoint that is damaged, unsafe or of another kind; the message says what was expected and found."""


class Cancelled(PriorpaintError):
    """Raised by a `CancelToken`, or by a caller's own callback, to stop a run between two steps."""


class CancelToken:
    """Stops a run from outside: another thread, a signal handler, a web page. It may be shared by several runs."""

    def __init__(self) -> None:
        # A plain flag and no lock: a signal handler may run while its own thread holds a lock.
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` has been called."""
        return self._cancelled

    def cancel(self) -> None:
        """Ask the runs with this token to stop at their next step; more than once is as good as once."""
        self._cancelled = True

    def check(self) -> None:
        """Go on where nobody has cancelled.

        Raises:
            Cancelled: `cancel` has been called.
        """
        if self._cancelled:
            raise Cancelled("the run was cancelled.")


class NotEnoughMemory(PriorpaintError, MemoryError):
    """There is less memory than the work takes, on the computer or on the GPU."""


class MissingExtra(PriorpaintError, ImportError):
    """An optional library is needed; the message gives the exact pip command."""


def printable(text: object) -> str:
    """``text`` in one line that a terminal can show: names and descriptions in it may come from a stranger's file.

    Letters, digits, marks and spaces of any script stay; all that could steer a terminal (escape sequences, line ends,
    letters that turn the direction of reading) or not be encoded (lone surrogates) becomes visible, as ``\\x1b``.
    """
    return "".join(
        one if one.isprintable() or unicodedata.category(one) == "Zs" else ascii(one)[1:-1] for one in str(text)
    )


def invalid(name: str, error: Any) -> UsageError:
    """What pydantic found wrong with the settings of ``name`` (its ``ValidationError``), in one sentence."""
    first = error.errors()[0]
    whole = first.get("ctx", {}).get("error")
    if isinstance(whole, UsageError):  # from settings that are fine alone but not together
        return UsageError(f"{name}: {whole}")
    key = ".".join(str(part) for part in first["loc"])
    return UsageError(f"{name}: {key} = {first['input']!r} is not valid: {first['msg'].lower()}")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is a lack of memory, as Python, NumPy and PyTorch tell it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and any(sign in words for sign in _NO_MEMORY)


@contextmanager
def memory_shortage_told() -> Iterator[None]:
    """A lack of memory inside is told in a sentence.

    Raises:
        NotEnoughMemory: there was one.
    """
    try:
        yield
    except NotEnoughMemory:
        raise
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise NotEnoughMemory(NO_MEMORY) from error


def shortened(name: object) -> str:
    """The ends of a name or path that is long."""
    text = str(name)
    return text if len(text) < 120 else f"{text[:40]}...{text[-40:]}"


def show_bytes(count: int) -> str:
    """A number of bytes for a sentence."""
    if count >= 10**9:
        return f"{count / 10**9:.1f} GB"
    return f"{round(count / 10**6)} MB" if count >= 10**6 else f"{max(1, round(count / 10**3))} kB"


def path_too_long(error: BaseException) -> UsageError | None:
    """The sentence for a path that no system call takes; None for other errors."""
    if not isinstance(error, OSError) or error.errno != errno.ENAMETOOLONG:
        return None
    length = len(os.fsencode(error.filename or ""))
    return UsageError(
        f"the path {shortened(error.filename)} ({length} bytes) is longer than the system allows; give a shorter one."
    )


def run_commands(app: Callable[..., Any], **how: Any) -> NoReturn:
    """Run the commands of a Typer app and exit; a wrong command line is told in characters that a terminal can show.

    Args:
        how: arguments of Click's ``main``.
    """
    try:
        sys.exit(app(standalone_mode=False, **how) or 0)
    except Exception as error:
        show = getattr(error, "show", None)  # of a ClickException, of whatever copy of Click
        if show is None:
            raise (path_too_long(error) or error) from None
        error.message = "\n".join(map(printable, str(error.message).split("\n")))  # type: ignore[attr-defined]
        show()
        sys.exit(getattr(error, "exit_code", 2))


def run_module(app: Callable[..., object], module: str) -> None:
    """Run the commands of ``python -m module``; an error is one sentence, and exit code 2 (wrong use) or 1."""
    try:
        run_commands(app, prog_name=f"python -m {module}")
    except PriorpaintError as error:
        print(f"{module}: {printable(error)}", file=sys.stderr)
        sys.exit(2 if isinstance(error, UsageError) else 1)
