from __future__ import annotations

import dataclasses

import pytest

from fewshot.kernels import cross_entropy
from fewshot.model.config import GPTConfig
from fewshot.model.footprint.layout import Layout
from fewshot.model.footprint.memory import (
    CHUNK_BYTES,
    COPIES,
    Work,
    checkpoint_bytes,
    chunk_rows,
    footprint,
    loss_bytes,
    optimizer_bytes,
    stage_footprints,
)
from fewshot.model.footprint.parameters import Counts, n_parameters

CONFIG = GPTConfig(n_layers=6, d_model=24, n_heads=6, d_ff=40, n_ctx=32, n_vocab=50)


def test_what_torch_copies_of_a_logit_is_what_the_loss_says() -> None:
    assert COPIES == cross_entropy.COPIES


@pytest.mark.parametrize("n_rows", [0, 1, 7, 100, 1000, 4096])
def test_chunks_are_as_few_as_fit_and_equal_but_for_the_last(n_rows: int) -> None:
    n_vocab = CHUNK_BYTES // (4 * 333)
    rows = chunk_rows(n_rows, n_vocab, 4)
    assert 1 <= rows <= 333
    n_chunks = -(-n_rows // rows)
    assert n_chunks == -(-n_rows // 333)
    assert n_rows > (n_chunks - 1) * rows or n_rows == 0


def test_the_loss_counts_one_chunk_and_a_second_gradient_of_the_matrix_where_chunks_are_added() -> None:
    n_vocab, d = 2**14, 8
    rows, matrix = CHUNK_BYTES // (n_vocab * 4), 4 * d * n_vocab
    assert loss_bytes(rows, n_vocab, d, size=4, native=True) == CHUNK_BYTES + 4 * d * rows + matrix
    assert loss_bytes(2 * rows, n_vocab, d, size=4, native=True) == CHUNK_BYTES + 8 * d * rows + 2 * matrix
    copies = 2 * d * (rows + n_vocab)  # of hidden states and matrix
    narrow = loss_bytes(rows, n_vocab, d, size=2, native=True)
    assert narrow == copies + CHUNK_BYTES // 2 + 4 * d * rows + matrix + matrix // 2
    by_torch = loss_bytes(rows // 3, n_vocab, d, size=4, native=False)  # of 12 bytes a logit as many fit
    assert by_torch == 12 * (rows // 3) * n_vocab + 4 * d * (rows // 3)


def test_optimizers_keep_two_numbers_one_or_one_and_rows() -> None:
    counts = Counts(matrices=100, matrix_rows=10, tables=50, vectors=7)
    names = ("adamw", "muon", "normuon", "one of the user's own")
    assert [optimizer_bytes(counts, name) for name in names] == [1256, 856, 896, 1256]


def test_state_and_checkpoint_are_multiples_of_the_parameters_for_adam() -> None:
    n, memory = n_parameters(CONFIG), footprint(CONFIG, Layout(), Work())
    assert (memory.weights, memory.gradients, memory.moments) == (4 * n, 4 * n, 8 * n)
    assert checkpoint_bytes(CONFIG, "adamw") == (4 * n, 8 * n)


def test_fsdp_divides_weights_and_moments_and_gradients_only_of_a_single_pass() -> None:
    alone, one_pass = footprint(CONFIG, Layout(), Work(n_micro=1)), footprint(CONFIG, Layout(fsdp=4), Work(n_micro=1))
    several = footprint(CONFIG, Layout(fsdp=4), Work(n_micro=3))
    assert one_pass.weights == several.weights == pytest.approx(alone.weights / 4, rel=0.001)
    assert several.moments == pytest.approx(alone.moments / 4, rel=0.001)
    assert one_pass.gradients == pytest.approx(alone.gradients / 4, rel=0.001)
    assert several.gradients == alone.gradients  # whole until the last pass of a step


def test_dp_divides_nothing_and_gathers() -> None:
    alone, copied = footprint(CONFIG, Layout(), Work()), footprint(CONFIG, Layout(dp=4), Work())
    assert (copied.weights, copied.moments, copied.activations) == (alone.weights, alone.moments, alone.activations)
    assert copied.communication > alone.communication == 0


def test_the_first_stage_of_a_pipeline_holds_the_most_passes() -> None:
    alone = footprint(CONFIG, Layout(), Work(n_micro=8))
    first = footprint(CONFIG, Layout(pp=3), Work(n_micro=8))
    assert first.n_layers == 2
    assert first.n_parameters < alone.n_parameters


def test_positions_over_processes_divide_activations_but_for_the_keys_that_are_fetched() -> None:
    whole, half = (footprint(CONFIG, Layout(cp=cp), Work()) for cp in (1, 2))
    fetched = 2 * 2 * 24  # bytes a token and layer: keys and values in bfloat16
    assert half.activations == (whole.activations + 6 * 32 * fetched) / 2
    assert half.weights == whole.weights
    recomputed = [footprint(CONFIG, Layout(cp=cp), Work(recompute="full")).activations for cp in (1, 2)]
    assert recomputed[1] == recomputed[0] / 2


def test_products_in_bfloat16_copy_the_weights() -> None:
    narrow, wide = (footprint(CONFIG, Layout(), Work(precision=name)) for name in ("bfloat16", "float32"))
    assert wide.copies == 0
    assert narrow.copies == 2 * 6 * (24 * 24 * 4 + 2 * 24 * 40)


def test_recomputation_has_the_copies_of_one_block_in_its_backward_pass_and_of_all_before_the_loss() -> None:
    deep = dataclasses.replace(CONFIG, n_layers=1, d_ff=24000)  # the backward pass is the fullest moment
    kept, again = (footprint(deep, Layout(), Work(recompute=value)) for value in ("none", "full"))
    assert again.copies == kept.copies == 2 * (24 * 24 * 4 + 2 * 24 * 24000)
    two, recomputed = (
        footprint(dataclasses.replace(deep, n_layers=2), Layout(), Work(recompute=value)) for value in ("none", "full")
    )
    assert (two.copies, recomputed.copies) == (2 * kept.copies, kept.copies)
    half = footprint(dataclasses.replace(deep, n_layers=2), Layout(), Work(recompute="selective"))
    assert half.copies == 2 * (2 * 24 * 24 * 4 + 2 * 24 * 24000)  # attention of both blocks, the rest of one
    assert recomputed.before_loss == 4 * 32 * 24 * (2 + 2) + 2 * kept.copies


def test_a_stage_after_the_first_reads_what_has_arrived_and_counts_it_once() -> None:
    first, second, third = stage_footprints(CONFIG, Layout(pp=3), Work(n_micro=4, precision="float32"))
    stream = 4 * 32 * 24
    assert first.activations == 3 * (second.activations + 2 * stream) / 2
    assert (first.communication, second.communication, third.communication) == (4 * stream, 9 * stream, 5 * stream)
    assert first.before_loss == second.before_loss == 0 < third.before_loss


def test_gradients_and_the_activations_of_all_micro_batches_are_never_there_together() -> None:
    as_many, more = (stage_footprints(CONFIG, Layout(pp=3), Work(n_micro=n))[0] for n in (3, 4))
    assert more.activations == as_many.activations
    assert sum(as_many.kinds.values()) - as_many.peak == min(as_many.gradients, as_many.activations // 3)
    assert more.peak == sum(more.kinds.values())


def test_the_peak_of_a_single_pass_is_without_gradients() -> None:
    memory = footprint(CONFIG, Layout(), Work(n_micro=1))
    assert memory.peak == sum(memory.kinds.values()) - memory.gradients
    several = footprint(CONFIG, Layout(), Work(n_micro=2))
    assert several.peak == sum(several.kinds.values())
