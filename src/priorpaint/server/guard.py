"""What every request passes before any route sees it: who may ask, from which page, and how much."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Admits = Callable[[Scope], bool]

WRITE_HEADER = "x-priorpaint"
"""A header that every write needs: no form and no image of another page can send it without being asked for it."""
NO_TOKEN = "the token is missing or wrong; open the address that the server printed."
_SAFE = ("GET", "HEAD", "OPTIONS")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def host_name(value: str) -> str:
    """The name in a Host header or an origin's authority, in lower case, without port and brackets."""
    value = value.strip().lower()
    if value.startswith("["):
        return value[1:].partition("]")[0]
    return value.rpartition(":")[0] if value.count(":") == 1 else value


def is_loopback(host: str) -> bool:
    """Whether only this computer reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware.

    A page of somebody else can make a browser send requests here, and by DNS rebinding even under a name of its own.
    So the Host header of *every* request has to be one of ours: that its Origin equals its Host proves nothing. Writes
    have to come from our own page, or from no page, and to carry `WRITE_HEADER`. Bodies are counted as they are read.

    Args:
        app: what answers.
        hosts: names in the Host header besides those of loopback.
        any_address: whether the header may be any IP address too, which no DNS server can point elsewhere.
        largest: bytes of a request's body.
        admits: whether a request has a session or may open one. Of writes this is asked before their body is read; the
            routes ask again.
    """

    def __init__(self, app: App, hosts: frozenset[str], any_address: bool, largest: int, admits: Admits) -> None:
        self.app, self.largest, self._admits = app, largest, admits
        self._hosts, self._any_address = hosts | set(_LOOPBACK), any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]]
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        await self._counted(scope, receive, send)

    def _refusal(self, scope: Scope, headers: list[tuple[str, str]]) -> tuple[int, str] | None:
        hosts = [value for key, value in headers if key == "host"]
        if len(hosts) != 1 or not self._ours(host_name(hosts[0])):
            return 421, "this server does not go by that name; open it by the address that it printed (--allow-host)."
        one = dict(headers)
        if one.get("sec-fetch-site", "none") not in ("none", "same-origin") and scope["path"].startswith("/api/"):
            return 403, "requests come from this server's own page, or from a program."
        if scope["method"] in _SAFE:
            return None
        origin = one.get("origin")
        if origin is not None and origin.partition("://")[2].lower() != hosts[0].lower():
            return 403, "requests come from this server's own page, or from a program."
        if WRITE_HEADER not in one:
            return 403, f"a request that changes something has the header {WRITE_HEADER}: 1."
        if not self._admits(scope):
            return 401, NO_TOKEN
        length = one.get("content-length", "0")
        if not length.isdecimal():
            return 400, "the length of the request is not a number."
        if int(length) > self.largest:
            return 413, self._too_large
        return None

    @property
    def _too_large(self) -> str:
        return f"at most {self.largest // 2**20} MB are taken in; send a smaller file."

    def _ours(self, name: str) -> bool:
        if name in self._hosts:
            return True
        if not self._any_address:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        count, over, started = 0, False, False

        async def counting() -> Message:
            nonlocal count, over
            message = await receive()
            count += len(message.get("body", b""))
            if count > self.largest:
                over = True
                raise ValueError("too large")  # which ends the reading; the answer is below
            return message

        async def sending(message: Message) -> None:
            nonlocal started
            if over:
                return
            if message["type"] == "http.response.start":
                started = True
                own = {key.decode("latin-1").lower() for key, _ in message["headers"]}
                more = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k not in own]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        try:
            await self.app(scope, counting, sending)
        except ValueError:
            if not over:
                raise
        if over and not started:
            await _answer(send, 413, self._too_large)


async def _answer(send: Send, status: int, message: str) -> None:
    body = json.dumps({"error": message}).encode()
    headers = {**_HEADERS, "content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    pairs = [(key.encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
