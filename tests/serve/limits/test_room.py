"""What all open calls may take together."""

from __future__ import annotations

import threading

import pytest
from serving import N_CTX, Server, begin, send, wait_until

from fewshot.serve.limits import room


def test_a_burst_between_two_steps_is_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on, engine = threading.Event(), server.worker.engine
    step = engine.step

    def slow_step() -> object:
        goes_on.wait(20)
        return step()

    body = {"prompt": "the cat", "max_tokens": N_CTX - 10, "n": 128, "stream": True}
    monkeypatch.setattr(engine, "step", slow_step)
    connections = [begin(server, body) for _ in range(5)]
    answers = [connection.recv(1 << 12).split(b"\r\n")[0] for connection in connections]
    goes_on.set()
    assert sorted(answers) == [b"HTTP/1.1 200 OK"] * 4 + [b"HTTP/1.1 429 Too Many Requests"]
    for connection in connections:
        connection.close()
    wait_until(lambda: server.worker.n_open == 0)
    assert send(server, "POST", "/v1/completions", {"prompt": "the", "n": 128, "max_tokens": 1})[0] == 200


def test_an_answer_that_may_be_too_large_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"prompt": [1, 2, 3], "max_tokens": 7, "n": 5, "logprobs": 4}
    monkeypatch.setattr(room, "MOST_VALUES", 5 * 7 * 6)
    assert send(server, "POST", "/v1/completions", body)[0] == 200
    for more in ({"n": 6}, {"logprobs": 5}, {"logprob_token_ids": [1]}, {"echo": True}):
        status, answer = send(server, "POST", "/v1/completions", {**body, **more})
        assert (status, "at most 210" in answer["error"]["message"]) == (400, True), more


def test_answers_that_are_too_large_together_wait_for_each_other(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"prompt": "the", "max_tokens": 1}
    large = {**small, "max_tokens": N_CTX - 10, "n": 100, "stream": True, "logit_bias": {str(server.tokenizer.eot): -1}}
    monkeypatch.setattr(room, "MOST_OPEN_VALUES", 100 * (N_CTX - 10) * 2 + 1)
    connection = begin(server, large)
    wait_until(lambda: server.worker.n_open > 0)
    assert send(server, "POST", "/v1/completions", small)[0] == 429
    connection.close()
    wait_until(lambda: send(server, "POST", "/v1/completions", small)[0] == 200)
