"""``priorpaint serve``: the web page and its API."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from typing import Annotated

from typer import Option

from priorpaint.errors import MissingExtra, UsageError

from .options import Device, Offline, Threads
from .terminal import echo

_EVERYWHERE = ("0.0.0.0", "::")


def serve(
    host: Annotated[str, Option(metavar="ADDRESS", help="Where to listen; any but this computer asks for a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, Option(min=0, max=65535, metavar="N", help="0 takes a free one.")] = 7860,
    prior: Annotated[
        list[str] | None, Option(metavar="NAME|PATH", help="A prior that the page may use besides ours; repeatable.")
    ] = None,
    keep: Annotated[Path | None, Option(metavar="FOLDER", help="Keep results here; else they go at the end.")] = None,
    allow_host: Annotated[
        list[str] | None, Option(metavar="NAME", help="Another name by which the page is opened; repeatable.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    offline: Offline = False,
) -> None:
    """Open a page on which a photo is dropped, painted over and filled in.

    Only this computer reaches it, unless --host says otherwise; then the address that is printed holds a token.
    """
    try:
        import uvicorn

        from priorpaint.server.app import create_app
        from priorpaint.server.state import Options
    except ImportError as error:
        if isinstance(error, MissingExtra):
            raise
        raise MissingExtra("the page needs FastAPI and uvicorn; run: pip install 'priorpaint[web]'") from None
    from priorpaint.server.guard import is_loopback

    listening = _bound(host, port)
    port = listening.getsockname()[1]
    if keep is not None:
        _check_folder(keep)
    local = is_loopback(host)
    token = None if local else secrets.token_urlsafe(24)
    names = {name.lower() for name in (*(allow_host or ()), *(() if local else (host, socket.gethostname())))}
    options = Options(
        hosts=frozenset(names),
        any_address=host in _EVERYWHERE,
        token=token,
        priors=tuple(prior or ()),
        keep=None if keep is None else keep.resolve(),
        device=device,
        threads=threads,
        offline=offline,
        cookie=f"priorpaint_{port}",
    )
    app = create_app(options)
    shown = socket.gethostname() if host in _EVERYWHERE else host
    shown = f"[{shown}]" if ":" in shown else shown
    echo(f"Open http://{shown}:{port}/{'' if token is None else f'#token={token}'} (Ctrl-C ends the server)", err=True)
    config = uvicorn.Config(app, log_level="warning", server_header=False, timeout_graceful_shutdown=2)
    uvicorn.Server(config).run(sockets=[listening])


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        UsageError: the address is no address of this computer, or the port is in use.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        words = error.strerror or str(error)
        raise UsageError(
            f"{host} port {port} cannot be used ({words}); choose another --port (0 takes a free one)."
        ) from None


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}); choose another folder for --keep.") from None
