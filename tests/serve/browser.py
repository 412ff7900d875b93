"""A browser for the tests of the playground, and few-shot routes that answer by rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

CHROMIUM = Path("/usr/bin/chromium")
CHOICES = [" mi", " ka", " to"]


@contextmanager
def opened_browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def watch(page: Any) -> list[str]:
    """What goes wrong on a page as it happens: errors of scripts, refusals of the policy, requests that leave."""
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(f"error: {error}"))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)

    def requested(request: Any) -> None:
        if urlparse(request.url).hostname not in ("127.0.0.1", None):
            problems.append(f"left the machine: {request.url}")

    page.on("request", requested)
    return problems


# --- few-shot routes by rule: the label that is right is made likelier by every demonstration


def drawn(body: dict[str, Any]) -> dict[str, Any]:
    questions = []
    for number in range(body["n_questions"]):
        answer = (number + body["seed"]) % len(CHOICES)
        demonstrations = [f"word {number} {i} means{CHOICES[(number + i) % 3]}" for i in range(body["shots"])]
        context = f"word {number} means"
        questions.append(
            {"demonstrations": demonstrations, "context": context, "choices": CHOICES, "answer": answer}
        )
    head = {"task": body["task"], "description": "Words and their meanings.", "delimiter": "\n", "chance": 1 / 3}
    return {**head, "questions": questions}


def curve_events(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    right: dict[int, list[bool]] = {}
    for number, question in enumerate(body["questions"]):
        for shots in body["shots"]:
            if shots == 16:
                yield {"question": number, "shots": shots, "skipped": True}
                continue
            different = len(set(question["demonstrations"][:shots]))
            answer = question["answer"] or 0
            weights = [math.exp(0.2 * different * (i == answer) + 0.5 * (i == number % 3)) for i in range(3)]
            probabilities = [weight / sum(weights) for weight in weights]
            choice = probabilities.index(max(probabilities))
            right.setdefault(shots, []).append(choice == answer)
            yield {
                "question": number, "shots": shots, "logprobs": [math.log(p) for p in probabilities],
                "n_tokens": [1, 1, 1], "probabilities": probabilities, "choice": choice, "right": choice == answer,
            }  # fmt: skip
    yield {"accuracy": [{"shots": k, "accuracy": sum(list_) / len(list_), "n": len(list_)} for k, list_ in right.items()]}


def attention(body: dict[str, Any]) -> dict[str, Any]:
    tokens = ["<|endoftext|>", *body["prompt"].replace(" ", "\0 ").split("\0")]
    n = len(tokens)
    near = [at >= n - 5 for at in range(n)]
    wide = [[(1 + at % 4) / sum(1 + i % 4 for i in range(n)) for at in range(n)] for _ in range(2)]
    narrow = [[near[at] / 5 for at in range(n)] for _ in range(2)]
    return {
        "tokens": tokens, "token_ids": list(range(n)),
        "layers": [
            {"pattern": "dense", "weights": wide, "allowed": [True] * n},
            {"pattern": "banded(5)", "weights": narrow, "allowed": near},
        ],
    }  # fmt: skip


def answer_fewshot(page: Any) -> list[tuple[str, dict[str, Any]]]:
    """Answer the few-shot routes of a page by rule; return the list of what was asked, as it grows."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def answer(route: Any) -> None:
        name = urlparse(route.request.url).path.rsplit("/", 1)[1]
        body = json.loads(route.request.post_data or "{}")
        asked.append((name, body))
        if name == "tasks":
            task = {"name": "novel_symbols", "chance": 1 / 3, "description": "", "delimiter": "\n"}
            route.fulfill(json={"tasks": [task]})
        elif name == "curve":
            events = "".join(f"data: {json.dumps(event)}\n\n" for event in curve_events(body))
            route.fulfill(body=events + "data: [DONE]\n\n", content_type="text/event-stream")
        else:
            route.fulfill(json={"draw": drawn, "attention": attention}[name](body))

    page.route("**/v1/fewshot/*", answer)
    return asked
