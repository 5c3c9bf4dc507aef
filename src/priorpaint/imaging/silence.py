"""Lines that image libraries print by themselves, past Python's warnings: what matters in them is in our own errors."""

from __future__ import annotations

import ctypes
import logging
from functools import cache
from importlib.util import find_spec


@cache
def silence_libraries() -> None:
    """Keep lines of libtiff, and log records of Pillow that nobody has asked for, off stderr from now on.

    libtiff tells its errors to a handler of the process, which by default prints; Pillow raises them as well. Where the
    library cannot be reached (it may be linked statically), it goes on printing.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    core = find_spec("PIL._imaging")
    try:
        library = ctypes.CDLL(None if core is None else core.origin)  # whose dependencies are searched, too
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)
    except (OSError, AttributeError):
        return
