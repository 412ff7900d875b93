"""What is compared, and what a comparison can tell."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from fewshot.base.errors import ExportDiffers
from fewshot.checkpoint.runtimes.compare import (
    compare_cached,
    compare_greedy,
    compare_ids,
    compare_logits,
    largest_difference,
    lengths_to_check,
    texts_for,
)
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import Chars

SHAPE = {"n_layers": 2, "d_model": 12, "n_heads": 3, "n_vocab": 30}
ABOUT = {"n_tokens": 30, "by": "theirs"}


@pytest.fixture
def model() -> GPT:
    return GPT(GPTConfig(**SHAPE, n_ctx=20, pattern="alternate(dense, banded(4))"), seed=2).eval()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("dense", [1, 2, 10, 20]),
        ("alternate(dense, banded(4))", [1, 2, 3, 4, 5, 8, 10, 20]),
        ("banded(15)", [1, 2, 10, 14, 15, 16, 20]),
    ],
)
def test_lengths_are_below_at_and_beyond_a_window(pattern: str, expected: list[int]) -> None:
    assert lengths_to_check(GPTConfig(**SHAPE, n_ctx=20, pattern=pattern)) == expected


@torch.no_grad()
def test_the_model_is_equal_to_itself(model: GPT) -> None:
    lengths, largest, worst = compare_logits(model, model, **ABOUT)
    assert (lengths, worst) == ([1, 2, 3, 4, 5, 8, 10, 20], 0)
    assert largest > 0
    assert compare_cached(model, lambda chunks: model(torch.cat(list(chunks), dim=1)), **ABOUT) == 0

    def greedy(prompt: list[int], count: int) -> list[int]:
        written = torch.tensor([prompt])
        for _ in range(count):
            written = torch.cat([written, model(written)[:, -1:].argmax(-1)], dim=1)
        return written[0, len(prompt) :].tolist()

    assert compare_greedy(model, greedy, **ABOUT) == 16
    with pytest.raises(ExportDiffers, match="token 16 after a prompt is"):
        compare_greedy(model, lambda prompt, count: [*greedy(prompt, count - 1), -1 % 30], **ABOUT)
    with pytest.raises(ExportDiffers, match="writes 15 tokens where 16"):
        compare_greedy(model, lambda prompt, count: greedy(prompt, count - 1), **ABOUT)


@torch.no_grad()
def test_one_wrong_logit_at_one_length_is_told_with_its_place(model: GPT) -> None:
    def wrong(tokens: Tensor) -> Tensor:
        logits = model(tokens).clone()
        if tokens.shape[1] == 8:
            logits[2, 5, 3] += 1e-3
        return logits

    with pytest.raises(ExportDiffers, match="computes something else: at position 5 of 8 a logit"):
        compare_logits(model, wrong, **ABOUT)
    forgets: list[Sequence[Tensor]] = []

    def without_cache(chunks: Sequence[Tensor]) -> Tensor:
        forgets.append(chunks)
        return torch.cat([model(chunk) for chunk in chunks], dim=1)

    with pytest.raises(ExportDiffers, match="at position"):
        compare_cached(model, without_cache, **ABOUT)
    assert [chunk.shape for chunk in forgets[0]] == [(1, 5)] * 4


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_what_is_not_finite_differs(wrong: float) -> None:
    ours = torch.zeros(1, 3, 4)
    theirs = ours.clone()
    theirs[0, 1, 2] = wrong
    with pytest.raises(ExportDiffers, match="at position 1 of 3"):
        largest_difference(ours, theirs, by="theirs")
    with pytest.raises(ExportDiffers, match=r"shape \(1, 3, 5\), the model \(1, 3, 4\)"):
        largest_difference(ours, torch.zeros(1, 3, 5), by="theirs")


def test_ids_of_hard_texts_are_compared_as_far_as_the_tokenizer_knows_their_characters() -> None:
    assert compare_ids(Bytes(), Bytes().encode, by="theirs") == 10
    letters = Chars("ab \n")
    assert compare_ids(letters, letters.encode, by="theirs") == 3  # nothing, a blank, and its own
    assert sorted(texts_for(letters)[-1]) == ["\n", " ", "a", "b"]
    with pytest.raises(ExportDiffers, match="other ids for the text ' ': \\[0\\], not \\[32\\]"):
        compare_ids(Bytes(), lambda text: [0] * len(text), by="theirs")
