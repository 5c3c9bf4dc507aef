"""Pictures and masks on their way in."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from priorpaint.errors import UsageError
from priorpaint.server.masks import filled
from tests.server.conftest import file_of, hole, photo, upload


def test_a_rotated_photo_is_shown_upright_and_stays_as_it_was(server: TestClient) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = file_of(photo(48).crop((0, 0, 48, 32)), "JPEG", exif=exif)
    told = upload(server, data, "a/../b\\c<d>.jpg")
    assert (told["width"], told["height"], told["format"]) == (32, 48, "JPEG")
    assert told["name"] == "b_c_d_"
    assert Image.open(io.BytesIO(server.get(told["view"]).content)).size == (32, 48)
    assert server.get(f"/api/pictures/{told['id']}/file").content == data


def test_views_are_small_and_deep_values_are_stretched(server: TestClient) -> None:
    large = upload(server, file_of(Image.new("L", (2400, 300), 7)))
    view = Image.open(io.BytesIO(server.get(large["view"]).content))
    assert view.size == (1600, 200) and view.mode == "RGB"
    deep = np.linspace(1000, 1500, 32 * 32).reshape(32, 32).astype(np.uint16)
    told = upload(server, file_of(Image.fromarray(deep)))
    seen = np.asarray(Image.open(io.BytesIO(server.get(told["view"]).content)))
    assert told["mode"] == "I;16" and np.ptp(seen.astype(int)) > 200


def adjust(server: TestClient, picture: str, mask: bytes | None, operation: str, **form: Any) -> Any:
    files = None if mask is None else {"mask": ("m.png", mask)}
    return server.post("/api/masks/adjust", data={"picture": picture, "operation": operation, **form}, files=files)


def test_masks_grow_shrink_turn_round_and_come_from_colours(server: TestClient) -> None:
    image = photo()
    image.paste("#ffff00", (20, 20, 24, 24))
    picture = upload(server, file_of(image))["id"]

    def area(mask: bytes | None, operation: str, **form: Any) -> int:
        answer = adjust(server, picture, mask, operation, **form)
        assert answer.status_code == 200, answer.text
        return int((np.asarray(Image.open(io.BytesIO(answer.content))) > 0).sum())

    assert area(hole(), "grow", pixels=1) == 64 + 4 * 8
    assert area(hole(), "shrink", pixels=1) == 36
    assert area(hole(), "invert") == 32 * 32 - 64
    assert area(None, "color", color="#ffff00", tolerance=0) == 16
    assert area(hole(), "color", color="#ffff00", tolerance=0) == 80
    for operation, words in (
        ("grow", "is empty"),
        ("alpha", "no transparency"),
        ("color", "which colour"),
        ("x", "no op"),
    ):
        answer = adjust(server, picture, None, operation)
        assert answer.status_code == 422 and words in answer.json()["error"]


def test_holes_are_filled_whatever_way_leads_out() -> None:
    ring = np.zeros((9, 9), dtype=bool)
    ring[2:7, 2:7] = True
    ring[3:6, 3:6] = False
    solid = ring.copy()
    solid[3:6, 3:6] = True
    assert (filled(ring) == solid).all()
    ring[2, 4] = False  # a door
    assert (filled(ring) == ring).all()
    spiral = np.array(
        [[c == "#" for c in row] for row in ("#######", "#.....#", "#.###.#", "#.#...#", "#.#####", "#......")]
    )
    assert (filled(spiral) == spiral).all()
    snake = np.ones((7, 801), dtype=bool)  # a way that goes up and down 200 times
    snake[1:-1, 1::2] = snake[1, 2:-1:4] = snake[-2, 4:-1:4] = False
    snake[0, 1] = False
    with pytest.raises(UsageError, match="winds too much"):
        filled(snake)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"%PDF-1.4", b"\xff\xd8\xff"])
def test_junk_is_refused_in_a_sentence(server: TestClient, data: bytes) -> None:
    answer = server.post("/api/pictures", files={"file": ("x.png", data)})
    assert answer.status_code == 422
    assert answer.json()["error"].endswith(".") and "Traceback" not in answer.text


def test_a_bomb_is_refused_before_it_is_decoded(server: TestClient) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    answer = server.post("/api/pictures", files={"file": ("bomb.png", data)})
    assert answer.status_code == 422 and "megapixels" in answer.json()["error"]


def test_pages_of_the_wheel(server: TestClient) -> None:
    for name in ("/", "/favicon.svg", "/favicon.ico"):
        assert server.get(name).status_code == 200
