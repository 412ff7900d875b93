"""What a request must pass before any route sees it: its Host, its key, its size, its time. A plain ASGI class."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewshot.serve.playground import FILES

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
    body_bytes: int = 1 << 21
    body_seconds: float = 20.0  # for the whole body to come


class Protect:
    """Refuses what is not allowed with an error in OpenAI's shape."""

    def __init__(self, app: App, limits: Limits) -> None:
        self.app, self.limits = app, limits

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "").rsplit(":", 1)[0] if "]" not in headers.get("host", "") else "[::1]"
        if host not in self.limits.hosts:
            await _refuse(send, 403, "this Host is not served here: another page may be behind the request")
            return
        key = self._key(headers)
        if key is None and scope["path"] not in OPEN:
            await _refuse(send, 401, "a key is needed: send 'Authorization: Bearer KEY'")
            return
        scope["fewshot.key"] = key or ""
        try:
            body = await asyncio.wait_for(self._body(receive), self.limits.body_seconds)
        except TimeoutError:
            await _refuse(send, 408, f"the body did not come within {self.limits.body_seconds:g} seconds")
            return
        if body is None:
            await _refuse(send, 413, f"the body is larger than {self.limits.body_bytes:,} bytes")
            return
        told = False

        async def again() -> Message:
            nonlocal told
            if not told:
                told = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self.app(scope, again, send)

    def _key(self, headers: dict[str, str]) -> str | None:
        """Return the key of a request, "" where none is needed, None where it is wrong or missing."""
        if not self.limits.keys:
            return ""
        sent = headers.get("authorization", "").removeprefix("Bearer ").encode("latin-1")
        return next((key for key in self.limits.keys if hmac.compare_digest(key.encode(), sent)), None)

    async def _body(self, receive: Receive) -> bytes | None:
        """Return the body as it was received; None if it is too large."""
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return b""
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self.limits.body_bytes:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)


async def _refuse(send: Send, status: int, message: str) -> None:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})
