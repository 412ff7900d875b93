"""What a request must pass before any route sees it: its Host, its key, its size, its time. A plain ASGI class.

`Limits` are those of connections too; `connection.py` keeps them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot.serve.playground import FILES
from fewshot.serve.schema import ApiError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
OPEN = ("/health", *FILES)  # for which no key is needed; the page of the playground asks for it


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is allowed."""

    hosts: Sequence[str]  # names that the Host header may have, its port left out
    keys: Sequence[str] = ()  # none: everyone may
    connections: int = 512  # at once
    header_bytes: int = 1 << 16
    header_seconds: float = 10.0  # for the headers to come, from the connection or the last answer on
    body_bytes: int = 1 << 21
    body_seconds: float = 20.0  # for the whole body to come
    bodies_bytes: int = 1 << 26  # of all requests that are open
    write_seconds: float = 20.0  # in which a client must read something of what waits for it
    error_seconds: float = 0.005  # from one error to the next: who sends what is refused waits for the next answer


class Protect:
    """Refuses what is not allowed with an error in OpenAI's shape."""

    def __init__(self, app: App, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self._n_bytes = 0  # of the bodies of all open requests
        self._next_error = 0.0  # when it may be sent

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = bytearray()

        async def paced(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                await self._turn()
            await send(message)

        try:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            n_hosts = sum(name.lower() == b"host" for name, _ in scope["headers"])
            self._check_host(headers.get("host", "") if n_hosts == 1 else "")
            scope["fewshot.key"] = self._key(headers, scope["path"])
            is_whole = await self._read(body, int(headers.get("content-length", 0)), receive)
            if is_whole:
                with contextlib.ExitStack() as scope["fewshot.at_end"]:  # a stream that never began has no end itself
                    await self.app(scope, _told(body, receive), paced)
        except ApiError as error:
            await _refuse(paced, error)
        finally:
            self._n_bytes -= len(body)

    async def _turn(self) -> None:
        """Wait until an error may be sent, so that a flood of bad requests leaves the others their time."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._next_error)
        self._next_error = at + self.limits.error_seconds
        await asyncio.sleep(at - now)

    def _check_host(self, host: str) -> None:
        name = "[::1]" if "]" in host else host.rsplit(":", 1)[0]
        if name not in self.limits.hosts:
            raise ApiError("this Host is not served here: another page may be behind the request", status=403)

    def _key(self, headers: dict[str, str], path: str) -> str:
        """Return the key of a request, "" where none is needed."""
        sent = headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        key = next((key for key in self.limits.keys if hmac.compare_digest(key.encode(), sent)), None)
        if key is None and self.limits.keys and path not in OPEN:
            raise ApiError("a key is needed: send 'Authorization: Bearer KEY'", status=401)
        return key or ""

    async def _read(self, body: bytearray, n_told: int, receive: Receive) -> bool:
        """Read a body, of whose length `n_told` was said; return whether the client was there to its end."""
        limits = self.limits

        def check(n_bytes: int) -> None:
            if n_bytes > limits.body_bytes:
                raise ApiError(f"the body is larger than {limits.body_bytes:,} bytes", status=413)
            if self._n_bytes > limits.bodies_bytes:
                raise ApiError("too much is sent at once: try again later", status=503, kind="server_error")

        check(n_told)
        try:
            async with asyncio.timeout(limits.body_seconds):
                is_more = True
                while is_more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    body += message.get("body", b"")
                    self._n_bytes += len(message.get("body", b""))
                    check(len(body))
                    is_more = message.get("more_body", False)
        except TimeoutError:
            raise ApiError(f"the body did not come within {limits.body_seconds:g} seconds", status=408) from None
        return True


def _told(body: bytearray, receive: Receive) -> Receive:
    """Return what tells the application the body, and then whether the client goes away."""
    parts: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def tell() -> Message:
        return parts.pop() if parts else await receive()

    return tell


async def _refuse(send: Send, error: ApiError) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error.body}).encode()})
