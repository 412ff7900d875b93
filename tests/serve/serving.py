"""A served model: a real server in a thread, and OpenAI's own client."""

from __future__ import annotations

import functools
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlparse

import openai
import torch

from fewshot.evaluate.tasks.table import make_task
from fewshot.generate.engine import Engine
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.serve.app import make_app
from fewshot.serve.completions import Served
from fewshot.serve.limits.protect import Limits
from fewshot.serve.server import Server as Process
from fewshot.serve.worker import Worker
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.vocab import Tokenizer

N_CTX = 64


@dataclass
class Server:
    """A running server."""

    url: str
    worker: Worker
    model: PackedGPT
    tokenizer: Tokenizer
    process: Process

    @property
    def client(self) -> Any:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)


def running(model: PackedGPT, tokenizer: Tokenizer, **limits: Any) -> Iterator[Server]:
    engine = Engine(model, tokenizer, cache_bytes=1 << 24, chunk=16)
    worker = Worker(engine)
    tasks = {name: make_task(name) for name in ("hidden_letter", "arithmetic_1d_composite")}
    served = Served(name="tiny", tokenizer=tokenizer, n_ctx=N_CTX, identity={"weights": "tiny"}, tasks=tasks)
    allowed = Limits(hosts=["127.0.0.1"], **limits)
    app = make_app(worker, served, allowed)
    server = Process(app, worker, allowed, host="127.0.0.1", port=0, name="tiny", grace_seconds=2)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Server(f"http://127.0.0.1:{port}", worker, model, tokenizer, server)
    server.should_exit = True
    thread.join()


@functools.cache
def tiny_model() -> tuple[PackedGPT, Tokenizer]:
    """A random model over a byte-level BPE: it writes all kinds of bytes."""
    torch.manual_seed(0)
    tokenizer = train_bpe(["the cat sat on the mat. the dog sat on the log. 日本 é 😀 " * 9], n_vocab=300)
    shape = {"n_layers": 2, "d_model": 32, "n_heads": 2, "n_ctx": N_CTX, "n_vocab": tokenizer.n_vocab, "init_std": 0.3}
    return PackedGPT(GPT(GPTConfig(**shape, pattern="alternate(dense, banded(16))")).eval()), tokenizer


def send(server: Server, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, Any]]:
    """The status and the answer."""
    where = urlparse(server.url)
    assert where.hostname is not None
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, data, headers)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text) if text else {}


def routes(server: Server) -> list[tuple[str, str]]:
    """Every route that the application itself lists."""
    status, listed = send(server, "GET", "/openapi.json", Authorization="Bearer secret")
    assert status == 200
    return [(method.upper(), path) for path, methods in listed["paths"].items() for method in methods]


def begin(server: Server, body: dict[str, Any]) -> socket.socket:
    """Send a request and leave its answer unread."""
    where = urlparse(server.url)
    connection = socket.create_connection((where.hostname, where.port), timeout=10)
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(data)}\r\n\r\n"
    connection.sendall(head.encode() + data)
    return connection


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
