"""A fault of the engine ends what runs with an error, and later requests are answered."""

from __future__ import annotations

import pytest
from serving import Server
from test_protect import send

from fewshot.base.errors import NotFinite

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
