"""A browser for the tests of the playground, and few-shot routes that answer by rule."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

CHROMIUM = Path("/usr/bin/chromium")
ENDED = "tokens written"
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

    def told(message: Any) -> None:  # Chromium itself asks for an icon where what is opened is no page: /health
        if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
            problems.append(message.text)

    def requested(request: Any) -> None:
        if urlparse(request.url).hostname not in ("127.0.0.1", None):
            problems.append(f"left the machine: {request.url}")

    page.on("console", told)
    page.on("request", requested)
    return problems


def session(page: Any) -> dict[str, Any]:
    """The session that is open, as the page keeps it."""
    page.evaluate("dispatchEvent(new Event('pagehide'))")  # it is kept at once
    text = page.evaluate("localStorage['fewshot.session.' + localStorage['fewshot.current']]")
    return json.loads(text)


def pieces_of(tree: dict[str, Any], number: int | None = None) -> list[dict[str, Any]]:
    """What a node of a session's tree reads; the present one if none is named."""
    nodes = {node["id"]: node for node in tree["nodes"]}
    node = nodes[tree["history"][tree["at"]] if number is None else number]
    before = [] if node["parent"] is None else pieces_of(tree, node["parent"])[: node["keep"]]
    return before + node["add"]


def expect(page: Any, selector: str) -> Any:
    """Playwright's expectations of what a selector gives."""
    from playwright.sync_api import expect

    return expect(page.locator(selector))


def write(page: Any, text: str, **settings: Any) -> None:
    """Put a text into the editor, and set controls."""
    page.fill("#text", text)
    for name, value in settings.items():
        page.fill(f"#set-{name}", str(value))


def submit(page: Any, button: str = "#submit") -> list[dict[str, Any]]:
    """Press a button that writes; return the pieces when it has ended."""
    page.click(button)
    expect(page, "#status").to_contain_text(ENDED)
    return pieces_of(session(page)["tree"])


def text(page: Any) -> str:
    """The text of the editor."""
    return page.input_value("#text")


def sent(page: Any) -> list[dict[str, Any]]:
    """The completion requests of a page, as they are sent."""
    bodies: list[dict[str, Any]] = []
    page.on(
        "request",
        lambda request: bodies.append(request.post_data_json) if request.url.endswith("/v1/completions") else None,
    )
    return bodies


# Edits at random: faults of `edited` in text.js, for lists of pieces.
EDITS = """async ([lists, seed]) => {
  const {edited, layOut, textOf} = await import("/static/text.js");
  const area = document.createElement("textarea");
  const random = () => (seed = (seed * 48271) % 2147483647) / 2147483647;
  const faults = [];
  for (const pieces of lists) {
    const old = textOf(pieces);
    area.value = old;
    if (area.value !== old) faults.push(["a text area reads otherwise", old]);
    const from = Math.floor(random() * (old.length + 1));
    const to = from + Math.floor(random() * (old.length + 1 - from));
    const typed = ["", "x", "日", "\\n"][Math.floor(random() * 4)];
    const text = old.slice(0, from) + typed + old.slice(to);
    const after = edited(pieces, text, from + typed.length);
    const read = textOf(after);
    if (read !== text && !/[\ud800-\udfff\ufffd]/.test(text)) faults.push(["reads otherwise", text, read]);
    const spans = layOut(pieces);
    const parted = spans.find((span) => span.end > from)?.group;
    const whole = spans.filter((span) => span.end <= from && span.group !== parted && span.piece.id !== undefined);
    for (const {piece} of whole) if (!after.includes(piece)) faults.push(["lost", piece.t, text]);
    const last = spans.filter((span) => span.start >= to && span.piece.id !== undefined).length;
    if (after.filter((piece) => piece.lp !== undefined).length > spans.length - last) faults.push(["stale", text]);
  }
  return faults;
}"""


# What axe-core does not see: the contrast of the letters of the text area to the colours of the layer below it, an
# id that is given twice, and a page wider than the window.
FAULTS = """() => {
  const faults = [];
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  for (const id of new Set(ids)) if (ids.filter((other) => other === id).length > 1) faults.push(`twice: #${id}`);
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const light = (...colors) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const color of colors) {
      canvas.fillStyle = color;
      canvas.fillRect(0, 0, 1, 1);
    }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((c) => c / 255)
      .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
      .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  };
  const color = (element, name) => getComputedStyle(element)[name];
  const below = color(document.getElementById("editor"), "backgroundColor");
  const ink = light(color(document.getElementById("text"), "color"));
  for (const token of document.querySelectorAll("#layer span")) {
    const [a, b] = [ink, light(below, color(token, "backgroundColor"))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) faults.push(`contrast ${ratio.toFixed(2)}: ${token.outerHTML.slice(0, 90)}`);
  }
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide > 0) faults.push(`wider than the window by ${wide}`);
  return faults;
}"""


def faults(page: Any) -> list[str]:
    """What a reader of the page may stumble over: what axe-core finds, and what it does not see."""
    reason = "axe-core is not installed: pip install 'fewshot[test]'"
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason=reason)
    rules = axe.Axe().run(page).response["violations"]
    return page.evaluate(FAULTS) + [f"{rule['id']}: {node['html'][:90]}" for rule in rules for node in rule["nodes"]]


# --- few-shot routes by rule: the label that is right is made likelier by every demonstration


def drawn(body: dict[str, Any]) -> dict[str, Any]:
    questions = []
    for number in range(body["n_questions"]):
        answer = (number + body["seed"]) % len(CHOICES)
        demonstrations = [f"word {number} {i} means{CHOICES[(number + i) % 3]}" for i in range(body["shots"])]
        context = f"word {number} means"
        questions.append({"demonstrations": demonstrations, "context": context, "choices": CHOICES, "answer": answer})
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
    yield {
        "accuracy": [{"shots": k, "accuracy": sum(list_) / len(list_), "n": len(list_)} for k, list_ in right.items()]
    }


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
