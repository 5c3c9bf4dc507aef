"""A server in this process, pictures for it, and the events of a job."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the page needs the extra web")
pytest.importorskip("httpx", reason="the tests of the page need httpx")

from fastapi.testclient import TestClient

from priorpaint.server.app import create_app
from priorpaint.server.limits import Limits
from priorpaint.server.state import Options

HERE = "http://127.0.0.1:7860"
WRITE = {"X-Priorpaint": "1"}
LIMITS = Limits(upload=2**20, samples=4, evaluations=4000, waiting=2, own=2)


def file_of(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def photo(side: int = 32, mode: str = "RGB", seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def hole(side: int = 32, box: tuple[int, int, int, int] = (10, 10, 18, 18)) -> bytes:
    mask = Image.new("L", (side, side))
    mask.paste(255, box)
    return file_of(mask)


def client_of(app: Any, **how: Any) -> TestClient:
    return TestClient(app, base_url=HERE, headers=WRITE, **how)


@pytest.fixture(scope="session")
def app() -> Any:
    return create_app(Options(threads=1, device="cpu", limits=LIMITS))


@pytest.fixture(scope="session")
def server(app: Any) -> Iterator[TestClient]:
    """The server at work; its cookies make one session."""
    with client_of(app) as client:
        yield client


def upload(client: TestClient, data: bytes, name: str = "my photo.png") -> dict[str, Any]:
    answer = client.post("/api/pictures", files={"file": (name, data)})
    assert answer.status_code == 201, answer.text
    told: dict[str, Any] = answer.json()
    return told


def start(client: TestClient, picture: str, mask: bytes, **form: Any) -> Any:
    form = {"picture": picture, "samples": 2, "settings": '{"steps": 2}', **form}
    return client.post("/api/jobs", data=form, files={"mask": ("mask.png", mask)})


def events(client: TestClient, job: str, **headers: str) -> list[tuple[int, str, dict[str, Any]]]:
    """Number, name and content of the events up to the last one."""
    out = []
    for block in client.get(f"/api/jobs/{job}/events", headers=headers).text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            out.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
    return out


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A server as `priorpaint serve` starts it."""
    command = [sys.executable, "-m", "priorpaint", "serve", "--port", "0", "--threads", "1", "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    found = re.search(r"http://\S+", process.stderr.readline())
    assert found is not None
    yield found[0]
    process.terminate()
    process.wait(20)
    process.stderr.close()
