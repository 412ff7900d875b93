"""The playground in a real browser, against a real server."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from browser import EDITS, expect, pieces_of, sent, session, submit, text, write
from serving import N_CTX, Server

from fewshot.serve.completions import token_text
from fewshot.serve.playground import FILES, FOLDER


def headers_of(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return answer.headers


def test_every_file_of_the_page_is_sent_with_its_type_and_a_strict_policy(server: Server) -> None:
    assert sorted(path.name for path in FILES.values()) == sorted(path.name for path in FOLDER.iterdir())
    for route, path in FILES.items():
        headers = headers_of(server.url + route)
        kind = {".html": "html", ".css": "css", ".js": "javascript", ".svg": "svg"}[path.suffix]
        assert kind in headers["Content-Type"]
        assert headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-cache"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
    for path in FILES.values():
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400
        assert "innerHTML" not in text
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "") or path.suffix == ".js"


def status_of(server: Server, path: str, **headers: str) -> int:
    request = urllib.request.Request(server.url + path, headers=headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def test_with_keys_only_the_page_itself_is_open(serving: Callable[..., Server]) -> None:
    server = serving(keys=["secret"])
    for path in FILES:
        assert status_of(server, path) == 200
        assert status_of(server, path, Host="evil.example") == 403
    for path in (
        "/static/",
        "/static",
        "/static/playground.py",
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/v1/models",
    ):
        assert status_of(server, path) == 401, path
        assert path == "/v1/models" or status_of(server, path, Authorization="Bearer secret") == 404, path


# --- in the browser


def test_a_completion_streams_into_the_text_and_is_highlighted(page: Any, server: Server) -> None:
    write(page, "the cat", max_tokens=9, seed=5)
    pieces = submit(page)
    assert pieces[0] == {"text": "the cat"}
    answer = server.client.completions.create(
        model="tiny", prompt="the cat", max_tokens=9, seed=5, extra_body={"return_token_ids": True}
    )
    assert [piece["id"] for piece in pieces[1:]] == answer.choices[0].token_ids
    assert text(page) == "the cat" + answer.choices[0].text
    expect(page, "#layer .written").to_have_count(9)
    expect(page, "#layer").to_have_text(text(page) + "\u200b")
    expect(page, "#status").to_contain_text("9 tokens written, ended at its length; seed 5")
    expect(page, "#live").to_contain_text("9 tokens written")
    expect(page, "#count").to_have_text(f"{len(server.tokenizer.encode('the cat')) + 9} of {N_CTX} tokens")


def test_stop_keeps_what_has_come_and_ends_the_request(page: Any, server: Server, monkeypatch: Any) -> None:
    step = server.worker.engine.step

    def slow_step() -> Any:
        time.sleep(0.04)
        return step()

    monkeypatch.setattr(server.worker.engine, "step", slow_step)
    write(page, "the", max_tokens=55)
    page.click("#submit")
    expect(page, "#layer .written >> nth=2").to_be_attached()
    page.click("#stop")
    expect(page, "#status").to_contain_text("stopped")
    n = page.locator("#layer .written").count()
    assert 3 <= n < 50
    assert len(text(page)) > 3
    deadline = time.monotonic() + 10
    while server.worker.n_open and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.worker.n_open == 0
    assert sum("id" in piece for piece in pieces_of(session(page)["tree"])) == n


def test_predictions_and_edits_are_undone_and_redone_by_buttons_and_keys(page: Any) -> None:
    write(page, "the dog", max_tokens=5)
    submit(page)
    with_completion = text(page)
    page.locator("#text").press("End")
    page.locator("#text").press("Control+End")
    page.keyboard.type(" and")
    assert text(page) == with_completion + " and"
    page.click("#undo")
    assert text(page) == with_completion
    page.locator("#text").press("Control+z")
    assert text(page) == "the dog"
    page.locator("#text").press("Control+Shift+z")
    page.click("#redo")
    assert text(page) == with_completion + " and"
    expect(page, "#redo").to_be_disabled()
    expect(page, "#layer .written").to_have_count(5)


def test_regenerate_writes_another_branch_of_the_same_prompt(page: Any) -> None:
    write(page, "the mat", max_tokens=12, seed=3)
    first = submit(page)
    second = submit(page, "#regenerate")
    assert first[0] == second[0] == {"text": "the mat"}
    assert [piece["id"] for piece in first[1:]] != [piece["id"] for piece in second[1:]]
    expect(page, ".branch.complete").to_have_count(2)


def test_an_alternative_goes_on_by_token_ids_though_it_is_half_a_character(page: Any) -> None:
    write(page, "the cat", max_tokens=12, seed=1)
    pieces = submit(page)
    halves = [[top for top in piece.get("top", []) if top[0].startswith("bytes:")] for piece in pieces]
    place = next(i for i, tops in enumerate(halves) if i > 3 and len(tops) > 1)
    half = next(top for top in halves[place] if top[1] != pieces[place]["id"])
    bodies = sent(page)
    spans = page.locator("#layer span")
    spans.nth(place).hover(force=True)
    expect(page, "#alternatives").to_contain_text("covered in the top 10")
    row = page.locator("#alternatives tr").nth(pieces[place]["top"].index(half))
    assert row.locator("button").inner_text() == half[0].removeprefix("bytes:")
    row.locator("button").click()
    expect(page, ".branch.alternative").to_have_count(1)
    expect(page, "#submit").to_be_enabled()
    prompt = bodies[0]["prompt"]
    written = [piece["id"] for piece in pieces[1:place]]
    assert prompt[-len(written) - 1 :] == [*written, half[1]]
    after = [piece["id"] for piece in pieces_of(session(page)["tree"]) if "id" in piece]
    submit(page)
    assert bodies[1]["prompt"] == [*prompt[: len(prompt) - len(written) - 1], *after]


def test_several_at_once_are_branches_that_one_can_go_back_to(page: Any) -> None:
    write(page, "the log", max_tokens=4, n=3, seed=2)
    submit(page)
    branches = page.locator(".branch.complete")
    expect(page, ".branch.complete").to_have_count(3)
    texts = []
    for i in range(3):
        branches.nth(i).click()
        expect(page, f".branch.complete >> nth={i}").to_have_attribute("aria-current", "true")
        texts.append(text(page))
    assert len(set(texts)) == 3
    page.click(".branch.edit")
    assert text(page) == "the log"
    write(page, "the log", n=1, best_of=4)
    submit(page)
    expect(page, ".branch.complete").to_have_count(4)


def test_an_edit_leaves_the_tokens_before_it_alone(page: Any, server: Server) -> None:
    random = Random(0)
    lists = []
    for _ in range(150):
        ids = [random.randrange(server.tokenizer.n_vocab) for _ in range(12)]
        tokens = [{"id": i, "t": token_text(server.tokenizer, i), "by": "model", "lp": -1.0, "top": []} for i in ids]
        lists.append([{"text": "the 😀 cat"}, *tokens[:6], {"text": " and"}, *tokens[6:]])
    assert page.evaluate(EDITS, [lists, 7]) == []


def test_start_and_restart_text_are_put_around_what_is_written(page: Any) -> None:
    bodies = sent(page)
    write(page, "the", max_tokens=3, start_text="\\nA:", restart_text="\\nQ: ", stop="zzz\\n")
    submit(page)
    assert bodies[0]["prompt"] == "the\nA:"
    assert bodies[0]["stop"] == ["zzz\n"]
    assert text(page).startswith("the\nA:")
    assert text(page).endswith("\nQ: ")


def test_the_prompt_is_coloured_on_request_by_the_models_own_probabilities(page: Any, server: Server) -> None:
    write(page, "the cat sat on the mat")
    page.click("#score")
    tokens = server.tokenizer.encode("the cat sat on the mat")
    expect(page, "#layer .p-full").to_have_count(len(tokens) - 1)
    answer = server.client.completions.create(model="tiny", prompt=tokens, max_tokens=0, echo=True, logprobs=1)
    values = answer.choices[0].logprobs.token_logprobs[1:]
    shown = page.evaluate("[...document.querySelectorAll('#layer .p-full')].map(s => +s.style.getPropertyValue('--p'))")
    assert shown == pytest.approx([2.718281828**value for value in values], abs=6e-4)
    page.locator("#layer span").nth(2).hover(force=True)
    page.locator("#alternatives button").nth(1).click()
    expect(page, ".branch.alternative").to_have_count(1)
    expect(page, "#submit").to_be_enabled()
    assert text(page).startswith(server.tokenizer.decode(tokens[:2]))


def test_sessions_survive_a_reload_and_come_back_from_a_file(page: Any, tmp_path: Path) -> None:
    write(page, "the first", max_tokens=4)
    submit(page)
    page.fill("#session-name", "One")
    page.locator("#session-name").blur()
    first = text(page)
    page.click("#session-new")
    write(page, "another", temperature=0.3)
    with page.expect_download() as download:
        page.click("#session-export")
    download.value.save_as(tmp_path / "session.json")
    page.reload()
    assert text(page) == "another"
    assert page.input_value("#set-temperature") == "0.3"
    page.select_option("#session", label="One")
    assert text(page) == first
    expect(page, "#layer .written").to_have_count(4)
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#session-delete")
    expect(page, "#session option").to_have_count(1)
    page.set_input_files("#session-file", tmp_path / "session.json")
    expect(page, "#session option").to_have_count(2)
    assert text(page) == "another"
    (tmp_path / "bad.json").write_text('{"format": "fewshot session 1", "tree": {"nodes": [{"id": 0, "parent": 7}]}}')
    page.evaluate("localStorage['fewshot.session.zzz'] = '{broken'")
    page.set_input_files("#session-file", tmp_path / "bad.json")
    expect(page, "#error").to_contain_text("no session of the playground")
    expect(page, "#session option").to_have_count(2)


def test_the_code_that_is_shown_runs(page: Any, server: Server) -> None:
    prompt = 'it\'s "the" $HOME `cat` \\n é 😀\n'
    write(page, prompt, max_tokens=6, seed=4, top_k=7)
    page.click("#view-code")
    expected = server.client.completions.create(
        model="tiny", prompt=prompt, max_tokens=6, seed=4, extra_body={"top_k": 7}
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(page.inner_text("#code-python"), {})
    assert printed.getvalue() == expected.choices[0].text
    page.locator("#code button[aria-label='Copy curl']").click()
    expect(page, "#code button[aria-label='Copy curl']").to_have_text("Copied")
    command = page.evaluate("navigator.clipboard.readText()")
    if shutil.which("curl"):
        answer = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=True).stdout
        chunks = [json.loads(line[6:]) for line in answer.splitlines() if line.startswith("data: {")]
        assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == expected.choices[0].text
    page.keyboard.press("Escape")
    expect(page, "#code").to_be_hidden()


def test_errors_of_the_server_are_told_in_plain_text(page: Any) -> None:
    write(page, "the cat", max_tokens=63)
    page.click("#submit")
    expect(page, "#error").to_contain_text("together they must not exceed the model's context")
    assert text(page) == "the cat"
    expect(page, ".branch.complete").to_have_count(0)
    write(page, "the cat", max_tokens=3, seed="seven")
    page.click("#submit")
    expect(page, "#error").to_contain_text("The seed is seven, must be a whole number")
    assert page.problems == ["Failed to load resource: the server responded with a status of 400 (Bad Request)"]
    page.problems.clear()


def test_the_key_is_asked_for_and_kept_for_the_tab_alone(only_page: Any, serving: Callable[..., Server]) -> None:
    server = serving(keys=["secret"])
    page = only_page
    page.goto(server.url)
    expect(page, "#error").to_contain_text("asks for a key")
    expect(page, "#key").to_be_focused()
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page, "#error").to_contain_text("does not take this key")
    page.keyboard.type("secret")
    page.keyboard.press("Enter")
    expect(page, "#model").to_contain_text("tiny")
    write(page, "the", max_tokens=3)
    submit(page)
    kept = page.evaluate("[JSON.stringify({...sessionStorage}), JSON.stringify({...localStorage}), location.href]")
    assert ["secret" in part for part in kept] == [True, False, False]
    page.click("#view-code")
    assert "secret" not in page.inner_text("#code")
    page.problems.clear()  # the refusals
