from __future__ import annotations

import pytest
import torch

from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    shape = {"n_layers": 2, "d_model": 24, "n_heads": 3, "n_ctx": 19, "n_vocab": 37, "init_std": 0.5}
    return GPT(GPTConfig(**shape, pattern="alternate(dense, banded(4))", dropout=0.1))


def test_it_is_a_language_model_that_is_read_without_dropout(model: GPT) -> None:
    lm = GPTLanguageModel(model)
    assert isinstance(lm, LanguageModel)
    assert not model.training
    tokens = torch.arange(14).view(2, 7)
    torch.testing.assert_close(lm.logits(lm.read(tokens).flatten(0, 1)).view(2, 7, -1), model(tokens))


@pytest.mark.parametrize("n_prefix", [0, 6])
@torch.no_grad()
def test_two_branches_of_one_row_are_as_if_each_were_read_alone(model: GPT, n_prefix: int) -> None:
    lm = GPTLanguageModel(model)
    prefix, first, second = list(range(n_prefix)), [20, 21, 22], [23, 24]
    depths = torch.tensor([[0, 1, 2, 0, 1]])
    sees = torch.block_diag(torch.ones(3, 3).tril(), torch.ones(2, 2).tril()).bool()[None]
    tokens = torch.tensor([[*first, *second]])
    hidden = lm.read_trees(lm.read_prefix(prefix) if prefix else None, tokens, depths, sees)[0]
    alone = [lm.read(torch.tensor([[*prefix, *branch]]))[0, n_prefix:] for branch in (first, second)]
    torch.testing.assert_close(hidden, torch.cat(alone))


@torch.no_grad()
def test_steps_continue_a_text_by_the_models_own_scores(model: GPT) -> None:
    lm = GPTLanguageModel(model)
    torch.testing.assert_close(lm.steps().start([[1, 2, 3]]), model(torch.tensor([[1, 2, 3]]))[:, -1])
