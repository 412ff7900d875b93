from __future__ import annotations

from typing import Any

import torch

from fewshot.generate.prompt_cache import PromptCache
from fewshot.generate.request import Request, TokenScore
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.paged_cache import PagedCache, PagedMemory

SHAPE = GPTConfig(n_layers=2, d_model=8, n_heads=2, n_ctx=64, n_vocab=20, pattern="alternate(dense, banded(4))")


def asking(tokens: list[int], key: str = "", **how: Any) -> Request:
    return Request(prompt=tokens, max_tokens=1, key=key, **how)


def n_found(prompts: PromptCache, tokens: list[int], key: str = "", **how: Any) -> int:
    """How many tokens of the prompt need not be read."""
    text, scores = prompts.find(asking(tokens, key, **how))
    assert len(scores) == (max(0, text.length + 1 - how.get("n_unscored", 1)) if how.get("prompt_logprobs") else 0)
    n = text.length
    prompts.cache.drop(text)
    return n


def add(prompts: PromptCache, tokens: list[int], key: str = "", n_scores: int = 0, **how: Any) -> None:
    """Read a text, whole, and keep it."""
    text = prompts.cache.new_text()
    with torch.no_grad():
        GPT(SHAPE, seed=0).eval().hidden(torch.tensor([tokens]), PagedMemory(prompts.cache, [text], [len(tokens)]))
    prompts.add(asking(tokens, key, **how), text, [TokenScore(-float(i)) for i in range(n_scores)])


def test_a_prompt_goes_on_from_the_text_that_has_read_most_of_it_but_never_has_nothing_to_read() -> None:
    prompts = PromptCache(PagedCache(SHAPE))
    add(prompts, [1, 2, 3, 4])
    add(prompts, [1, 2, 5, 6, 7])
    assert n_found(prompts, [1, 2, 5, 6, 8, 9]) == 4
    assert n_found(prompts, [1, 2, 3, 4]) == 3
    assert n_found(prompts, [1, 2, 3, 4, 5]) == 4
    assert n_found(prompts, [1, 2, 9]) == 2
    assert n_found(prompts, [7, 7]) == n_found(prompts, [1]) == 0


def test_a_text_of_another_key_is_never_found() -> None:
    prompts = PromptCache(PagedCache(SHAPE))
    add(prompts, [1, 2, 3, 4], "a")
    assert n_found(prompts, [1, 2, 3, 5], "a") == 3
    assert n_found(prompts, [1, 2, 3, 5], "b") == n_found(prompts, [1, 2, 3, 5]) == 0


def test_the_same_text_is_kept_once_with_all_pages_that_either_has() -> None:
    cache = PagedCache(SHAPE)
    prompts = PromptCache(cache)
    add(prompts, list(range(20)) * 2)
    used = cache.n_used_bytes
    add(prompts, list(range(20)) * 2)
    assert (len(prompts), cache.n_used_bytes) == (1, used)


def test_the_middle_of_a_band_goes_before_whole_texts_and_the_least_recently_used_first() -> None:
    cache = PagedCache(SHAPE)
    prompts = PromptCache(cache)
    add(prompts, [1] * 40)
    add(prompts, [2] * 40)
    assert n_found(prompts, [1] * 10) == 9  # now the more recently used
    assert prompts.make_room()
    assert n_found(prompts, [2] * 20 + [3]) == 0  # its band's middle is gone
    assert n_found(prompts, [2] * 41) == 40  # its end is not
    assert n_found(prompts, [1] * 20 + [3]) == 20
    for _ in range(5):
        prompts.make_room()
    assert len(prompts) == 0
    assert not prompts.make_room()


def test_a_prompt_to_be_scored_goes_on_only_from_scores_that_are_known() -> None:
    prompts = PromptCache(PagedCache(SHAPE))
    add(prompts, [1, 2, 3, 4])
    assert n_found(prompts, [1, 2, 3, 4, 5], prompt_logprobs=True) == 0
    add(prompts, [1, 2, 3, 4], n_scores=3, top_logprobs=2)
    assert n_found(prompts, [1, 2, 3, 4, 5], prompt_logprobs=True) == 3  # the fourth says what the fifth is worth
    assert n_found(prompts, [1, 2, 9, 9, 9], prompt_logprobs=True) == 1
    assert n_found(prompts, [1, 2, 3, 4, 5], prompt_logprobs=True, top_logprobs=2) == 3
    assert n_found(prompts, [1, 2, 3, 4, 5], prompt_logprobs=True, top_logprobs=3) == 0
    add(prompts, [1, 2, 3, 4])  # without scores: those that are known stay
    assert n_found(prompts, [1, 2, 3, 4, 5], prompt_logprobs=True) == 3
    assert n_found(prompts, [1, 2, 3, 4, 5], prompt_logprobs=True, top_logprobs=3, n_unscored=4) == 3
    assert n_found(prompts, [1, 2, 3, 4, 5], prompt_logprobs=True, top_logprobs=3, n_unscored=9) == 4
    assert n_found(prompts, [1, 2, 3, 4, 5], prompt_logprobs=True, top_logprobs=2, n_unscored=3) == 3
