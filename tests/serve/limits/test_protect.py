"""What is refused before any route sees it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import pytest
from serving import Server, routes, send, wait_until

from fewshot.serve.limits import protect as source
from fewshot.serve.limits.protect import OPEN, Limits, Protect

COMPLETION = {"prompt": "the cat", "max_tokens": 2}


def test_a_host_of_another_name_is_refused_on_every_route(server: Server) -> None:
    for method, path in [*routes(server), ("GET", "/openapi.json"), ("GET", "/")]:
        for host in ("evil.example", "127.0.0.1.evil.example", "", "127.0.0.1@evil.example:80"):
            status, answer = send(server, method, path, {}, Host=host)
            assert (status, answer["error"]["type"]) == (403, "invalid_request_error"), (method, path, host)


def test_with_keys_every_route_wants_one_but_those_that_say_nothing(serving: Callable[..., Server]) -> None:
    server = serving(keys=["secret", "other"])
    listed = routes(server)
    assert len(listed) >= 7
    for method, path in [
        *listed,
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/health/"),
        ("GET", "//health"),
    ]:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secre"}, {"Authorization": ""}):
            status, _ = send(server, method, path, {}, **headers)
            assert status == (200 if path in OPEN else 401), (method, path, headers)
    for key in ("secret", "other"):
        status, answer = send(server, "POST", "/v1/completions", COMPLETION, Authorization=f"Bearer {key}")
        assert (status, answer["usage"]["completion_tokens"]) == (200, 2)


def test_what_one_key_read_is_not_found_by_another(serving: Callable[..., Server]) -> None:
    server = serving(keys=["secret", "other"])

    def cached(key: str) -> int:
        body = {"prompt": "the cat sat on the mat. the dog", "max_tokens": 1}
        _, answer = send(server, "POST", "/v1/completions", body, Authorization=f"Bearer {key}")
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached("secret") == 0
    assert cached("secret") > 0
    assert cached("other") == 0


def test_a_body_that_is_too_large_is_refused_as_its_bytes_come(serving: Callable[..., Server]) -> None:
    server = serving(body_bytes=1000)
    assert send(server, "POST", "/v1/completions", b"x" * 1001)[0] == 413
    where = urlparse(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")  # no length was told, and no end comes
        assert b" 413 " in connection.recv(1 << 16).split(b"\r\n")[0]


def test_a_body_of_a_length_that_is_too_large_is_refused_before_it_comes(serving: Callable[..., Server]) -> None:
    server = serving(body_bytes=1000)
    where = urlparse(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        head = (
            b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n"
        )
        connection.sendall(head)
        assert b" 413 " in connection.recv(1 << 16).split(b"\r\n")[0]


def test_all_bodies_together_are_bounded_until_their_requests_end(serving: Callable[..., Server]) -> None:
    server = serving(body_bytes=1000, bodies_bytes=1500)
    where = urlparse(server.url)
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\n" + b" " * 999)
        wait_until(lambda: send(server, "POST", "/tokenize", b" " * 900)[0] == 503)
    wait_until(lambda: send(server, "POST", "/tokenize", b" " * 900)[0] == 400)


def test_two_hosts_are_none(server: Server) -> None:
    where = urlparse(server.url)
    for first, second in ((b"evil.example", b"127.0.0.1"), (b"127.0.0.1", b"evil.example"), (b"127.0.0.1",) * 2):
        with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: " + first + b"\r\nHost: " + second + b"\r\n\r\n")
            assert b" 403 " in connection.recv(1 << 16).split(b"\r\n")[0]


def test_a_body_that_does_not_come_is_given_up(serving: Callable[..., Server]) -> None:
    server = serving(body_seconds=0.3)
    where = urlparse(server.url)
    began = time.monotonic()
    with socket.create_connection((where.hostname, where.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50\r\n\r\n{")
        assert b" 408 " in connection.recv(1 << 16).split(b"\r\n")[0]
    assert time.monotonic() - began < 8


BODIES: list[bytes] = [
    b"", b"{", b"[]", b"null", b"3", b'"text"', b"\xff\xfe", b"{}}", b'{"prompt": NaN}', b'{"temperature": NaN}',
    b'{"temperature": 1e999}', b'{"temperature": -Infinity}', b'{"max_tokens": 1' + b"0" * 400 + b"}",
    b'{"seed": 1e400}', b'{"prompt": "\\ud800"}', b'{"stop": "\\udfff"}', b'{"user": "\\ud800"}',
    b'{"prompt": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", b'{"x": ' * 20_000 + b"1" + b"}" * 20_000,
    b'{"prompt": "a", "prompt": 3}', b'{"\\ud800": 1}', b'{"logit_bias": {"\\ud800": 1}}',
    b'{"logit_bias": {"' + b"9" * 10_000 + b'": 1}}', b'{"n": 1000000000}', b'{"top_k": 1' + b"0" * 30 + b"}",
    b'{"temperature": 1e-300, "max_tokens": 1}', b'{"prompt": [9223372036854775808]}', b'{"prompt": [1e3]}',
    b'{"logprob_token_ids": [1' + b"0" * 30 + b"]}", b'{"stream_options": {}, "stream": null}',
    b'{"stream_options": [], "stream": true}', b'{"model": "\\u0000"}', b'{"prompt": "\\u0000", "max_tokens": 1}',
]  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/completions", "/tokenize", "/detokenize"])
def test_no_body_gives_more_than_an_error_of_its_own(server: Server, path: str) -> None:
    for body in BODIES:
        status, answer = send(server, "POST", path, body)
        assert status in (200, 400, 404), (body[:60], answer)
        assert status == 200 or answer["error"]["message"]
    assert send(server, "GET", "/health") == (200, {"status": "ok"})
    assert server.worker.n_open == 0


def test_errors_wait_for_each_other_and_answers_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": int(scope["path"]), "headers": []})

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def ask(*statuses: str) -> None:
        protect = Protect(answer, Limits(hosts=["here"], error_seconds=70.0))
        for status in statuses:
            scope = {"type": "http", "path": status, "headers": [(b"host", b"here")]}
            await protect(scope, receive, sent)

    async def sent(message: Any) -> None:
        pass

    only_here = SimpleNamespace(sleep=note, timeout=asyncio.timeout, get_running_loop=asyncio.get_running_loop)
    monkeypatch.setattr(source, "asyncio", only_here)  # servers of other tests in this process sleep as ever
    asyncio.run(ask("200", "400", "200", "404", "500"))
    assert [round(seconds, -1) for seconds in waits] == [0, 70, 140]
