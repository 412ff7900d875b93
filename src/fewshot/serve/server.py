"""The process: where it listens, and how it ends. In: an application. Out: an exit when a signal has come."""

from __future__ import annotations

import os
import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from fewshot.base.errors import BadValue
from fewshot.base.log import note
from fewshot.serve.limits.connection import bounded
from fewshot.serve.limits.protect import Limits
from fewshot.serve.worker import Worker

MARGIN_SECONDS = 3  # for errors to be sent after the grace


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens; uvicorn's own failure would be a line of its log."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error)
        raise BadValue(f"--host {host} --port {port}: {reason.lower()}; give another") from None


class Server(uvicorn.Server):
    """A server that gives what runs some seconds when SIGINT or SIGTERM comes, and ends the rest with an error."""

    def __init__(
        self,
        app: FastAPI,
        worker: Worker,
        limits: Limits,
        *,
        host: str,
        port: int,
        name: str,
        grace_seconds: float,
    ) -> None:
        config = uvicorn.Config(
            app,
            http=bounded(limits),
            ws="none",
            host=host,
            port=port,
            log_level="error",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=int(grace_seconds) + MARGIN_SECONDS,
        )
        super().__init__(config)
        self._worker, self._name, self._grace_seconds = worker, name, grace_seconds

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes; raises BadValue where it cannot listen."""
        super().run(sockets or [_listening(self.config.host, self.config.port)])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say where."""
        await super().startup(sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port = listening.getsockname()[:2]
                host = f"[{host}]" if ":" in host else host
                at = f"http://{host}:{port}"
                note(f"serving {self._name} at {at}/v1; the playground is at {at}/; Ctrl-C ends it")

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take no new requests; give those that run the grace."""
        self._worker.close(after_seconds=self._grace_seconds)
        super().handle_exit(sig, frame)
