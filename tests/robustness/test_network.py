"""Nothing but a download that was asked for uses the network."""

from __future__ import annotations

import ast
import socket
from pathlib import Path

import numpy as np
import pytest

import priorpaint

ROOT = Path(priorpaint.__file__).parent
NETWORK = {"socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp", "ftplib", "huggingface_hub"}


def imported(file: Path) -> set[str]:
    """The packages that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_one_file_can_reach_the_network_and_one_listens() -> None:
    files = {str(file.relative_to(ROOT)) for file in ROOT.rglob("*.py") if imported(file) & NETWORK}
    assert files == {"priors/hub.py", "cli/serve.py"}


def test_the_main_job_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    picture, mask = np.full((16, 16, 3), 90, np.uint8), np.zeros((16, 16), bool)
    mask[4:8, 4:8] = True
    assert priorpaint.inpaint(picture, mask, method="ddnm", num_samples=1, steps=2, device="cpu").images
