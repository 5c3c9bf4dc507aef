"""What Pillow lets pass in a PNG file, or says of it in words that are not true."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE_COLOUR = 3  # the colour type in IHDR whose pixels are indices
_LARGEST_TEXT = 2**20  # of what is unpacked, in bytes: the limit of Pillow


def damage(data: bytes) -> str | None:
    """Why a PNG file cannot be trusted, as the end of a sentence that its name begins; None for other files, too.

    Checksums are compared for the chunks that make the picture: Pillow skips those of the pixels (IDAT), and a picture
    whose bytes have changed would be taken as whole.
    """
    if not data.startswith(SIGNATURE):
        return None
    palette = indexed = False
    for kind, body, checksum in chunks(data):
        if kind[:1].isupper() and zlib.crc32(body, zlib.crc32(kind)) != checksum:
            return f"is damaged (the checksum of {kind.decode('latin-1')} is wrong); copy or export it again"
        if kind == b"IHDR":
            indexed = body[9:10] == bytes([_PALETTE_COLOUR])
        palette |= kind == b"PLTE" and len(body) >= 3
        if kind == b"IDAT" and indexed and not palette:
            return "has the indices of a palette and no palette; export it again in RGB"
        if kind in (b"iCCP", b"zTXt") and _unpacks_too_far(body):
            return "has a colour profile or a text of more than 1 MB; save it without (exiftool -all= removes both)"
    return None


def has_chunk(data: bytes, kind: bytes) -> bool:
    """Whether a file is a PNG with a chunk of this kind."""
    return data.startswith(SIGNATURE) and any(found == kind for found, _, _ in chunks(data))


def chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, int]]:
    """Kind, body and checksum of each whole chunk."""
    view, at = memoryview(data), len(SIGNATURE)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = view[at + 8 : at + 8 + length]
        at += 12 + length
        if at > len(data):  # cut off, as the decoder will say
            return
        yield kind, body, struct.unpack_from(">I", data, at - 4)[0]


def _unpacks_too_far(body: memoryview) -> bool:
    name, _, packed = bytes(body).partition(b"\0")
    try:
        unpacking = zlib.decompressobj()
        unpacking.decompress(packed[1:], _LARGEST_TEXT)
        return bool(unpacking.unconsumed_tail)
    except zlib.error:  # which Pillow takes for no profile
        return False
