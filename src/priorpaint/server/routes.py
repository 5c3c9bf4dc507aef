"""The routes of the API and of the page."""

from __future__ import annotations

import asyncio
import json
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, File, Form, Header, Request, Response, UploadFile
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask

from priorpaint.errors import UsageError
from priorpaint.inpainting.method import sample_seeds
from priorpaint.priors.loading import PRIORS

from . import masks
from .about import DEFAULT_PRIOR, about, check_settings
from .jobs import Job
from .limits import Refused
from .sessions import MASK, VIEW, Session, Upload, new_id
from .state import STATIC, State
from .worker import STEM

_LARGEST_FIELD = 2**16


def _state(request: Request) -> State:
    state: State = request.app.state.server
    return state


def _session(request: Request, response: Response, state: Annotated[State, Depends(_state)]) -> Session:
    return state.session(request, response)


Server = Annotated[State, Depends(_state)]
Owner = Annotated[Session, Depends(_session)]
Text = Annotated[str | None, Form(max_length=_LARGEST_FIELD)]


def add_routes(app: FastAPI) -> None:
    """Everything that the server answers; static files come last."""
    app.get("/api/about")(get_about)
    app.post("/api/pictures", status_code=201)(post_picture)
    app.get("/api/pictures/{id}/view")(get_picture_view)
    app.get("/api/pictures/{id}/file")(get_picture_file)
    app.delete("/api/pictures/{id}", status_code=204)(delete_picture)
    app.post("/api/masks/adjust")(post_adjust)
    app.get("/api/jobs")(get_jobs)
    app.post("/api/jobs", status_code=202)(post_job)
    app.get("/api/jobs/{id}")(get_job)
    app.delete("/api/jobs/{id}")(delete_job)
    app.get("/api/jobs/{id}/events")(get_events)
    app.post("/api/jobs/{id}/again", status_code=202)(post_again)
    app.get("/api/jobs/{id}/files/{name}")(get_file)
    app.get("/api/jobs/{id}/all.zip")(get_zip)
    app.get("/favicon.ico", include_in_schema=False)(lambda: RedirectResponse("/favicon.svg"))
    app.mount("/", StaticFiles(directory=STATIC, html=True), name="page")


def get_about(state: Server, owner: Owner) -> dict[str, Any]:
    """Priors, methods with the JSON schema of their settings, presets, and limits."""
    return about(state.options.priors, state.options.limits, state.options.device)


async def post_picture(state: Server, owner: Owner, file: Annotated[UploadFile, File()]) -> dict[str, Any]:
    """Upload a picture's file, untouched; what is done later, is done to this very file."""
    async with state.decoding:  # which bounds how many files are in memory, too
        data = await file.read()
        upload = await asyncio.to_thread(state.sessions.add_picture, owner, data, file.filename or "picture")
    await state.queue.warm(DEFAULT_PRIOR)
    return about_picture(upload)


def about_picture(upload: Upload) -> dict[str, Any]:
    """A picture, as the page is told."""
    width, height = upload.size
    return {
        "id": upload.id,
        "name": upload.stem,
        "width": width,
        "height": height,
        "mode": upload.mode,
        "format": upload.format,
        "warnings": list(upload.warnings),
        "transparent": upload.transparent,
        "view": f"/api/pictures/{upload.id}/view",
    }


def get_picture_view(owner: Owner, id: str) -> FileResponse:
    """The picture upright, in 8-bit sRGB, at most 1600 pixels on a side."""
    return FileResponse(owner.picture(id).folder / VIEW, media_type="image/png")


def get_picture_file(owner: Owner, id: str) -> FileResponse:
    """The very file that was uploaded."""
    return FileResponse(owner.picture(id).path, media_type="application/octet-stream")


def delete_picture(state: Server, owner: Owner, id: str) -> None:
    """Remove a picture."""
    state.sessions.remove_picture(owner, id)


async def post_adjust(
    state: Server,
    owner: Owner,
    picture: Annotated[str, Form()],
    operation: Annotated[str, Form(description=", ".join(masks.OPERATIONS))],
    mask: Annotated[UploadFile | None, File()] = None,
    pixels: Annotated[int, Form(ge=0, le=10_000)] = 0,
    color: Text = None,
    tolerance: Annotated[int | None, Form(ge=0, le=255)] = None,
) -> Response:
    """A mask (PNG, white = repaint) made larger or smaller, turned round, without islands, or from a colour."""
    upload = owner.picture(picture)

    def work(data: bytes | None) -> bytes:
        hole = None if data is None else masks.read_hole(data, upload.size)
        return masks.adjusted(operation, upload.read(), hole, pixels, color, tolerance)

    async with state.decoding:
        data = None if mask is None else await mask.read()
        return Response(await asyncio.to_thread(work, data), media_type="image/png")


def get_jobs(owner: Owner) -> dict[str, Any]:
    """All pictures and jobs of this session, the oldest first."""
    jobs = [about_job(job) for job in list(owner.jobs.values()) if not job.estimate]
    return {"pictures": [about_picture(one) for one in list(owner.pictures.values())], "jobs": jobs}


