"""Context parallel: processes share the positions of every row."""

from __future__ import annotations

import pytest
import torch
from layout_runs import BLOCKS, MICRO_BATCHES, Runs, check_agrees

from fewshot.dataset.loader import Batch
from fewshot.kernels import reference
from fewshot.train.parallel.context import over_positions, own_positions
from fewshot.train.parallel.mesh import Layout


@pytest.mark.parametrize(
    "name", ["context-cp2", "context-cp4", "context-cp2tp2", "context-untied-cp2", "context-untied-cp2fsdp2"]
)
def test_processes_that_share_positions_train_as_one_does(name: str, runs: Runs) -> None:
    check_agrees(runs, name)


def test_a_run_goes_on_with_its_positions_cut_otherwise(runs: Runs) -> None:
    check_agrees(runs, "context-cp4>cp2")


def test_each_process_has_consecutive_positions_and_all_documents() -> None:
    tokens = torch.arange(24).view(2, 12)
    batch = Batch(tokens=tokens, targets=tokens + 1, documents=tokens // 5, first_row=7)
    parts = [own_positions(batch, Layout(cp=3, rank=rank)) for rank in range(3)]
    assert torch.equal(torch.cat([part.tokens for part in parts], dim=1), batch.tokens)
    assert torch.equal(torch.cat([part.targets for part in parts], dim=1), batch.targets)
    assert all(part.documents is batch.documents and part.first_row == 7 for part in parts)
    assert own_positions(batch, Layout(fsdp=3)) is batch


def test_one_process_attends_as_it_did() -> None:
    assert over_positions(reference.attend, Layout(tp=4)) is reference.attend


def test_a_dense_layer_gathers_all_keys_and_a_banded_one_asks_its_neighbour(runs: Runs) -> None:
    """Of 3 blocks, dense, banded, dense: two gather forward and share out backward, and one passes on, both ways."""
    n_dense, n_banded = 2, BLOCKS - 2
    reports = runs.reports["context-cp2"]
    for step in range(6):
        n = MICRO_BATCHES[step]
        gradients = [report["exchanges"][step]["gradient"] for report in reports]
        assert sum(gradient["send"] for gradient in gradients) == 2 * n_banded * n
        assert sum(gradient["recv"] for gradient in gradients) == 2 * n_banded * n
        assert all(gradient["allgather"] == n_dense * n for gradient in gradients)
