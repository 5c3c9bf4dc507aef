"""Words for a terminal, which takes some characters as orders, and names of files, which are bytes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

# Control characters but tab and newline, what turns the direction of writing, and bytes of names that are not UTF-8.
_NOT_SHOWN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    """The text with an escape (``\\x1b``) for each character that a terminal would obey, and not show.

    Names of files and what checkpoints say of themselves may come from strangers.
    """
    return _NOT_SHOWN.sub(_escape, str(text))


def echo(text: object, *, err: bool = False) -> None:
    """One printable line on stdout, or on stderr."""
    stream, line = sys.stderr if err else sys.stdout, printable(text)
    encoding = stream.encoding or "utf-8"
    print(line.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def echo_files(files: Iterable[Path]) -> None:
    """Names of files, one a line: printable on a terminal, elsewhere their very bytes, for the next program."""
    lines = "\n".join(map(str, files))
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        echo(lines)
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(lines) + os.linesep.encode())
    sys.stdout.buffer.flush()


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    byte = code - 0xDC00 if 0xDC80 <= code <= 0xDCFF else code
    return f"\\x{byte:02x}" if byte < 0x100 else f"\\u{byte:04x}"