async def post_job(
    state: Server,
    owner: Owner,
    picture: Annotated[str, Form()],
    mask: Annotated[UploadFile, File(description="PNG of the picture's size, white = repaint")],
    prior: Annotated[str, Form()] = DEFAULT_PRIOR,
    method: Text = None,
    settings: Annotated[str, Form(max_length=_LARGEST_FIELD, description="of the method, a JSON object")] = "{}",
    samples: Annotated[int, Form(ge=1)] = 4,
    seed: Annotated[int, Form(ge=0, lt=2**48)] = 0,
    label: Annotated[int | None, Form()] = None,
    prompt: Text = None,
    guidance_scale: Annotated[float, Form(ge=0, le=100)] = 1.0,
    estimate: Annotated[bool, Form(description="only say what it would cost")] = False,
) -> dict[str, Any]:
    """Start a job; what happens to it, its events tell."""
    upload = owner.picture(picture)
    _check_samples(state, samples)
    options = {"label": label, "prompt": prompt or None, "guidance_scale": guidance_scale}
    asked: dict[str, Any] = {"prior": prior, "method": method or None, "settings": _settings(settings)}
    asked["options"] = options
    _check_asked(state, asked)
    asked |= {"seed": seed, "seeds": sample_seeds(seed, samples)}
    return await _start(state, owner, upload, mask, asked, estimate)


async def post_again(
    state: Server,
    owner: Owner,
    id: str,
    sample: Annotated[int | None, Form(ge=0)] = None,
    mask: Annotated[UploadFile | None, File(description="part of the sample to paint once more")] = None,
    samples: Annotated[int, Form(ge=1)] = 4,
    prior: Text = None,
    method: Text = None,
    settings: Text = None,
    seed: Annotated[int | None, Form(ge=0, lt=2**48)] = None,
) -> dict[str, Any]:
    """With ``sample`` and ``mask``: paint a part of that answer again, the rest of it being known. Without: more
    samples of the same job, whose seeds go on. The job's own prior, method, settings and seed serve, where a part of
    an answer is not given others; another method takes its own settings."""
    job = owner.job(id)
    _check_samples(state, samples)
    asked = {key: job.request[key] for key in ("prior", "method", "settings", "options", "seed")}
    if (sample is None) != (mask is None):
        raise UsageError("to paint a part of an answer again, give both sample and mask; to get more answers, neither.")
    if mask is None or sample is None:
        if any(one is not None for one in (prior, method, settings, seed)):
            raise UsageError(
                "more answers have the job's own prior, method, settings and seed; start a job for others."
            )
        first = job.request["first"] + job.request["samples"]
        seeds = sample_seeds(job.request["seed"], first + samples)[first:]
        asked |= {"seeds": seeds, "first": first}
        return await _start(state, owner, owner.picture(job.picture), Path(job.request["mask"]), asked)
    found = next((one for one in job.samples if one["index"] == sample), None)
    if found is None:
        raise Refused(404, f"there is no sample {sample} of this job yet; wait for it, or choose another.")
    if settings is not None:
        asked |= {"method": method or None, "settings": _settings(settings)}
    elif method and method != asked["method"]:
        asked |= {"method": method, "settings": {}}
    asked |= {"prior": prior or asked["prior"], "seed": asked["seed"] if seed is None else seed}
    _check_asked(state, asked)
    file = job.folder / found["file"]
    async with state.decoding:
        upload = await asyncio.to_thread(state.sessions.add_picture, owner, file.read_bytes(), f"{job.stem}.png")
    seeds = sample_seeds(asked["seed"], samples)
    return await _start(state, owner, upload, mask, {**asked, "seeds": seeds})


def _check_samples(state: State, samples: int) -> None:
    if samples > state.options.limits.samples:
        raise UsageError(f"this server draws at most {state.options.limits.samples} samples at a time, not {samples}.")


def _check_asked(state: State, asked: dict[str, Any]) -> None:
    """Refuse a prior that nobody named, and settings that do not exist or have wrong values."""
    check_settings(asked["method"], asked["settings"])
    prior = asked["prior"]
    if prior not in PRIORS and prior not in state.options.priors:
        raise UsageError(f"there is no prior {prior!r} here; whoever starts the server names others with --prior.")


