"""Who may ask, from where, and how much."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from priorpaint.errors import UsageError
from priorpaint.server.app import create_app
from priorpaint.server.guard import host_name, is_loopback
from priorpaint.server.limits import Refused
from priorpaint.server.sessions import Sessions
from priorpaint.server.state import Options
from tests.server.conftest import HERE, LIMITS, client_of, file_of, hole, photo, start, upload


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:7860", "", "[::2]"])
@pytest.mark.parametrize("path", ["/", "/api/about", "/api/jobs", "/api/openapi.json"])
def test_no_request_under_another_name_is_answered(server: TestClient, host: str, path: str) -> None:
    answer = server.get(path, headers={"Host": host, "Origin": f"http://{host}"})
    assert answer.status_code == 421 and "--allow-host" in answer.json()["error"]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:1", "[::1]:7860", "LOCALHOST"])
def test_loopback_by_any_name_and_port(server: TestClient, host: str) -> None:
    assert server.get("/api/about", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_writes_from_another_page_are_refused(server: TestClient, headers: dict[str, str]) -> None:
    answer = server.post("/api/pictures", files={"file": ("a.png", file_of(photo()))}, headers=headers)
    assert answer.status_code == 403


def test_writes_need_a_header_that_no_form_sends(app: Any, server: TestClient) -> None:
    plain = TestClient(app, base_url=HERE)
    answer = plain.post("/api/pictures", files={"file": ("a.png", file_of(photo()))})
    assert answer.status_code == 403 and "x-priorpaint" in answer.json()["error"]
    own = server.post("/api/pictures", files={"file": ("a.png", file_of(photo()))}, headers={"Origin": HERE})
    assert own.status_code == 201


def test_every_answer_forbids_what_the_page_does_not_need(server: TestClient) -> None:
    for path in ("/", "/api/about", "/api/nothing"):
        headers = server.get(path, headers={"Origin": "http://evil.example"}).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert not any(name.startswith("access-control") for name in headers)
        assert "unsafe" not in headers["content-security-policy"]


def test_uploads_are_counted_while_they_are_read(server: TestClient) -> None:
    told = server.post("/api/pictures", files={"file": ("a.png", bytes(2**20 + 1))})
    assert told.status_code == 413 and "1 MB" in told.json()["error"]

    def parts() -> Any:  # without a length
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(2**16)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert server.post("/api/pictures", content=parts(), headers=headers).status_code == 413


def _unread() -> Iterator[bytes]:
    pytest.fail("the body was read")
    yield b""


def test_a_server_for_others_asks_for_its_token() -> None:
    with client_of(create_app(Options(token="secret", hosts=frozenset({"lab"}), any_address=True))) as client:
        assert client.get("/").status_code == 200  # the page itself holds nothing
        assert client.get("/api/about").status_code == 401
        assert client.get("/api/about", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert client.post("/api/pictures", content=_unread()).status_code == 401
        assert client.get("/api/about", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/api/about").status_code == 200  # the session is open
        assert client.get("/api/about", headers={"Host": "10.0.0.7:7860"}).status_code == 200
        assert client.get("/api/about", headers={"Host": "lab"}).status_code == 200
        assert client.get("/api/about", headers={"Host": "other"}).status_code == 421


def test_a_cookie_that_the_server_did_not_make_opens_nothing(app: Any, server: TestClient) -> None:
    client = client_of(app, cookies={"priorpaint": "chosen-by-somebody"})
    answer = client.get("/api/jobs")
    cookie = answer.headers["set-cookie"].lower()
    assert "chosen" not in cookie and "httponly" in cookie and "samesite=strict" in cookie


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"prior": "/etc/passwd"}, "--prior"),
        ({"prior": "hf:someone/model"}, "--prior"),
        ({"method": "vipaint", "settings": '{"perceptual": "/etc/passwd"}'}, "no setting 'perceptual'"),
        ({"method": "nonsense"}, "there is no method"),
        ({"settings": '{"steps": -1}'}, "greater than or equal"),
        ({"settings": '{"steps": 1001}'}, "at most 1000"),
        ({"settings": '{"steps": "2000"}'}, ""),
        ({"settings": '{"steps": [1]}'}, "a number, a word"),
        ({"settings": "[" * 9999}, "JSON object"),
        ({"settings": '{"device": "cuda"}'}, "no setting 'device'"),
        ({"samples": 5}, "at most 4"),
        ({"samples": 0}, "samples is not valid"),
        ({"seed": 2**60}, "seed is not valid"),
    ],
)
def test_a_job_that_cannot_be_meant_or_is_not_allowed(server: TestClient, form: dict[str, Any], words: str) -> None:
    picture = upload(server, file_of(photo()))["id"]
    answer = start(server, picture, hole(), **form)
    assert answer.status_code == 422 and words in answer.json()["error"]


def test_masks_that_cannot_be_used(server: TestClient) -> None:
    picture = upload(server, file_of(photo()))["id"]
    for mask, words in ((hole(48), "48x48"), (hole(box=(0, 0, 0, 0)), "empty"), (hole(box=(0, 0, 32, 32)), "whole"),
                        (b"junk", "picture")):  # fmt: skip
        answer = start(server, picture, mask)
        assert answer.status_code == 422 and words in answer.json()["error"]


def test_names_of_hosts() -> None:
    names = {"a:80": "a", "[::1]:80": "::1", "::1": "::1", "A": "a", "1.2.3.4:5": "1.2.3.4"}
    assert {host: host_name(host) for host in names} == names
    assert [is_loopback(one) for one in ("127.0.0.9", "::1", "localhost", "0.0.0.0", "lab")] == [True] * 3 + [False] * 2


def test_quota_and_time_to_live() -> None:
    data = file_of(photo())
    with tempfile.TemporaryDirectory() as root:
        sessions = Sessions(Path(root), replace(LIMITS, session=3 * len(data), idle=0.01))
        session = sessions.open()
        sessions.add_picture(session, data, "a.png")
        with pytest.raises(Refused, match="all the space") as told:
            sessions.add_picture(session, data, "b.png")
        assert told.value.status == 507
        with pytest.raises(UsageError):
            sessions.add_picture(sessions.open(), b"GIF89a", "../../x.gif")
        time.sleep(0.02)
        assert session in sessions.sweep()
        assert not session.folder.exists() and sessions.find(session.id) is None


def test_sessions_without_pictures_and_jobs_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("priorpaint.server.sessions._MOST_SESSIONS", 2)
    sessions = Sessions(tmp_path, LIMITS)
    busy, idle = sessions.open(), sessions.open()
    sessions.add_picture(busy, file_of(photo()), "a.png")
    third = sessions.open()
    assert sessions.find(idle.id) is None and sessions.find(busy.id) is busy
    sessions.add_picture(third, file_of(photo()), "b.png")
    with pytest.raises(Refused, match="too many people"):
        sessions.open()
