"""The page with a model in it, in Chromium: from a file, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from models import exported, shaken

from fewshot.base.errors import BadValue, ExportDiffers
from fewshot.checkpoint.formats.page import FILE, check_is_page, write_page
from fewshot.checkpoint.runtimes.chromium import check_in_chromium
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import Chars
from fewshot.tokenizer.vocab import Tokenizer

CHROMIUM = Path("/usr/bin/chromium")
SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 32, "n_heads": 4, "n_ctx": 44}
BPE = train_bpe(["the cat sat on the mat, and the dog on the log. It's 1234 " * 30], n_vocab=300)
KINDS: list[tuple[Tokenizer, dict[str, Any]]] = [
    (BPE, {}),
    (Bytes(), {"pattern": "alternate(dense, banded(8))", "activation": "gelu", "d_qk": 4}),
    (Chars("abcdefghij->\n "), {"pattern": "strided(4)", "block": "sparse-transformer", "tied": False}),
    (BPE, {"pattern": "fixed(8, 2)", "positions": "rows(5)", "activation": "relu"}),
    (BPE, {"pattern": "perhead(dense, strided(4), fixed(8, 2), banded(3))", "block": "post-ln", "d_head": 12}),
]


def model_for(tokenizer: Tokenizer, **changed: Any) -> GPT:
    return shaken(**{"n_vocab": tokenizer.n_vocab} | SHAPE | changed)


@pytest.fixture
def browser() -> None:
    if not CHROMIUM.exists():
        pytest.skip(f"there is no browser at {CHROMIUM}: apt-get install chromium")


@pytest.mark.parametrize(("tokenizer", "changed"), KINDS, ids=[str(changed) for _, changed in KINDS])
def test_the_page_computes_the_same(
    browser: None, tmp_path: Path, tokenizer: Tokenizer, changed: dict[str, Any]
) -> None:
    model = model_for(tokenizer, **changed)
    checked = exported(tmp_path / "out", model, tokenizer, written_as="page")
    assert checked.by.startswith("Chromium")
    assert {1, 2, 22, 44} <= {*checked.lengths}
    assert checked.greedy_tokens == 40
    assert checked.texts == (3 if isinstance(tokenizer, Chars) else 10)
    assert 0 < checked.largest_difference < 2e-5 * checked.largest_logit


def test_another_model_is_noticed(browser: None, tmp_path: Path) -> None:
    write_page(tmp_path, model_for(BPE, pattern="banded(8)"), BPE)
    with pytest.raises(ExportDiffers, match="Chromium"):
        check_in_chromium(tmp_path, model_for(BPE, pattern="banded(9)"), BPE)


@pytest.fixture
def page(browser: None, tmp_path: Path) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    write_page(tmp_path, model_for(Bytes(), n_ctx=128, pattern="alternate(dense, banded(8))"), Bytes())
    with sync_playwright() as playwright:
        window = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        tab = window.new_context(offline=True).new_page()
        problems: list[str] = []
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        tab.goto((tmp_path / FILE).as_uri())
        yield tab
        assert not problems
        window.close()


def test_a_person_writes_on_beyond_the_context_and_stops(page: Any) -> None:
    page.fill("#prompt", "<b>a cat</b> & \u00e9")
    page.fill("#count", "200")
    page.click("text=Write")
    page.wait_for_function("() => document.querySelector('#written b')?.textContent.length > 130")
    assert page.inner_text("#written").startswith("<b>a cat</b> & \u00e9")
    page.click("text=Stop")
    page.wait_for_function("() => document.querySelector('#stop').disabled")
    assert page.inner_text("#problem") == ""


def test_the_curve_is_the_model_s(page: Any) -> None:
    page.fill("#demonstrations", "a -> b\nc -> d\n\ne -> f")
    page.fill("#question", "g ->")
    page.fill("#answer", " h")
    page.click("text=Draw")
    page.wait_for_function("() => document.querySelectorAll('#curve circle').length === 4")
    model, tokenizer = model_for(Bytes(), n_ctx=128, pattern="alternate(dense, banded(8))"), Bytes()
    lines, expected = ["a -> b", "c -> d", "e -> f"], []
    for k in range(4):
        asked = [tokenizer.eot, *tokenizer.encode("\n".join([*lines[:k], "g ->"]))]
        wanted = tokenizer.encode(" h")
        with torch.no_grad():
            logprobs = model(torch.tensor([asked + wanted])).log_softmax(-1)[0, len(asked) - 1 : -1]
        expected.append(logprobs.gather(1, torch.tensor(wanted)[:, None]).sum().exp().item())
    said = page.get_attribute("#curve", "aria-label").split(": ")[1].split(", ")
    assert [float(number) for number in said] == pytest.approx(expected, abs=1e-3)
    page.fill("#demonstrations", "long -> longer\n" * 20)
    page.click("text=Draw")
    page.wait_for_function("() => document.querySelector('#problem').textContent.includes('context holds 128')")


def test_a_model_too_large_for_a_page_is_refused() -> None:
    with pytest.raises(BadValue, match="a page holds up to 67,108,864 parameters, this model has"):
        check_is_page(GPTConfig(n_layers=12, d_model=768, n_heads=12))
