"""What an exported page computes in Chromium, from a file and without a network, beside the model that was exported."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.checkpoint.runtimes.compare import Checked, NotChecked, compare_greedy, compare_ids, compare_logits
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

AT_ONCE = 2**21  # logits that are passed on
NAMES = ("chromium", "chromium-browser", "google-chrome")


def check_in_chromium(folder: Path, model: GPT, tokenizer: Tokenizer) -> Checked:
    """Compare logits, greedy text and ids; raises ExportDiffers, ModuleNotFoundError without playwright or Chromium."""
    from playwright.sync_api import Error

    try:
        return _check(folder, model, tokenizer)
    except Error as error:
        raise NotChecked(f"Chromium: {' '.join(str(error).split())[:200]}") from None


def _check(folder: Path, model: GPT, tokenizer: Tokenizer) -> Checked:
    from playwright.sync_api import sync_playwright

    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise ModuleNotFoundError("Chromium", name="chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page: Any = browser.new_context(offline=True).new_page()
        page.goto((folder / "index.html").resolve().as_uri())
        page.wait_for_function("() => window.fewshot !== undefined")
        by = f"Chromium {browser.version}"

        def logits(tokens: Tensor) -> Tensor:
            return torch.tensor([row_logits(row) for row in tokens.tolist()])

        def row_logits(row: list[int]) -> list[list[float]]:
            page.evaluate("() => fewshot.begin()")
            size = max(1, AT_ONCE // model.config.n_vocab)
            parts = (row[first : first + size] for first in range(0, len(row), size))
            return [logits for part in parts for logits in page.evaluate("ids => fewshot.read(ids)", part)]

        def greedy(prompt: list[int], count: int) -> list[int]:
            written: list[int] = page.evaluate("([ids, n]) => fewshot.greedy(ids, n)", [prompt, count])
            return written

        lengths, largest, worst = compare_logits(model, logits, n_tokens=tokenizer.n_vocab, by=by)
        checked = Checked(
            by=by,
            lengths=lengths,
            largest_logit=largest,
            largest_difference=worst,
            greedy_tokens=compare_greedy(model, greedy, n_tokens=tokenizer.n_vocab, by=by),
            texts=compare_ids(tokenizer, lambda text: page.evaluate("text => fewshot.encode(text)", text), by=by),
        )
        browser.close()
        return checked
