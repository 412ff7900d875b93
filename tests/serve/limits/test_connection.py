"""Connections that are held: by asking slowly, by not reading, by asking for more at once, by their number."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlparse

import pytest
from serving import N_CTX, Server, send, wait_until

from fewshot.serve import server as process
from fewshot.serve.limits.connection import bounded

HEALTH = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(params=[True, False], ids=["httptools", "h11"])
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, serving: Serving) -> Serving:
    """Start servers over each of uvicorn's two protocols."""
    monkeypatch.setattr(process, "bounded", lambda limits: bounded(limits, httptools=request.param))
    return serving


Connect = Callable[..., socket.socket]
Serving = Callable[..., Server]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Make connections; of an answer, their end holds about `received_bytes` that nobody has read."""
    begun = []

    def make(server: Server, *, received_bytes: int | None = None) -> socket.socket:
        where, connection = urlparse(server.url), socket.socket()
        begun.append(connection)
        if received_bytes is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received_bytes)
        connection.settimeout(20)
        connection.connect((where.hostname, where.port))
        return connection

    yield make
    for connection in begun:
        connection.close()


def n_connections(server: Server) -> int:
    return len(server.process.server_state.connections)


def ask(connection: socket.socket, body: dict[str, Any]) -> socket.socket:
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def answer(connection: socket.socket) -> bytes:
    """All that comes until the end of the connection, however it ends."""
    received = b""
    try:
        while data := connection.recv(1 << 16):
            received += data
    except ConnectionError:
        pass
    return received


def dribble(connection: socket.socket, data: bytes) -> int:
    """Send a byte every 20 ms; return how many until the other end had enough."""
    connection.settimeout(0.02)
    for i in range(len(data)):
        try:
            connection.sendall(data[i : i + 1])
            if not connection.recv(1):
                return i
        except TimeoutError:
            continue
        except ConnectionError:
            return i
    return len(data)


def test_headers_that_come_a_byte_at_a_time_end_the_connection(served: Serving, connect: Connect) -> None:
    server = served(header_seconds=0.3)
    silent = connect(server)
    assert dribble(connect(server), HEALTH + b"X: y\r\n" * 1000) < 3000
    assert answer(silent) == b""
    assert n_connections(server) == 0


def test_headers_of_a_later_request_have_no_more_time(served: Serving, connect: Connect) -> None:
    server = served(header_seconds=0.3)
    connection = connect(server)
    connection.sendall(HEALTH + b"\r\n")
    assert b" 200 OK" in connection.recv(1 << 16)
    assert dribble(connection, HEALTH + b"X: y\r\n" * 1000) < 3000
    assert n_connections(server) == 0


def test_an_answer_may_take_longer_than_the_headers(served: Serving, connect: Connect) -> None:
    server = served(header_seconds=0.3, body_seconds=20)
    body = json.dumps({"prompt": "the cat", "max_tokens": 2}).encode()
    connection = connect(server)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode())
    time.sleep(0.6)
    connection.sendall(body)
    assert b" 200 OK" in connection.recv(1 << 16)


def test_a_body_that_comes_a_byte_at_a_time_is_given_up(served: Serving, connect: Connect) -> None:
    server = served(body_seconds=0.3)
    connection = connect(server)
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\n")
    assert dribble(connection, b" " * 9000) < 9000
    assert n_connections(server) == 0


@pytest.mark.parametrize(
    "start",
    [b"GET /", HEALTH + b"X: ", HEALTH + b"X", HEALTH + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: "],
    ids=["the path", "a value", "a name", "a trailer"],
)
def test_headers_without_end_are_refused_before_they_fill_the_memory(
    served: Serving, connect: Connect, start: bytes
) -> None:
    server = served()
    connection = connect(server)
    connection.sendall(start)
    n_sent = 0
    try:
        while n_sent < 1 << 26:
            n_sent += connection.send(b"x" * (1 << 16))
    except ConnectionError:
        pass
    assert n_sent < 1 << 24
    wait_until(lambda: n_connections(server) == 0)


@pytest.mark.parametrize("trailer", [b"Host: evil.example", b"Authorization: Bearer secret"])
def test_a_trailer_is_no_header(served: Serving, connect: Connect, trailer: bytes) -> None:
    connection = connect(served(keys=["secret"]))
    start = b"POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    connection.sendall(start + trailer + b"\r\n\r\n")
    assert answer(connection).startswith(b"HTTP/1.1 401 ")


def test_a_second_request_before_the_first_answer_ends_the_connection(served: Serving, connect: Connect) -> None:
    server = served()
    bias = {str(server.tokenizer.eot): -100}
    body = {"prompt": "the", "max_tokens": N_CTX - 10, "n": 100, "logit_bias": bias}
    connection = ask(connect(server), body)
    wait_until(lambda: server.worker.n_open == 100)
    connection.sendall(HEALTH + b"\r\n")
    assert answer(connection) == b""
    wait_until(lambda: server.worker.n_open == 0)


def test_more_connections_than_allowed_are_refused_until_one_ends(served: Serving, connect: Connect) -> None:
    server = served(connections=3)
    held = [connect(server) for _ in range(3)]
    wait_until(lambda: n_connections(server) == 3)
    refused = answer(connect(server))
    assert refused.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["type"] == "server_error"
    held.pop().close()
    wait_until(lambda: n_connections(server) == 2)
    assert send(server, "GET", "/health")[0] == 200


def long_answer(server: Server, *, stream: bool) -> dict[str, Any]:
    bias = {str(server.tokenizer.eot): -100}
    return {"prompt": "the", "max_tokens": N_CTX - 10, "n": 30, "stream": stream, "logprobs": 20, "logit_bias": bias}


@pytest.fixture
def impatient(served: Serving) -> Server:
    return served(write_seconds=0.3)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_never_reads_is_cut_off_and_leaves_nothing(
    impatient: Server, connect: Connect, stream: bool
) -> None:
    connection = ask(connect(impatient, received_bytes=1 << 12), long_answer(impatient, stream=stream))
    wait_until(lambda: impatient.worker.n_open > 0)
    wait_until(lambda: n_connections(impatient) == 0)
    wait_until(lambda: impatient.worker.n_open == 0 and not impatient.worker.engine.busy)
    assert impatient.worker.engine.n_reserved_bytes == 0
    assert len(answer(connection)) < 1 << 20


def test_a_client_that_reads_slowly_gets_everything(impatient: Server, connect: Connect) -> None:
    connection = ask(connect(impatient, received_bytes=1 << 12), {**long_answer(impatient, stream=True), "n": 4})
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        received += connection.recv(1 << 14)
        time.sleep(0.01)
    assert b"data: [DONE]" in received
