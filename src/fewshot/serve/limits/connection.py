"""One connection: what it may send, how long it may take to ask and to read. Over uvicorn's protocols, which bound none
of this: a client that sends a byte a second, or never reads, would hold a connection for ever.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import socket
from http import HTTPStatus
from typing import Any

from fewshot.serve.limits.protect import Limits
from fewshot.serve.schema import ApiError

HELD_BY_SYSTEM = 1 << 16  # bytes of an answer that the system takes before the client has room for them
LEAST_READ = 1 << 14  # bytes that a client must take in `write_seconds`, or all that wait for it


class Bounded(asyncio.Protocol):
    """To be mixed into a protocol of uvicorn, from which it has the attributes that are only declared here."""

    limits: Limits  # set by `bounded`
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    connections: set[Any]
    cycle: Any  # the request that came last; None before the first

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for a request; with too many connections refuse this one."""
        super().connection_made(transport)
        self._ask_timer = self.loop.call_later(self.limits.header_seconds, self.transport.close)
        self._write_timer = self._ask_timer  # there is no other yet
        self.transport.set_write_buffer_limits(high=0)  # whatever waits here blocks: `pause_writing` is told at once
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # elsewhere the system holds some megabytes more
            own = transport.get_extra_info("socket")
            own.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, HELD_BY_SYSTEM)
        if len(self.connections) > self.limits.connections:
            self.refuse(ApiError("too many connections: try again later", status=503, kind="server_error"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._ask_timer.cancel()
        self._write_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came; the time to ask ends with the headers, that of a body is bounded by `Protect`."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._ask_timer.cancel()
            if self.is_pipelined:  # reading has stopped, so that a client that goes away would not be noticed
                self.transport.abort()

    def on_response_complete(self) -> None:
        """Begin to wait for the next request; uvicorn ends a connection on which nothing comes at all."""
        super().on_response_complete()  # type: ignore[misc]
        if not self.transport.is_closing():
            self._ask_timer.cancel()
            self._ask_timer = self.loop.call_later(self.limits.header_seconds, self.transport.close)

    def pause_writing(self) -> None:
        """Begin to watch whether the client reads, as some of its answer waits here."""
        super().pause_writing()
        self._watch_reading()

    def resume_writing(self) -> None:
        """End the watch: nothing waits."""
        super().resume_writing()
        self._write_timer.cancel()

    def _watch_reading(self) -> None:
        self._n_unread = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.limits.write_seconds, self._check_reading)

    def _check_reading(self) -> None:
        if self._n_unread - self.transport.get_write_buffer_size() < LEAST_READ:
            self.transport.abort()  # what is told to the application as to any that went away
        else:
            self._watch_reading()

    @property
    def is_pipelined(self) -> bool:
        """Whether another request has come before the answer to this one."""
        raise NotImplementedError

    def refuse(self, error: ApiError) -> None:
        """Answer without the application, and close."""
        body = json.dumps({"error": error.body}).encode()
        head = f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"content-type: application/json\r\nconnection: close\r\n\r\n" + body)
        self.transport.close()


def bounded(limits: Limits, *, httptools: bool = importlib.util.find_spec("httptools") is not None) -> type[Bounded]:
    """Return the class of uvicorn's connections, with these limits."""
    kind = _over_httptools() if httptools else _over_h11()
    return type("BoundedProtocol", (kind,), {"limits": limits})


def _over_httptools() -> type[Bounded]:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class OverHttptools(Bounded, HttpToolsProtocol):
        """Bounds headers too, and trailers, which httptools would hold whatever their size and take for headers."""

        _n_head_bytes = 0  # since something came that is neither
        _is_head = True

        def data_received(self, data: bytes) -> None:
            self._n_head_bytes += len(data)
            super().data_received(data)
            if self._n_head_bytes > self.limits.header_bytes and not self.transport.is_closing():
                message = f"the headers are larger than {self.limits.header_bytes:,} bytes"
                self.refuse(ApiError(message, status=431))

        def on_message_begin(self) -> None:
            self._is_head = True
            super().on_message_begin()

        def on_header(self, name: bytes, value: bytes) -> None:
            if self._is_head:
                super().on_header(name, value)

        def on_headers_complete(self) -> None:
            self._n_head_bytes, self._is_head = 0, False
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._n_head_bytes = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._n_head_bytes = 0
            super().on_message_complete()

        @property
        def is_pipelined(self) -> bool:
            return bool(self.pipeline)

    return OverHttptools


def _over_h11() -> type[Bounded]:
    import h11
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class OverH11(Bounded, H11Protocol):
        """Leaves the size of headers to h11, which bounds it: 64 KB."""

        @property
        def is_pipelined(self) -> bool:
            return self.conn.their_state is h11.DONE and bool(self.conn.trailing_data[0])

    return OverH11
