from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.dataset.loader import IGNORED, ValidationBatches, load_batch
from fewshot.dataset.mixture import Mixture

EOT = 59_999


@pytest.fixture
def mixture(pack: Callable) -> Mixture:
    letters = pack(["".join(chr(1000 + 40 * d + i) for i in range(40)) for d in range(9)], n_ctx=6)
    signs = pack(["".join(chr(9000 + i) for i in range(100))], n_ctx=6, max_tokens_per_shard=30)
    return Mixture((letters, signs), (0.7, 0.3), 5)


def test_a_batch_holds_the_rows_that_the_mixture_locates(mixture: Mixture) -> None:
    batch = load_batch(mixture, first_row=990, n_rows=20)
    sources, inside = mixture.locate(np.arange(990, 1010))
    expected = [mixture.sources[s].rows(np.array([i]))[0].tolist() for s, i in zip(sources, inside, strict=True)]
    assert batch.tokens.tolist() == [row[:-1] for row in expected]
    assert batch.targets.tolist() == [row[1:] for row in expected]
    assert batch.tokens.dtype == batch.targets.dtype == torch.int64
    assert batch.tokens.shape == (20, 6)


def test_targets_are_the_tokens_one_place_further_on(mixture: Mixture) -> None:
    batch = load_batch(mixture, first_row=0, n_rows=11)
    assert torch.equal(batch.targets[:, :-1], batch.tokens[:, 1:])
    within = (batch.targets != EOT) & (batch.tokens != EOT)
    assert torch.equal((batch.targets - batch.tokens)[within], torch.ones(int(within.sum()), dtype=torch.int64))


@pytest.mark.parametrize("n_rows", [0, 3, 5])
def test_rows_that_a_batch_is_padded_with_have_no_targets(mixture: Mixture, n_rows: int) -> None:
    alone = load_batch(mixture, first_row=17, n_rows=5)
    padded = load_batch(mixture, first_row=17, n_rows=n_rows, padded_to=5, with_documents=True)
    assert torch.equal(padded.tokens[:n_rows], alone.tokens[:n_rows])
    assert torch.equal(padded.targets[:n_rows], alone.targets[:n_rows])
    assert padded.tokens.shape == padded.documents.shape == (5, 6)
    assert (padded.targets[n_rows:] == IGNORED).all()
    assert padded.first_row == 17


def test_a_resumed_run_reads_on_where_it_stopped_whatever_its_batch_size(mixture: Mixture) -> None:
    straight = torch.cat([load_batch(mixture, first_row=i, n_rows=8).tokens for i in range(0, 48, 8)])
    resumed = torch.cat([load_batch(mixture, first_row=i, n_rows=6).tokens for i in range(24, 48, 6)])
    assert torch.equal(straight[24:], resumed)
    assert not torch.equal(straight[:24], resumed)


def test_document_numbers_are_given_only_on_request(mixture: Mixture) -> None:
    assert load_batch(mixture, first_row=0, n_rows=40).documents is None
    batch = load_batch(mixture, first_row=0, n_rows=40, with_documents=True)
    assert batch.documents is not None
    for tokens, documents in zip(batch.tokens.tolist(), batch.documents.tolist(), strict=True):
        assert documents == [tokens[:i].count(EOT) for i in range(6)]
    assert batch.documents.max() == 1


@pytest.mark.parametrize("n_rows", [1, 4, 60, 61, 100])
def test_validation_reads_every_row_once_in_order(mixture: Mixture, n_rows: int) -> None:
    packed = mixture.sources[0]
    assert packed.n_rows == 61
    batches = list(ValidationBatches(packed, n_rows=n_rows))
    rows = torch.cat([torch.cat([b.tokens, b.targets[:, -1:]], dim=1) for b in batches])
    assert rows[:61].tolist() == packed.rows(np.arange(61)).tolist()
    assert {len(b.tokens) for b in batches} == {n_rows}
    assert torch.cat([b.targets for b in batches]).ne(IGNORED).all(dim=1).tolist() == [True] * 61 + [False] * (
        len(rows) - 61
    )


def test_validation_can_stop_early_and_number_documents(mixture: Mixture) -> None:
    batches = ValidationBatches(mixture.sources[0], n_rows=4, max_rows=10, with_documents=True)
    assert sum(int(b.targets.ne(IGNORED).sum()) for b in batches) == batches.n_targets == 10 * mixture.sources[0].n_ctx
    assert all(b.documents is not None and b.documents.shape == b.tokens.shape for b in batches)
    assert (batches[3].targets == IGNORED).all()  # beyond the last
    assert ValidationBatches(mixture.sources[0], n_rows=4, max_rows=1000).n_targets == 61 * mixture.sources[0].n_ctx


def test_rows_that_do_not_count_have_tokens_all_the_same(mixture: Mixture) -> None:
    batch = load_batch(mixture, first_row=3, n_rows=0, padded_to=1)
    assert (batch.tokens.tolist(), batch.targets.tolist()) == ([[0] * 6], [[IGNORED] * 6])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"first_row": -1}, "first_row is -1"),
        ({"n_rows": -2}, "n_rows -2"),
    ],
)
def test_impossible_batches_are_refused(mixture: Mixture, wrong: dict, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        load_batch(mixture, **({"first_row": 0, "n_rows": 4} | wrong))


@pytest.mark.parametrize(("wrong", "message"), [({"n_rows": 0}, "n_rows is 0"), ({"max_rows": 0}, "max_rows is 0")])
def test_impossible_validation_is_refused_at_the_call(mixture: Mixture, wrong: dict, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        ValidationBatches(mixture.sources[0], **({"n_rows": 4} | wrong))


def test_some_validation_rows_lie_scattered_over_all_the_text_and_are_always_the_same(pack: Callable) -> None:
    packed = pack(["".join(chr(1000 + i) for i in range(600))], n_ctx=6)

    def first_tokens(n_rows: int) -> torch.Tensor:
        batches = list(ValidationBatches(packed, n_rows=n_rows, max_rows=20))
        return torch.cat([batch.tokens[:, 0] for batch in batches])[:20]

    starts = first_tokens(4)
    assert len(starts) == len(set(starts.tolist())) == 20
    assert starts.min() < 1150
    assert starts.max() > 1450
    assert torch.equal(starts, first_tokens(9))
