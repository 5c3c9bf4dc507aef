"""The application: how it starts and ends, and how it tells errors. Its routes stand in `routes`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from priorpaint import __version__
from priorpaint.errors import PriorpaintError, UsageError, printable

from .guard import Guard, Scope
from .limits import Refused
from .routes import add_routes
from .sessions import Sessions
from .state import Options, State

_SWEEP = 60.0


def create_app(options: Options) -> FastAPI:
    """The application. It works while its lifespan lasts: the worker ends and temporary files go with it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="priorpaint-", ignore_cleanup_errors=True) as root:
            app.state.server = State(options, Path(root))
            await app.state.server.queue.start()
            sweeping = asyncio.create_task(_sweep(app.state.server.sessions))
            try:
                yield
            finally:
                sweeping.cancel()
                await app.state.server.queue.stop()

    app = FastAPI(
        title="priorpaint",
        version=__version__,
        summary="Fill in the missing parts of a picture with several plausible answers.",
        lifespan=lifespan,
        docs_url=None,  # its pages load scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    _tell_errors(app)
    add_routes(app)

    def admits(scope: Scope) -> bool:
        server: State = app.state.server
        return server.admits(HTTPConnection(scope))

    allowed: dict[str, Any] = {"hosts": options.hosts, "any_address": options.any_address}
    app.add_middleware(Guard, **allowed, largest=options.limits.upload, admits=admits)
    return app


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(_SWEEP)
        await asyncio.to_thread(sessions.sweep)


def _tell_errors(app: FastAPI) -> None:
    """Every error is ``{"error": one sentence}``."""

    def told(status: int, message: object, headers: Any = None) -> JSONResponse:
        return JSONResponse({"error": printable(message)}, status, headers)

    @app.exception_handler(PriorpaintError)
    async def own(request: Request, error: PriorpaintError) -> JSONResponse:
        if isinstance(error, Refused):
            return told(error.status, error, error.headers)
        return told(422 if isinstance(error, UsageError) else 500, error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        return told(error.status_code, error.detail, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][1:])
        return told(422, f"{name or 'the request'} is not valid: {str(first['msg']).lower()}.")

    @app.exception_handler(MemoryError)
    async def memory(request: Request, error: MemoryError) -> JSONResponse:
        return told(507, "there is not enough memory for this; try a smaller picture.")

    @app.exception_handler(OSError)
    async def disk(request: Request, error: OSError) -> JSONResponse:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return told(507, "the server's disk is full; try again later, or ask whoever runs it for more space.")
        return told(500, "the server could not read or write a file; its terminal says more.")
