"""Files that ask for much are refused, or read, in no time."""

from __future__ import annotations

import io
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from priorpaint.errors import UsageError
from priorpaint.imaging import bounds, read_mask, read_picture


def noise(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def progressive(scans: int) -> bytes:
    """A JPEG whose last scan is repeated."""
    buffer = io.BytesIO()
    noise().save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * (scans - data.count(b"\xff\xda")) + data[-2:]


def test_a_jpeg_is_decoded_in_a_hundred_passes_at_most(tmp_path: Path) -> None:
    (tmp_path / "few.jpg").write_bytes(progressive(20))
    assert read_picture(tmp_path / "few.jpg").size == (64, 48)
    (tmp_path / "many.jpg").write_bytes(progressive(2000))
    with pytest.raises(UsageError, match=r"many\.jpg has more than 100 scans"):
        read_picture(tmp_path / "many.jpg")


def test_scans_are_counted_by_markers_and_not_by_bytes_that_look_like_one(tmp_path: Path) -> None:
    """Metadata may hold any bytes, and a thumbnail is a JPEG of its own."""
    noise().save(tmp_path / "a.jpg", icc_profile=b"\xff\xda\x00\x02" * 500)
    assert read_picture(tmp_path / "a.jpg").size == (64, 48)


def test_a_tiff_of_many_pages_is_not_walked_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    noise().save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    table = bytes(data[start : start + 2 + 12 * entries])
    data += b"\0" * (len(data) % 2)
    first, pages = len(data), 2000
    for page in range(pages):
        following = 0 if page == pages - 1 else first + (page + 1) * (len(table) + 4)
        data += table + struct.pack("<I", following)
    struct.pack_into("<I", data, 4, first)
    (tmp_path / "book.tif").write_bytes(data)
    visited: list[int] = []
    whole = TiffImageFile._seek

    def noted(self: TiffImageFile, frame: int) -> None:
        visited.append(frame)
        whole(self, frame)

    monkeypatch.setattr(TiffImageFile, "_seek", noted)
    with pytest.raises(UsageError, match="several frames or pages"):
        read_picture(tmp_path / "book.tif")
    assert set(visited) <= {0, 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_read_and_one_without_a_writer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, buffer = tmp_path / "pipe", io.BytesIO()
    os.mkfifo(pipe)
    noise().save(buffer, "PNG")
    writer = threading.Thread(target=pipe.write_bytes, args=(buffer.getvalue(),))
    writer.start()
    assert read_picture(pipe).image.tobytes() == noise().tobytes()
    writer.join()
    monkeypatch.setattr(bounds, "_SECONDS", 0.2)
    with pytest.raises(UsageError, match="is a pipe into which nothing was written"):
        read_mask(pipe, (64, 48))


def test_devices_and_huge_files_are_not_read(tmp_path: Path) -> None:
    if os.path.exists("/dev/zero"):
        with pytest.raises(UsageError, match="is a device"):
            read_picture("/dev/zero")
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(bounds.MAX_BYTES + 1)  # without taking room on the disk
    with pytest.raises(UsageError, match="has more than 1 GB"):
        read_picture(tmp_path / "huge.png")
