"""Limits on what a picture's file may ask for before it is decoded: bytes, waiting, passes over the pixels, pages."""

from __future__ import annotations

import os
import re
import select
import stat
import time
from pathlib import Path

from PIL import Image

from priorpaint.errors import UsageError, path_too_long

# The largest picture has 320 MB without compression; a file that is larger holds something else.
MAX_BYTES = 2**30
# Of a progressive JPEG, each of which costs a pass over all pixels. Encoders write about 10.
MAX_SCANS = 100
_SECONDS = 10.0  # until somebody writes into a pipe
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment


def read_file(name: str) -> bytes:
    """The bytes of a file or a pipe.

    Raises:
        UsageError: it is missing, cannot be read, is too large, is something else, or a pipe that nobody writes into.
    """
    try:
        about = os.stat(name)
        if stat.S_ISFIFO(about.st_mode):
            return _read_pipe(name)
        if stat.S_ISCHR(about.st_mode) or stat.S_ISBLK(about.st_mode):
            raise UsageError(f"{name} is a device and not a picture; give a file.")
        if about.st_size > MAX_BYTES:
            raise _too_large(name)
        return Path(name).read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist; check the path.") from error
    except OSError as error:
        raise path_too_long(error) or UsageError(
            f"{name} cannot be opened ({error.strerror}); check the file."
        ) from error


def _read_pipe(name: str) -> bytes:
    """What is written into a pipe, until it is closed. As long as there is no writer at all, the wait is short."""
    handle, begun, data = os.open(name, os.O_RDONLY | os.O_NONBLOCK), time.monotonic(), bytearray()
    try:
        while True:
            try:
                part = os.read(handle, 2**20)
            except BlockingIOError:  # a writer that takes its time
                select.select([handle], [], [])
                continue
            data += part
            if len(data) > MAX_BYTES:
                raise _too_large(name)
            if part:
                continue
            if data:
                return bytes(data)
            if time.monotonic() - begun > _SECONDS:
                raise UsageError(f"{name} is a pipe into which nothing was written; give a file, or start its writer.")
            time.sleep(0.05)
    finally:
        os.close(handle)


def _too_large(name: str) -> UsageError:
    return UsageError(f"{name} has more than {MAX_BYTES // 2**30} GB, which is no picture; check the path.")


def check_scans(name: str, data: bytes) -> None:
    """Refuse a JPEG that a decoder would go over a hundred times and more.

    Raises:
        UsageError: it has more scans.
    """
    if not data.startswith(b"\xff\xd8"):
        return
    position, scans = 2, 0
    while (marker := _MARKER.search(data, position)) is not None:
        position, code = marker.end(), marker[1][0]
        if code == _END_OF_IMAGE:
            return
        if code in _ALONE:
            continue
        scans += code == _START_OF_SCAN
        if scans > MAX_SCANS:
            raise UsageError(f"{name} has more than {MAX_SCANS} scans, as no camera writes them; save it again.")
        position += int.from_bytes(data[position : position + 2], "big")


def several_frames(image: Image.Image) -> bool:
    """Whether there is a second frame or page, without counting those behind it."""
    if image.format != "TIFF" or not hasattr(image, "tag_v2"):
        return getattr(image, "n_frames", 1) > 1
    try:
        image.seek(1)
    except EOFError:
        return False
    finally:
        image.seek(0)
    return True
