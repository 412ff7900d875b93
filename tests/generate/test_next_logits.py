from __future__ import annotations

import pytest
import torch

from fewshot.generate.next_logits import GPTSteps, Steps, n_common, n_shared
from fewshot.model.gpt import GPT

TEXTS = [[1, 2, 3, 4, 5], [1, 2, 3, 6], [1, 2, 7]]  # two tokens in common


def expected(model: GPT, texts: list[list[int]]) -> torch.Tensor:
    """The scores after each text, read alone."""
    return torch.stack([model(torch.tensor([text]))[0, -1] for text in texts])


@pytest.mark.parametrize("prompts", [TEXTS, [[4], [5, 6]], [[3, 1]]])
@torch.no_grad()
def test_scores_are_those_of_each_text_read_alone(random_model: GPT, prompts: list[list[int]]) -> None:
    torch.testing.assert_close(GPTSteps(random_model).start(prompts), expected(random_model, prompts))


@torch.no_grad()
def test_rows_can_be_dropped_repeated_and_moved_between_two_tokens(random_model: GPT) -> None:
    steps = GPTSteps(random_model)
    steps.start(TEXTS)
    texts = TEXTS
    for rows, tokens in (([2, 0, 0, 1], [8, 9, 10, 11]), ([0, 1, 2, 3], [1, 2, 3, 4]), ([3], [5])):
        texts = [[*texts[row], token] for row, token in zip(rows, tokens, strict=True)]
        torch.testing.assert_close(steps.go_on(rows, tokens), expected(random_model, texts))


def test_it_is_what_beam_search_asks_for(random_model: GPT) -> None:
    assert isinstance(GPTSteps(random_model), Steps)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8])
def test_common_tokens_are_counted(n):
    a, b = [1] * 8, [1] * n + [2] * (8 - n)
    assert n_common(a, b) == n
    assert n_common(a[:n], b) == n
    assert n_shared([a, b]) == min(n, 7)
    assert n_shared([a]) == 0
