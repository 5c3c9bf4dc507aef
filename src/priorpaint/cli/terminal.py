"""Words for a terminal, which takes some characters as orders, and names of files, which are bytes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from priorpaint.errors import printable


def echo(text: object, *, err: bool = False) -> None:
    """Printable lines on stdout, or on stderr, whatever characters that can write."""
    stream, lines = sys.stderr if err else sys.stdout, "\n".join(map(printable, str(text).split("\n")))
    encoding = stream.encoding or "utf-8"
    print(lines.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def echo_files(files: Iterable[Path]) -> None:
    """Names of files, one a line: printable on a terminal, elsewhere their very bytes, for the next program."""
    lines = "\n".join(map(str, files))
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        echo(lines)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(lines) + os.linesep.encode())
    sys.stdout.buffer.flush()
