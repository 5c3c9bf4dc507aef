"""The command line: ``priorpaint``. One file a command group; errors become one sentence and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong use, 3 done but for some items, 130 stopped by Ctrl-C (143 by SIGTERM)
keeping what is finished.
"""

from __future__ import annotations

import errno
import signal
import sys
import warnings
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from priorpaint.errors import NO_MEMORY, PriorpaintError, UsageError, out_of_memory, run_commands, shortened

from .adapt import adapt
from .batch import batch
from .bench import bench
from .certify import certify
from .doctor import doctor
from .figure import figure
from .inpaint import inpaint
from .likelihood import likelihood
from .masks import masks
from .methods import methods
from .priors import priors
from .restore import operators, restore
from .sample import sample
from .serve import serve
from .terminal import echo
from .theory import theory
from .train import train

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130
# What is wrong with a path that was given, whatever looked at it first.
_PATH_ERRORS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP, errno.EISDIR}
_DEBUG = "--debug"

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Fill in the missing parts of a picture, or restore it, with several plausible answers.",
)
for command in (
    adapt, batch, bench, certify, doctor, figure, inpaint, likelihood, masks, methods, operators, restore, sample,
    serve, theory, train,
):  # fmt: skip
    app.command()(command)
app.add_typer(priors, name="priors")


def _version(wanted: bool) -> None:
    if wanted:
        from priorpaint import __version__

        typer.echo(f"priorpaint {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option(_DEBUG, help="Show where an error came from (works in any position).")] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        _run()


def _run() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != _DEBUG]
    if len(arguments) < len(sys.argv) - 1:
        run_commands(app, args=arguments, prog_name="priorpaint")
    interrupted = _heard_interrupts()
    try:
        run_commands(app, args=arguments, prog_name="priorpaint")
    except KeyboardInterrupt:
        _fail("stopped.", INTERRUPTED)
    except Exception as error:
        if interrupted:
            _fail("stopped.", INTERRUPTED)
        _explain(error)


def _heard_interrupts() -> list[int]:
    """A list that grows with every Ctrl-C: libraries in C may swallow its exception and fail in ways of their own."""
    heard: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def hear(signum: int, frame: FrameType | None) -> None:
        heard.append(signum)
        if callable(before):
            before(signum, frame)

    if callable(before):
        signal.signal(signal.SIGINT, hear)
    return heard


def _explain(error: Exception) -> NoReturn:
    if isinstance(error, PriorpaintError):
        _fail(str(error), WRONG_USE if isinstance(error, UsageError) else FAILED)
    if out_of_memory(error):
        _fail(NO_MEMORY, FAILED)
    if isinstance(error, OSError) and error.errno in _PATH_ERRORS and error.filename is not None:
        _fail(f"{shortened(error.filename)} cannot be used ({error.strerror}); choose another path.", WRONG_USE)
    _fail(f"{type(error).__name__}: {error} (run again with {_DEBUG} to see where).", FAILED)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """The sentence alone: where in the code it came from says nothing to a user."""
    echo(f"Warning: {message}", err=True)


def _fail(message: str, code: int) -> NoReturn:
    echo(f"priorpaint: {' '.join(message.split())}", err=True)
    sys.exit(code)