def _settings(text: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise UsageError('settings is a JSON object, such as {"steps": 20}.')
    return parsed


async def _start(
    state: State, owner: Session, upload: Upload, mask: UploadFile | Path, asked: dict[str, Any], estimate: bool = False
) -> dict[str, Any]:
    """Check the mask, put the job into the queue, and say what is known of it."""
    for job in list(owner.jobs.values()):
        if job.estimate and not job.over:  # whoever asks anew does not wait for the old answer
            await state.queue.cancel(job)
    state.queue.check_room(owner.unfinished, estimate)
    async with state.decoding:
        data = mask.read_bytes() if isinstance(mask, Path) else await mask.read()
        hole = await asyncio.to_thread(masks.read_hole, data, upload.size)
    if not hole.any() or hole.all():
        raise UsageError("the mask is empty; paint what is to be filled." if not hole.any() else
                         "the mask covers the whole picture; leave a part of it uncovered.")  # fmt: skip
    # No await from here on: what others asked for meanwhile counts, and nothing comes between the check and the queue.
    owner.picture(upload.id)
    state.queue.check_room(owner.unfinished, estimate)
    samples, id, limits = len(asked["seeds"]), new_id(), state.options.limits
    state.sessions.check_space(owner, (samples + 2) * 4 * hole.size if not estimate else 0)
    kept = state.options.keep is not None and not estimate
    folder = (state.options.keep if kept and state.options.keep else owner.folder) / id
    folder.mkdir(parents=True)
    file = owner.folder / f"{id}.{MASK}"
    file.write_bytes(data)
    request = {
        "first": 0,
        **asked,
        "id": id,
        "picture": str(upload.path),
        "mask": str(file),
        "folder": str(folder),
        "samples": samples,
        "estimate": estimate,
        "limits": {"seconds": limits.seconds, "evaluations": limits.evaluations},
    }
    job = Job(id, folder, upload.id, upload.stem, request, estimate, kept)
    owner.jobs[id] = job
    ahead = state.queue.add(job)
    return {"id": id, "ahead": ahead, "picture": about_picture(upload), "job": about_job(job)}


def about_job(job: Job) -> dict[str, Any]:
    """A job, as the page is told."""
    address = f"/api/jobs/{job.id}"
    samples = [
        {**one, "file": f"{address}/files/{one['file']}", "view": f"{address}/files/view_{one['index']}.png"}
        for one in list(job.samples)
    ]
    asked = {key: job.request[key] for key in ("prior", "method", "settings", "options", "seed", "samples", "first")}
    return {
        "id": job.id,
        "state": job.state,
        "picture": job.picture,
        "asked": asked,
        "planned": job.planned,
        "samples": samples,
        "statistics": job.statistics,
        "message": job.message,
        "events": f"{address}/events",
        "mask": f"{address}/files/{MASK}",
    }


def get_job(owner: Owner, id: str) -> dict[str, Any]:
    """What is known of a job."""
    return about_job(owner.job(id))


async def delete_job(state: Server, owner: Owner, id: str, forget: bool = False) -> dict[str, Any]:
    """Cancel a job within one call of its prior; finished samples stay. ``forget`` removes one that is over."""
    job = owner.job(id)
    if forget and job.over:
        state.sessions.remove_job(owner, job)
    elif not job.over:
        await state.queue.cancel(job)
    return {"state": job.state}


def get_events(
    owner: Owner, id: str, after: int = 0, last_event_id: Annotated[int | None, Header()] = None
) -> StreamingResponse:
    """Server-sent events of a job, numbered: queued, started, loading, planned, step, preview, sample, statistics, end
    or failed. They go on behind Last-Event-ID (or ``after``); who is late hears the last step and preview only."""
    job = owner.job(id)

    async def lines() -> AsyncIterator[str]:
        async for event in job.listen(last_event_id if last_event_id is not None else after):
            if event is None:
                yield ": still here\n\n"
                continue
            told = {key: value for key, value in event.items() if key not in ("id", "job")}
            yield f"id: {event['id']}\nevent: {event['event']}\ndata: {json.dumps(told)}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})


def get_file(owner: Owner, id: str, name: str, download: bool = False) -> FileResponse:
    """A file of a job: result_K.png (or .tif, .npy: sample K in the picture's own mode), result_mean, result_sheet.png,
    result_uncertainty (.png, .npy), run.json; what a page shows of them, view_K.png, view_mean.png,
    view_uncertainty.png and preview.png; and mask.png."""
    job = owner.job(id)
    if name == MASK:
        return FileResponse(job.request["mask"], media_type="image/png")
    if name not in _names(job):
        raise Refused(404, "there is no such file of this job, or not yet.")
    attachment = name.replace(STEM, job.stem, 1) if download else None
    return FileResponse(job.folder / name, filename=attachment)


def _names(job: Job) -> list[str]:
    return sorted(path.name for path in job.folder.iterdir() if path.is_file() and not path.name.startswith("."))


def get_zip(state: Server, owner: Owner, id: str) -> FileResponse:
    """All results of a job: samples, mean, uncertainty, sheet and run.json."""
    job = owner.job(id)
    names = [name for name in _names(job) if name.startswith(STEM) or name == "run.json"]
    if not names:
        raise Refused(404, "this job has no results yet; wait for its first sample.")
    state.sessions.check_space(owner, sum((job.folder / name).stat().st_size for name in names))
    with tempfile.NamedTemporaryFile(dir=owner.folder, suffix=".zip", delete=False) as file:
        path = Path(file.name)
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                for name in names:
                    archive.write(job.folder / name, name.replace(STEM, job.stem, 1))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    return FileResponse(path, filename=f"{job.stem}.zip", background=BackgroundTask(path.unlink, missing_ok=True))
