"""A job from the upload to its files: events, cancel, again, the worker's death."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from priorpaint.server.jobs import _GRACE, Job, JobQueue
from tests.server.conftest import LIMITS, client_of, events, file_of, hole, photo, start, upload


@pytest.fixture(scope="module")
def done(server: TestClient) -> dict[str, Any]:
    """A finished job of two samples."""
    picture = upload(server, file_of(photo()))
    job = start(server, picture["id"], hole()).json()
    heard = events(server, job["id"])
    assert heard[-1][1:] == ("end", {"event": "end", "state": "done", "finished": 2, "changed": 0})
    return {"heard": heard, **server.get(f"/api/jobs/{job['id']}").json()}


def test_events_come_in_order_and_go_on_behind_the_last_one(server: TestClient, done: dict[str, Any]) -> None:
    numbers, names = [one[0] for one in done["heard"]], [one[1] for one in done["heard"]]
    assert numbers == sorted(set(numbers))
    told = [name for name in names if name not in ("step", "preview", "loading")]
    assert told == ["queued", "started", "planned", "sample", "sample", "statistics", "end"]
    last = numbers[names.index("sample")]
    again = events(server, done["id"], **{"Last-Event-ID": str(last)})
    assert again == [one for one in events(server, done["id"]) if one[0] > last] and again[-1][1] == "end"


def test_samples_change_no_known_pixel_and_differ_in_the_hole(server: TestClient, done: dict[str, Any]) -> None:
    known = np.asarray(Image.open(io.BytesIO(hole()))) == 0
    files = [server.get(one["file"]).content for one in done["samples"]]
    pixels = [np.asarray(Image.open(io.BytesIO(data))) for data in files]
    for one in pixels:
        assert (one[known] == np.asarray(photo())[known]).all()
    assert (pixels[0][~known] != pixels[1][~known]).any()
    assert [one["changed"] for one in done["samples"]] == [0, 0]


def test_everything_of_a_job_can_be_had(server: TestClient, done: dict[str, Any]) -> None:
    files = f"/api/jobs/{done['id']}/files"
    std = np.load(io.BytesIO(server.get(f"{files}/result_uncertainty.npy").content))
    assert std.shape == (32, 32) and std[0, 0] == 0 and std[14, 14] > 0
    assert server.get(f"{files}/run.json").json()["finished_samples"] == 2
    overlay = Image.open(io.BytesIO(server.get(f"{files}/view_uncertainty.png").content))
    assert overlay.getpixel((0, 0))[3] == 0 and overlay.getpixel((14, 14))[3] == 255
    archive = zipfile.ZipFile(io.BytesIO(server.get(f"/api/jobs/{done['id']}/all.zip").content))
    assert {"my photo_0.png", "my photo_1.png", "my photo_mean.png", "run.json"} <= set(archive.namelist())
    download = server.get(done["samples"][0]["file"], params={"download": True})
    assert "my%20photo_0.png" in download.headers["content-disposition"]
    for name in ("nothing.png", "..%2Frun.json", "%2Fetc%2Fpasswd"):
        assert server.get(f"{files}/{name}").status_code == 404


def test_more_samples_go_on_with_the_seeds(server: TestClient, done: dict[str, Any]) -> None:
    job = server.post(f"/api/jobs/{done['id']}/again", data={"samples": 1}).json()
    assert events(server, job["id"])[-1][2]["state"] == "done"
    more = server.get(f"/api/jobs/{job['id']}").json()["samples"]
    whole = start(server, done["picture"], hole(), samples=3).json()
    events(server, whole["id"])
    third = server.get(f"/api/jobs/{whole['id']}").json()["samples"][2]
    assert more[0]["seed"] == third["seed"]
    assert server.get(more[0]["file"]).content == server.get(third["file"]).content


def test_a_part_of_an_answer_is_painted_again_and_the_rest_of_it_stays(
    server: TestClient, done: dict[str, Any]
) -> None:
    part = hole(box=(12, 12, 16, 16))
    form = {"sample": 1, "samples": 1}
    answer = server.post(f"/api/jobs/{done['id']}/again", data=form, files={"mask": ("m.png", part)})
    job = answer.json()["id"]
    assert events(server, job)[-1][2] == {"event": "end", "state": "done", "finished": 1, "changed": 0}
    new = server.get(server.get(f"/api/jobs/{job}").json()["samples"][0]["file"]).content
    old = server.get(done["samples"][1]["file"]).content
    same = np.asarray(Image.open(io.BytesIO(part))) == 0
    a, b = (np.asarray(Image.open(io.BytesIO(data))) for data in (old, new))
    assert (a[same] == b[same]).all() and (a[~same] != b[~same]).any()
    wrong = server.post(f"/api/jobs/{done['id']}/again", data={"sample": 0})
    assert wrong.status_code == 422 and "both sample and mask" in wrong.json()["error"]
    gone = server.post(f"/api/jobs/{done['id']}/again", data={"sample": 7}, files={"mask": ("m.png", part)})
    assert gone.status_code == 404
    deaf = server.post(f"/api/jobs/{done['id']}/again", data={"samples": 1, "method": "dps"})
    assert deaf.status_code == 422 and "job's own prior" in deaf.json()["error"]
    form = {"sample": 1, "samples": 1, "method": "nonsense"}
    named = server.post(f"/api/jobs/{done['id']}/again", data=form, files={"mask": ("m.png", part)})
    assert named.status_code == 422 and "no method 'nonsense'" in named.json()["error"]


def test_an_estimate_draws_nothing(server: TestClient, done: dict[str, Any]) -> None:
    job = start(server, done["picture"], hole(), estimate=True).json()["id"]
    heard = events(server, job)
    assert [name for _, name, _ in heard if name != "loading"] == ["queued", "started", "planned", "end"]
    planned = next(told for _, name, told in heard if name == "planned")
    assert planned["evaluations"] >= 4 and planned["seconds"] > 0
    assert server.get(f"/api/jobs/{job}/all.zip").status_code == 404
    early = server.get(f"/api/jobs/{job}/files/preview.png")
    assert early.status_code == 404 and "not yet" in early.json()["error"]


def test_a_cancelled_job_keeps_what_is_finished_and_a_waiting_one_never_starts(
    server: TestClient, done: dict[str, Any]
) -> None:
    at_work = start(server, done["picture"], hole(), samples=4, settings='{"steps": 900}').json()["id"]
    waiting = start(server, done["picture"], hole()).json()
    assert waiting["ahead"] == 1
    full = start(server, done["picture"], hole())
    assert full.status_code == 503 and int(full.headers["retry-after"]) > 0
    assert server.delete(f"/api/jobs/{waiting['id']}").json() == {"state": "cancelled"}
    server.delete(f"/api/jobs/{at_work}")
    end = events(server, at_work)[-1][2]
    assert end["state"] == "cancelled" and end["finished"] < 4
    assert [name for _, name, _ in events(server, waiting["id"])] == ["queued", "end"]


def test_a_job_beyond_the_limits_is_told_its_cost_and_not_run(server: TestClient, done: dict[str, Any]) -> None:
    job = start(server, done["picture"], hole(), samples=4, method="repaint", settings='{"steps": 1000}').json()["id"]
    _, name, told = events(server, job)[-1]
    assert name == "failed" and "calls of the prior" in told["message"] and "fewer steps" in told["message"]


@pytest.mark.slow
def test_a_killed_worker_fails_its_job_and_the_next_one_runs(
    server: TestClient, app: Any, done: dict[str, Any]
) -> None:
    queue = app.state.server.queue
    job = start(server, done["picture"], hole(), samples=4, settings='{"steps": 900}').json()["id"]
    while queue._current is None or queue._current.planned is None:
        time.sleep(0.05)
    os.kill(queue.pid, signal.SIGKILL)
    _, name, told = events(server, job)[-1]
    assert name == "failed" and "SIGKILL" in told["message"] and "lack of memory" in told["message"]
    after = start(server, done["picture"], hole()).json()["id"]
    assert events(server, after)[-1][2]["state"] == "done"


def test_two_sessions_do_not_see_each_other(server: TestClient, app: Any, done: dict[str, Any]) -> None:
    stranger = client_of(app)
    assert stranger.get("/api/jobs").json() == {"pictures": [], "jobs": []}
    job = f"/api/jobs/{done['id']}"
    for path in (job, f"{job}/events", f"{job}/files/result_0.png", f"{job}/all.zip"):
        assert stranger.get(path).status_code == 404
    assert stranger.delete(job).status_code == 404
    assert stranger.post(f"{job}/again", data={"samples": 1}).status_code == 404
    assert stranger.get(f"/api/pictures/{done['picture']}/view").status_code == 404
    assert any(one["id"] == done["id"] for one in server.get("/api/jobs").json()["jobs"])  # what a reload needs


def test_run_json_has_the_settings(server: TestClient, done: dict[str, Any]) -> None:
    record = json.loads(server.get(f"/api/jobs/{done['id']}/files/run.json").content)
    assert record["call"]["steps"] == 2 and record["prior"]["name"] == "photos"


def test_estimates_take_no_room_and_leave_no_file(server: TestClient, app: Any, done: dict[str, Any]) -> None:
    at_work = start(server, done["picture"], hole(), samples=4, settings='{"steps": 900}').json()["id"]
    asked = [start(server, done["picture"], hole(), estimate=True) for _ in range(3)]
    assert [one.status_code for one in asked] == [202] * 3
    job = start(server, done["picture"], hole())
    assert job.status_code == 202
    ids = [one.json()["id"] for one in asked]
    for one in (at_work, job.json()["id"]):
        server.delete(f"/api/jobs/{one}")
        events(server, one)
    states = [events(server, one)[-1][2]["state"] for one in ids]
    assert states == ["cancelled"] * 3  # each by the next one, the last by the job
    owner = app.state.server.sessions.find(server.cookies["priorpaint"])
    mask = owner.folder / f"{ids[0]}.mask.png"
    assert mask.exists()
    server.delete(f"/api/jobs/{ids[0]}", params={"forget": True})
    assert not mask.exists()


def test_jobs_that_come_at_once_do_not_overfill_the_queue(server: TestClient, done: dict[str, Any]) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: start(server, done["picture"], hole(), settings='{"steps": 900}'), range(8)))
    taken = [one.json()["id"] for one in answers if one.status_code == 202]
    for one in reversed(taken):
        server.delete(f"/api/jobs/{one}")
        events(server, one)
    assert len(taken) == 2 and {one.status_code for one in answers} == {202, 503}


def test_transparent_pixels_that_are_painted_over_become_opaque(server: TestClient) -> None:
    image = photo().convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.asarray(Image.open(io.BytesIO(hole()))) > 0, 0, 200).astype(np.uint8)))
    job = start(server, upload(server, file_of(image))["id"], hole(), samples=1).json()["id"]
    assert events(server, job)[-1][2] == {"event": "end", "state": "done", "finished": 1, "changed": 0}
    out = np.asarray(Image.open(io.BytesIO(server.get(f"/api/jobs/{job}/files/result_0.png").content)))
    assert (out[10:18, 10:18, 3] == 255).all() and (out[:10, :, 3] == 200).all()


class _Broken(JobQueue):
    """Its process can be started when ``go`` is set, and never answers; the second time it fails."""

    def __init__(self) -> None:
        super().__init__(replace(LIMITS, seconds=-_GRACE + 0.05), {})
        self.go, self.told, self.stdout = asyncio.Event(), list[str](), asyncio.StreamReader()

    async def _started(self) -> Any:
        if self.told:
            raise OSError("no more processes")
        await self.go.wait()
        return self

    async def _send(self, message: dict[str, Any]) -> None:
        if self.go.is_set():
            self.told.append(message["op"])


def test_a_queue_outlives_whatever_happens_to_a_job(tmp_path: Path) -> None:
    async def work() -> tuple[list[str], list[Job]]:
        queue, jobs = _Broken(), [Job(name, tmp_path, "p", "s", {}) for name in "ab"]
        await queue.start()
        for job in jobs:
            queue.add(job)
        await asyncio.sleep(0.01)
        await queue.cancel(jobs[0])  # while its process starts
        queue.go.set()
        for job in jobs:
            _ = [event async for event in job.listen(0)]
        await queue.stop()
        return queue.told, jobs

    told, (silent, lost) = asyncio.run(work())
    assert told == ["run", "cancel"]
    assert silent.state == lost.state == "failed"
    assert "said nothing" in str(silent.message) and "no more processes" in str(lost.message)
