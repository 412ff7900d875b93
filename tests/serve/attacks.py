"""What a hostile client does, over plain sockets. The tests and benchmarks/attack.py use it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

WHENS = ("queue", "prefill", "decode", "stream")
FIELDS = [
    "prompt", "model", "max_tokens", "temperature", "top_p", "top_k", "n", "best_of", "stream", "stream_options",
    "echo", "logprobs", "stop", "presence_penalty", "frequency_penalty", "logit_bias", "suffix", "seed", "user",
    "unknown", "logprob_token_ids", "return_token_ids",
]  # fmt: skip
VALUES = [
    b"NaN", b"-Infinity", b"1e999", b"1" + b"0" * 400, b"-1", b"0", b"1e-300", b"1e-45", b"1000000000", b"2147483648",
    b"9223372036854775808", b"0.5", b"null", b"true", b'""', b'"\\ud800"', b'"\\udfff\\ud800"', b'"\\u0000"', b'"x"',
    b"[]", b"{}", b"[[]]", b"[null]", b"[999999999]", b"[-1]", b"[1e3]", b"[[1],[]]", b'["\\ud800"]', b'{"1": NaN}',
    b'{"999999999": 1}', b'{"-1": 1}', b'{"\\ud800": 1}', b'{"1": 1e400}', b'{"include_usage": 1}', b'"\xff\xfe"',
    b"[" * 20_000 + b"]" * 20_000, b'{"x":' * 20_000 + b"1" + b"}" * 20_000, b"[" * 20_000,
    b'["a"' + b',"a"' * 300 + b"]", b"[" + b"null," * 10_000 + b"1]", b'"' + b"a" * 100_000 + b'"',
    b"[1" + b",1" * 50_000 + b"]",
]  # fmt: skip


def bad_bodies(n: int, *, seed: int) -> Iterator[bytes]:
    """Yield bodies of one or two fields that are not what they should be, some of them cut or changed in a byte."""
    draw = random.Random(seed)
    for _ in range(n):
        fields = {b"max_tokens": b"1", **{draw.choice(FIELDS).encode(): draw.choice(VALUES) for _ in range(2)}}
        body = bytearray(b"{" + b", ".join(b'"%s": %s' % pair for pair in fields.items()) + b"}")
        fate = draw.randrange(10)
        if fate == 0:
            del body[draw.randrange(len(body)) :]
        elif fate == 1:
            body[draw.randrange(len(body))] = draw.randrange(256)
        yield bytes(body)


def statuses(port: int, bodies: Iterator[bytes], *, timeout_seconds: float = 30) -> Counter[str]:
    """Send bodies one after another; count the statuses, and what hung or had no answer."""
    counts: Counter[str] = Counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    for body in bodies:
        try:
            connection.request("POST", "/v1/completions", body)
            answer = connection.getresponse()
            answer.read()
            counts[str(answer.status)] += 1
        except TimeoutError:
            counts["hang"] += 1
            connection.close()
        except (OSError, http.client.HTTPException):
            counts["no answer"] += 1
            connection.close()
    connection.close()
    return counts


def connect(port: int, *, received_bytes: int | None = None) -> socket.socket:
    """Return a connection; of an answer, its end holds about `received_bytes` that nobody has read."""
    connection = socket.socket()
    if received_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received_bytes)
    connection.settimeout(20)
    connection.connect(("127.0.0.1", port))
    return connection


def ask(connection: socket.socket, body: dict[str, Any]) -> socket.socket:
    """Send a completion request."""
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def drop(port: int, when: str, n: int, *, n_ctx: int, eot: int) -> None:
    """Begin `n` requests at once and go away: while they are in the queue, in prefill, in decode, or in a stream."""
    read = n_ctx - 9 if when == "prefill" else 3
    body: dict[str, Any] = {"max_tokens": n_ctx - read, "logit_bias": {str(eot): -100}, "stream": when == "stream"}
    body["n"] = 16 if when == "queue" else 1
    connections = []
    for _ in range(n):  # each begins in its own way, so that none is found in the cache
        prompt = [random.randrange(256) for _ in range(read)]
        connections.append(ask(connect(port), {**body, "prompt": prompt}))
    if when == "decode":
        time.sleep(0.05)
    for connection in connections:
        if when == "stream":
            while b"data: " not in connection.recv(1 << 12):
                pass
        connection.close()


def dribble(connections: Sequence[socket.socket], data: bytes, *, pause_seconds: float) -> int:
    """Send byte after byte over all connections, as long as any is open; return how many stay open at the end."""
    left = list(connections)
    for i in range(len(data)):
        for connection in list(left):
            try:
                connection.sendall(data[i : i + 1])
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    if not connection.recv(1 << 12):
                        left.remove(connection)
                connection.setblocking(True)
            except ConnectionError:
                left.remove(connection)
        if not left:
            break
        time.sleep(pause_seconds)
    return len(left)


def send_without_end(port: int, most_bytes: int) -> tuple[int, str]:
    """Send a chunked body of `most_bytes`; return how many went, and the status."""
    connection, n_sent = connect(port), 0
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with contextlib.suppress(ConnectionError), connection:
        try:
            while n_sent < most_bytes:
                connection.sendall(chunk)
                n_sent += 0x10000
        except ConnectionError:
            pass
        return n_sent, connection.recv(1 << 12).split(b" ")[1].decode()
    return n_sent, "no answer"


def held(pid: int | None = None) -> dict[str, int]:
    """Return what a process holds: threads, file descriptors, bytes of memory."""
    folder = Path("/proc") / str(pid or os.getpid())
    n_pages = int((folder / "statm").read_text().split()[1])
    return {
        "threads": len(list((folder / "task").iterdir())),
        "file_descriptors": len(list((folder / "fd").iterdir())),
        "memory_bytes": n_pages * os.sysconf("SC_PAGE_SIZE"),
    }
