"""Attacks, and what is left after them; benchmarks/attack.py measures the same, and more of it, on a process."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

import attacks
import pytest
from serving import N_CTX, Server, send, wait_until

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="what a process holds is read from /proc")


def port_of(server: Server) -> int:
    port = urlparse(server.url).port
    assert port is not None
    return port


def left_over(server: Server) -> dict[str, int]:
    """All that is to come back to what it was; the threads of the loop's pool stay, a few."""
    return {
        "connections": len(server.process.server_state.connections),
        "requests": server.worker.n_open,
        "calls' room": server.worker.room.n_open + server.worker.room.n_values,
        "engine": server.worker.engine.n_reserved_bytes + server.worker.engine.busy,
        "threads": sum(not thread.name.startswith(("asyncio_", "uvloop_")) for thread in threading.enumerate()),
        "file descriptors": attacks.held()["file_descriptors"],
    }


@pytest.fixture
def attacked(serving: Callable[..., Server]) -> Iterator[Server]:
    """A server; at the end, it is checked that nothing is left of what was done to it."""
    server = serving(header_seconds=0.5, write_seconds=0.5)
    assert send(server, "GET", "/health")[0] == 200
    wait_until(lambda: not server.process.server_state.connections)
    before = left_over(server)
    yield server
    assert send(server, "POST", "/v1/completions", {"prompt": "the", "max_tokens": 1})[0] == 200
    with contextlib.suppress(AssertionError):
        wait_until(lambda: left_over(server) == before)
    assert left_over(server) == before


@pytest.mark.parametrize("when", attacks.WHENS)
def test_drops_leave_nothing(attacked: Server, when: str) -> None:
    for _ in range(3):
        attacks.drop(port_of(attacked), when, 8, n_ctx=N_CTX, eot=attacked.tokenizer.eot)


def test_slow_and_silent_clients_leave_nothing_and_others_are_served(attacked: Server) -> None:
    port, bias = port_of(attacked), {str(attacked.tokenizer.eot): -100}
    body = {"prompt": "the", "max_tokens": N_CTX - 10, "n": 20, "logprobs": 20, "stream": True, "logit_bias": bias}
    silent = [attacks.ask(attacks.connect(port, received_bytes=1 << 12), body) for _ in range(5)]
    slow = [attacks.connect(port) for _ in range(50)]
    ask = {"prompt": "the cat", "max_tokens": 5}
    answers: list[int] = []
    other = threading.Thread(
        target=lambda: answers.extend(send(attacked, "POST", "/v1/completions", ask)[0] for _ in range(5))
    )
    other.start()
    assert attacks.dribble(slow, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000, pause_seconds=0.02) == 0
    other.join()
    assert answers == [200] * 5
    wait_until(lambda: not attacked.process.server_state.connections)
    for connection in [*silent, *slow]:
        connection.close()


def test_a_body_without_end_is_refused(attacked: Server) -> None:
    n_sent, status = attacks.send_without_end(port_of(attacked), 1 << 30)
    assert n_sent < 1 << 25
    assert status in ("413", "no answer")


ANSWERS = {"200", "400", "404", "429"}


def test_bad_bodies_are_answered_with_an_error_of_their_own(attacked: Server) -> None:
    assert set(attacks.statuses(port_of(attacked), attacks.bad_bodies(300, seed=1))) <= ANSWERS


@pytest.mark.slow
def test_ten_thousand_bad_bodies_take_no_memory(attacked: Server) -> None:
    port = port_of(attacked)
    attacks.statuses(port, attacks.bad_bodies(1000, seed=2))
    before = attacks.held()["memory_bytes"]
    assert set(attacks.statuses(port, attacks.bad_bodies(10_000, seed=3))) <= ANSWERS
    assert attacks.held()["memory_bytes"] < 1.05 * before
