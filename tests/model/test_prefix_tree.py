from __future__ import annotations

import pytest
import torch

from fewshot.base.errors import ContextTooLong
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.prefix_tree import Prefix, PrefixTreeMemory

PREFIX = [3, 1, 4, 1, 5]
TOKENS, PARENTS = [2, 7, 1, 8, 2], [None, 0, 0, 2, None]  # two trees; the first branches after its root


def tree_of(prefix: Prefix) -> PrefixTreeMemory:
    sees = torch.eye(len(TOKENS), dtype=torch.bool)
    for token, parent in enumerate(PARENTS):
        if parent is not None:
            sees[token] |= sees[parent]
    return PrefixTreeMemory(prefix, sees.sum(dim=1)[None] - 1, sees[None])


def model_of(pattern: str, *, n_ctx: int = 9) -> GPT:
    torch.manual_seed(0)
    shape = {"n_layers": 3, "d_model": 24, "n_heads": 3, "n_vocab": 11, "init_std": 0.3}
    return GPT(GPTConfig(**shape, n_ctx=n_ctx, pattern=pattern)).eval()


@pytest.mark.parametrize("with_prefix", [True, False])
@pytest.mark.parametrize("pattern", ["dense", "alternate(banded(3), strided(2))", "perhead(fixed(4, 1), banded(2))"])
@torch.no_grad()
def test_each_token_reads_its_prefix_and_its_ancestors_as_a_text_of_its_own(pattern: str, with_prefix: bool) -> None:
    model = model_of(pattern)
    prefix, before = Prefix(model.config), PREFIX if with_prefix else []
    if with_prefix:
        expected = model.hidden(torch.tensor([PREFIX]))
        torch.testing.assert_close(model.hidden(torch.tensor([PREFIX]), prefix), expected)
    hidden = model.hidden(torch.tensor([TOKENS]), tree_of(prefix))
    for token, ends_at in enumerate(([2], [2, 7], [2, 1], [2, 1, 8], [2])):
        alone = model.hidden(torch.tensor([[*before, *ends_at]]))
        torch.testing.assert_close(hidden[0, token], alone[0, -1], rtol=1e-4, atol=1e-5)


def test_a_tree_that_is_deeper_than_the_context_is_refused() -> None:
    model = model_of("dense", n_ctx=7)
    prefix = Prefix(model.config)
    with torch.no_grad():
        model.hidden(torch.tensor([PREFIX]), prefix)
    with pytest.raises(ContextTooLong):
        tree_of(prefix)
