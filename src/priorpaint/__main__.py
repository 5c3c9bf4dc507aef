"""``priorpaint`` and ``python -m priorpaint``: the command line, which Ctrl-C stops from its first moment on.

Imports nothing that takes time, so that the handler stands before PyTorch and the others are imported: they turn a
``KeyboardInterrupt`` in their middle into all kinds of errors.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line and exit."""
    signal.signal(signal.SIGINT, _interrupted)
    from priorpaint.cli import main as run

    try:
        run()
    finally:  # what is left is Python's own end, in which it would print tracebacks
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _interrupted(signum: int, frame: FrameType | None) -> None:
    """Stop at once in the middle of an import, when nothing is begun, and else by the usual exception."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            os.write(sys.stderr.fileno(), b"priorpaint: stopped.\n")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
