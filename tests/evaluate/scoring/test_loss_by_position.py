from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.scoring.loss_by_position import loss_by_position, position_bins, rows_apart
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT


@pytest.mark.parametrize("n_ctx", [1, 2, 7, 96, 2048])
def test_bins_hold_every_position_once_and_grow(n_ctx: int) -> None:
    bins = position_bins(n_ctx)
    assert [place for first, last in bins for place in range(first, last + 1)] == list(range(1, n_ctx + 1))
    widths = [last - first for first, last in bins]
    assert widths[:-1] == sorted(widths[:-1])  # the last one ends with the context
    assert len(bins) <= 2 * math.log2(n_ctx + 1) + 2


def test_bins_of_one_a_doubling_are_powers_of_two() -> None:
    assert position_bins(8, a_doubling=1) == [(1, 1), (2, 3), (4, 7), (8, 8)]


def knows_from(place: int, *, n_vocab: int, n_ctx: int) -> SimpleNamespace:
    """A model that guesses until it has read `place` tokens, and is then sure of the token after the last one."""

    def read(tokens):
        logits = torch.zeros(*tokens.shape, n_vocab)
        logits[:, place - 1 :] = 30.0 * torch.nn.functional.one_hot((tokens[:, place - 1 :] + 1) % n_vocab, n_vocab)
        return logits

    return SimpleNamespace(n_ctx=n_ctx, device=torch.device("cpu"), read=read, logits=lambda hidden: hidden)


def test_loss_falls_where_the_model_begins_to_know_as_worked_by_hand() -> None:
    rows = np.stack([(np.arange(17) + start) % 5 for start in range(3)])
    bins = loss_by_position(knows_from(4, n_vocab=5, n_ctx=16), [rows[:2], rows[2:]])
    assert sum(part.n for part in bins) == 3 * 16
    for part in bins:
        expected = math.log(5) if part.last < 4 else 0.0
        assert part.nats == pytest.approx(expected, abs=1e-6), part
        assert part.low == pytest.approx(part.high)  # all rows are alike
    assert {part.last < 4 for part in bins} == {True, False}


def test_a_mean_over_all_bins_is_the_models_own_loss() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, n_ctx=11, n_vocab=23)).eval()
    rows = np.random.default_rng(0).integers(23, size=(4, 12))
    bins = loss_by_position(GPTLanguageModel(model), [rows])
    mean = sum(part.n * part.nats for part in bins) / sum(part.n for part in bins)
    tokens = torch.from_numpy(rows)
    with torch.no_grad():
        assert mean == pytest.approx(model.loss(tokens[:, :-1], tokens[:, 1:]).item(), abs=1e-5)
    assert all(part.low < part.nats < part.high for part in bins)


def test_rows_come_from_everywhere_in_batches() -> None:
    text = SimpleNamespace(n_ctx=8, n_rows=101, rows=lambda chosen: np.stack([np.full(9, row) for row in chosen]))
    batches = list(rows_apart(text, n_tokens=8 * 21))
    assert [len(batch) for batch in batches] == [16, 5]
    assert np.concatenate(batches)[:, 0].tolist() == list(range(0, 101, 5))
    assert len(np.concatenate(list(rows_apart(text, n_tokens=10**6)))) == 101  # no row twice


def test_rows_longer_than_the_context_are_refused() -> None:
    with pytest.raises(BadValue, match="rows of 18 tokens, the model reads 16"):
        loss_by_position(knows_from(1, n_vocab=5, n_ctx=16), [np.zeros((1, 18), dtype=np.int64)])
