"""A fault of the engine ends what runs with an error, and later requests are answered; it waits for no client."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing

import pytest
from serving import Server, begin, send, wait_until

from fewshot.base.errors import FewshotError, NotFinite
from fewshot.generate.request import Request
from fewshot.serve import worker as source
from fewshot.serve.completions import Call
from fewshot.serve.schema import CompletionRequest

ASK = {"prompt": "the cat", "max_tokens": 3, "seed": 1}


@pytest.mark.parametrize("fault", [NotFinite("log-probabilities are not finite"), ZeroDivisionError()])
def test_a_fault_is_an_error_of_that_request_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], fault: Exception
) -> None:
    before = send(server, "POST", "/v1/completions", ASK)
    engine = server.worker.engine

    def broken(*_: object) -> None:
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_choose", broken)
        status, answer = send(server, "POST", "/v1/completions", ASK)
        assert (status, answer["error"]["type"]) == (500, "server_error")
        assert ("not finite" in answer["error"]["message"]) == isinstance(fault, NotFinite)
    assert server.worker.n_open == 0
    assert engine.n_reserved_bytes == 0
    after = send(server, "POST", "/v1/completions", ASK)
    assert (after[0], after[1]["choices"]) == (before[0], before[1]["choices"])


def test_a_client_that_lags_behind_gets_what_waits_and_an_error(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MOST_WAITING", 5)
    worker, requests = server.worker, [Request(prompt=[1, 2], max_tokens=40, place=place) for place in range(3)]

    pieces: list[tuple[int, int]] = []

    async def read() -> None:
        async with aclosing(worker.complete(requests)) as completions:
            async for number, piece in completions:
                pieces.append((number, piece.n_written))
                if len(pieces) == 1:
                    while worker.n_open:  # the engine goes on until too much waits
                        await asyncio.sleep(0.01)

    with pytest.raises(FewshotError, match="has not read: 5 pieces"):
        asyncio.run(read())
    assert len(pieces) >= 5
    for number in range(3):  # and there is no gap in it
        lengths = [n_written for own, n_written in pieces if own == number]
        assert lengths == list(range(1, len(lengths) + 1))
    assert server.worker.engine.n_reserved_bytes == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_gone_when_it_ends_not_when_python_looks_for_cycles(server: Server, stream: bool) -> None:
    def calls() -> set[int]:
        return {id(thing) for thing in gc.get_objects() if type(thing) in (Call, CompletionRequest, source._Order)}

    gc.collect()
    gc.disable()
    before = calls()
    try:
        for max_tokens in (30, 1000):  # the second is refused
            fields = {**ASK, "stream": stream, "logprobs": 5, "max_tokens": max_tokens, "n": 2}
            with begin(server, fields) as connection:
                data = b""
                while not any(end in data for end in (b"[DONE]", b'"error"', b'"usage"')):
                    data += connection.recv(1 << 16)
        send(server, "GET", "/health")
        wait_until(lambda: calls() <= before)
    finally:
        gc.enable()
