"""Clients that go away, scoring by lm_eval, and the small routes."""

from __future__ import annotations

import pytest
from serving import N_CTX, Server, begin, send, wait_until

from fewshot.base.errors import BadValue
from fewshot.generate.complete import complete_requests
from fewshot.generate.request import Request
from fewshot.serve.limits.room import MOST_OPEN


def test_text_becomes_tokens_and_text_again(server: Server) -> None:
    for text in ("the cat", "", "é 日本 \U0001f600\n"):
        status, answer = send(server, "POST", "/tokenize", {"prompt": text, "add_special_tokens": False})
        assert (status, answer["tokens"]) == (200, server.tokenizer.encode(text))
        assert answer["max_model_len"] == N_CTX
        assert send(server, "POST", "/detokenize", {"tokens": answer["tokens"]}) == (200, {"prompt": text})
    assert send(server, "POST", "/detokenize", {"tokens": [300]})[0] == 400
    assert send(server, "GET", "/tokenizer_info")[1]["eos_token"] == "<|endoftext|>"


def test_echo_over_http_has_the_engines_own_bits(server: Server) -> None:
    tokens = server.tokenizer.encode("the dog sat on the log. 日本")
    body = {"prompt": tokens, "max_tokens": 0, "echo": True, "logprobs": 1}
    _, answer = send(server, "POST", "/v1/completions", body)
    request = Request(prompt=tokens, max_tokens=0, prompt_logprobs=True)
    (done,) = complete_requests(server.model, server.tokenizer, [request])
    assert answer["choices"][0]["logprobs"]["token_logprobs"][1:] == [score.logprob for score in done.prompt_scores]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_leaves_nothing_running(server: Server, stream: bool) -> None:
    bias = {str(server.tokenizer.eot): -100}
    body = {"prompt": "the cat", "max_tokens": N_CTX - 10, "n": 100, "stream": stream, "logit_bias": bias}
    connections = [begin(server, body) for _ in range(3)]
    wait_until(lambda: server.worker.n_open >= 200)
    for connection in connections:
        connection.close()
    wait_until(lambda: server.worker.n_open == 0)
    wait_until(lambda: not server.worker.engine.busy)
    assert server.worker.engine.n_reserved_bytes == 0
    assert send(server, "POST", "/v1/completions", {"prompt": "the", "max_tokens": 1})[0] == 200


def test_a_full_queue_refuses_and_recovers(server: Server) -> None:
    bias = {str(server.tokenizer.eot): -100}
    body = {"prompt": "the cat", "max_tokens": N_CTX - 10, "n": 128, "stream": True, "logit_bias": bias}
    connections = [begin(server, body) for _ in range(5)]
    wait_until(lambda: server.worker.n_open + 128 > MOST_OPEN)
    status, answer = send(server, "POST", "/v1/completions", {**body, "stream": False})
    assert (status, answer["error"]["type"]) == (429, "rate_limit_exceeded")
    for connection in connections:
        connection.close()
    wait_until(lambda: server.worker.n_open == 0)


def test_lm_eval_scores_over_http_without_a_tokenizer_of_its_own(server: Server) -> None:
    pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'fewshot[harness]'")
    from lm_eval.api.instance import Instance
    from lm_eval.models.openai_completions import LocalCompletionsAPI

    from fewshot.evaluate.models.gpt import GPTLanguageModel
    from fewshot.evaluate.scoring.logprobs import Span, score

    pairs = [("the cat", " sat on the mat"), ("the dog sat", " on the log"), ("é", " 日本"), ("", "the cat")]
    model = LocalCompletionsAPI(
        model="tiny", base_url=f"{server.url}/v1/completions", tokenizer_backend="remote", max_length=N_CTX
    )
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    answers = model.loglikelihood(requests)
    tokenizer = server.tokenizer
    befores = [tokenizer.encode(before) or [tokenizer.start] for before, _ in pairs]
    spans = [
        Span((*before, *tokenizer.encode("".join(pair))[len(before) if pair[0] else 0 :]), len(before))
        for before, pair in zip(befores, pairs, strict=True)
    ]
    expected = score(GPTLanguageModel(server.model), spans, batch_size=4)
    for (logprob, greedy), own in zip(answers, expected, strict=True):
        assert logprob == pytest.approx(own.logprob, abs=1e-4)
        assert greedy == own.greedy
    rolling = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, ("the cat",), 0)])
    assert rolling == [pytest.approx(expected[-1].logprob, abs=1e-4)]


def test_text_that_the_tokenizer_does_not_know_is_an_error_of_that_field(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(text: str) -> list[int]:
        raise BadValue(f"{text!r} has a character that is not in the vocabulary")

    question = {"context": "a", "choices": [" b"]}
    monkeypatch.setattr(type(server.tokenizer), "encode", lambda _, text: encode(text))
    for path, body in (
        ("/tokenize", {"prompt": "aZ"}),
        ("/v1/completions", {"prompt": "aZ"}),
        ("/v1/fewshot/attention", {"prompt": "aZ"}),
        ("/v1/fewshot/curve", {"questions": [question], "shots": [0]}),
    ):
        status, answer = send(server, "POST", path, body)
        assert (status, answer["error"]["type"]) == (400, "invalid_request_error"), path
        assert "is not in the vocabulary" in answer["error"]["message"]
