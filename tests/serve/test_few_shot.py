"""The routes for in-context learning, with the evaluator and plain attention beside them."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace
from typing import Any

import pytest
from serving import N_CTX, Server, send, wait_until

from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.run import evaluate
from fewshot.evaluate.tasks.table import make_task
from fewshot.generate.complete import complete_requests
from fewshot.generate.request import Request
from fewshot.serve.curve import MOST_SHOTS

SHOTS = [0, 1, 2, 5]


def drawn(server: Server, task: str, n: int = 3, shots: int = 5) -> dict[str, Any]:
    status, answer = send(server, "POST", "/v1/fewshot/draw", {"task": task, "n_questions": n, "shots": shots})
    assert status == 200
    return answer


def asked(server: Server, task: str, **how: Any) -> dict[str, Any]:
    questions = drawn(server, task)
    body = {name: questions[name] for name in ("description", "delimiter", "questions")}
    return {**body, "shots": SHOTS, **how}


def curve(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    status, answer = send(server, "POST", "/v1/fewshot/curve", body)
    assert status == 200, answer
    return answer


@pytest.mark.parametrize("name", ["hidden_letter", "arithmetic_1d_composite"])
def test_a_curve_has_the_evaluators_scores(server: Server, name: str) -> None:
    answer = curve(server, asked(server, name))
    task = replace(make_task(name), kind="choose")  # the answer is scored where these tasks have it written
    lm = GPTLanguageModel(server.model)
    expected = evaluate(lm, server.tokenizer, task, shots=SHOTS, limit=3, seed=0)
    points = {(point["question"], point["shots"]): point for point in answer["points"]}
    n_compared = 0
    for at_k in expected:
        for number, own in enumerate(at_k.answers):
            point = points[number, at_k.shots]
            assert point["n_demonstrations"] == own.shots
            assert point["n_tokens"] == list(own.n_tokens)
            assert point["logprobs"] == pytest.approx(own.logprobs, abs=1e-4)
            assert point["choice"] == own.choice("token")
            assert sum(point["probabilities"]) == pytest.approx(1)
            n_compared += 1
    assert n_compared == 3 * len(SHOTS)
    for row in answer["accuracy"]:
        right = [point["right"] for point in answer["points"] if point["shots"] == row["shots"]]
        assert (row["accuracy"], row["n"]) == (sum(right) / 3, 3)


def test_every_number_of_a_curve_is_that_of_a_request_of_its_own_to_the_bit(server: Server) -> None:
    body = asked(server, "hidden_letter")
    answer = curve(server, body)
    for point in answer["points"]:
        question = body["questions"][point["question"]]
        shown = question["demonstrations"][: point["n_demonstrations"]]
        text = body["delimiter"].join([*([body["description"]] if body["description"] else []), *shown, ""])
        for choice, logprob in zip(question["choices"], point["logprobs"], strict=True):
            context = [server.tokenizer.start, *server.tokenizer.encode(text + question["context"])]
            whole = [server.tokenizer.start, *server.tokenizer.encode(text + question["context"] + choice)]
            assert whole[: len(context)] == context
            request = Request(prompt=whole, max_tokens=0, prompt_logprobs=True, n_unscored=len(context))
            (alone,) = complete_requests(server.model, server.tokenizer, [request])
            assert sum(score.logprob for score in alone.prompt_scores) == logprob


def test_a_stream_has_the_points_and_the_accuracy_of_the_whole_answer(server: Server) -> None:
    body = asked(server, "hidden_letter")
    whole = curve(server, body)
    data = json.dumps({**body, "stream": True}).encode()
    with urllib.request.urlopen(server.url + "/v1/fewshot/curve", data) as response:
        text = response.read().decode()
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert events.pop() == "[DONE]"
    *points, last = map(json.loads, events)
    assert sorted(map(json.dumps, points)) == sorted(map(json.dumps, whole["points"]))
    assert last == {"accuracy": whole["accuracy"]}


def test_shared_demonstrations_stand_before_every_question_that_brings_none(server: Server) -> None:
    questions = [{"context": "the", "choices": [" cat", " dog"], "answer": 1}]
    own = [{**questions[0], "demonstrations": ["the cat sat"]}]
    shared = curve(server, {"demonstrations": ["the cat sat"], "questions": questions, "shots": [1]})
    assert shared == curve(server, {"questions": own, "shots": [1]})
    assert shared != curve(server, {"questions": questions, "shots": [1]})
    assert curve(server, {"questions": [{"context": "the", "choices": [" cat"]}], "shots": [0]})["accuracy"] == []


def test_a_question_that_does_not_fit_is_told_and_the_others_are_answered(server: Server) -> None:
    long = {"context": "cat " * N_CTX, "choices": [" a", " b"], "answer": 0}
    short = {"context": "cat", "choices": [" a", " b"], "answer": 0}
    answer = curve(server, {"questions": [long, short], "shots": [0]})
    assert answer["points"][0] == {"question": 0, "shots": 0, "skipped": True}
    assert answer["accuracy"][0]["n"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"questions": [], "shots": [0]},
        {"questions": [{"context": "a", "choices": []}], "shots": [0]},
        {"questions": [{"context": "a", "choices": ["", " b"]}], "shots": [0]},
        {"questions": [{"context": "a", "choices": [" b"], "answer": 1}], "shots": [0]},
        {"questions": [{"choices": [" b"], "contexts": ["a", "b"]}], "shots": [0]},
        {"questions": [{"context": "a", "choices": [" b"], "contexts": ["a"]}], "shots": [0]},
        {"questions": [{"context": "a", "choices": [" b"]}], "shots": [-1]},
        {"questions": [{"context": "a", "choices": [" b"]}], "shots": [MOST_SHOTS + 1]},
        {"questions": [{"context": "a", "choices": [" b"]}], "shots": [0], "k": 1},
    ],
)
def test_a_curve_that_cannot_be_is_refused(server: Server, body: dict[str, Any]) -> None:
    status, answer = send(server, "POST", "/v1/fewshot/curve", body)
    assert status == 400
    assert answer["error"]["message"]


def test_a_curve_that_the_cache_cannot_hold_is_refused_and_hurts_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = asked(server, "hidden_letter")
    with monkeypatch.context() as patch:
        patch.setattr(server.worker.engine, "cache_bytes", 1000)
        status, answer = send(server, "POST", "/v1/fewshot/curve", body)
        assert status == 400
        assert "bytes of keys and values" in answer["error"]["message"]
        data = json.dumps({**body, "stream": True}).encode()
        text = urllib.request.urlopen(server.url + "/v1/fewshot/curve", data, timeout=20).read().decode()
        assert text.startswith('data: {"error"')
        assert "bytes of keys and values" in text
        assert "[DONE]" not in text
    assert len(curve(server, body)["points"]) == 3 * len(SHOTS)
    wait_until(lambda: server.worker.n_open == server.worker.room.n_open == 0)  # room is left just after the answer


def test_more_text_than_is_tokenised_in_seconds_is_refused(server: Server) -> None:
    question = {"context": "a", "choices": [f" {i}" for i in range(64)], "demonstrations": ["b" * 30_000] * 60}
    body = {"questions": [question], "shots": list(range(65))}
    status, answer = send(server, "POST", "/v1/fewshot/curve", body)
    assert status == 400
    assert "characters in all" in answer["error"]["message"]


def test_tasks_are_listed_and_drawn_by_seed_without_what_is_asked(server: Server) -> None:
    _, listed = send(server, "GET", "/v1/fewshot/tasks")
    assert {task["name"] for task in listed["tasks"]} == {"hidden_letter", "arithmetic_1d_composite"}
    answer = drawn(server, "hidden_letter")
    assert answer == drawn(server, "hidden_letter")
    assert [len(question["demonstrations"]) for question in answer["questions"]] == [5, 5, 5]
    other = {"task": "hidden_letter", "n_questions": 3, "shots": 5, "seed": 1}
    assert send(server, "POST", "/v1/fewshot/draw", other)[1] != answer
    assert send(server, "POST", "/v1/fewshot/draw", {"task": "none"})[0] == 400


def test_attention_is_that_of_the_last_position_and_no_other(server: Server) -> None:
    _, answer = send(server, "POST", "/v1/fewshot/attention", {"prompt": "the cat sat on the mat. the dog sat"})
    n = len(answer["token_ids"])
    text = server.tokenizer.encode("the cat sat on the mat. the dog sat")
    assert answer["token_ids"] == [server.tokenizer.start, *text]
    _, same = send(server, "POST", "/v1/fewshot/attention", {"prompt": [server.tokenizer.start, *text]})
    assert same == answer
    assert [layer["pattern"] for layer in answer["layers"]] == ["dense", "banded(16)"]
    for layer, window in zip(answer["layers"], (n, 16), strict=True):
        assert layer["allowed"] == [at > n - 1 - window for at in range(n)]
        for head in layer["weights"]:
            assert sum(head) == pytest.approx(1, abs=1e-5)
            assert all(weight == 0 for weight, allowed in zip(head, layer["allowed"], strict=True) if not allowed)
    assert send(server, "POST", "/v1/fewshot/attention", {"prompt": [1] * (N_CTX + 1)})[0] == 400
    assert send(server, "POST", "/v1/fewshot/attention", {"prompt": [10**6]})[0] == 400
