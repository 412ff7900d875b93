"""Who holds what: the parts of all processes are the whole, in training and in checkpoints."""

from __future__ import annotations

import pytest
import torch
from layout_runs import (
    CHAINS,
    LAYOUTS,
    N_STEPS,
    PAIRS,
    SAVED_EVERY,
    TRAINED,
    Runs,
    check_pieces,
    differences,
    initial_weights,
    saved_tensors,
)
from torch import nn

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.parallel.mesh import Layout
from fewshot.train.parallel.parts import parts_of, ranges_at, share_of_rows, tensor_parallel_ranges, whole_shapes
from fewshot.train.parallel.stages import keep_stage

# Vocabulary, context and feed-forward width that no number of processes divides, queries narrower than values.
UNEVEN = {"n_layers": 3, "d_model": 16, "n_heads": 4, "n_ctx": 7, "n_vocab": 11, "d_ff": 36, "d_qk": 2}
SIZES = [
    *({}, {"fsdp": 2}, {"fsdp": 3}, {"fsdp": 4}, {"dp": 3}, {"dp": 2, "fsdp": 3}, {"tp": 2}, {"tp": 4, "fsdp": 3}),
    *({"pp": 3}, {"pp": 2, "tp": 2}, {"pp": 2, "dp": 2, "fsdp": 2, "tp": 2}, {"dp": 3, "exact": True}),
    *({"dp": 2, "fsdp": 2, "exact": True}, {"fsdp": 19}),
]


def model_at(config: GPTConfig, layout: Layout) -> GPT:
    """Return a model without values whose parameters are as long as those that a process holds."""
    with torch.device("meta"):
        model = GPT(config)
    keep_stage(model, layout)
    shapes = whole_shapes(model, layout)
    for name, _ in list(model.named_parameters()):
        ranges = ranges_at(name, shapes[name], config, layout, layout.rank)
        n_rows = sum(rows[1] - rows[0] for rows, *_ in ranges)
        n_columns = [columns[1] - columns[0] for columns in ranges[0][1:]] if ranges else list(shapes[name][1:])
        module, _, end = name.rpartition(".")
        setattr(model.get_submodule(module), end, nn.Parameter(torch.empty(n_rows, *n_columns, device="meta")))
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_each_value_of_each_parameter_is_owned_by_exactly_one_process(sizes: dict[str, int], tied: bool) -> None:
    config = GPTConfig(**UNEVEN, tied=tied)
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in GPT(config).named_parameters()}
    n_owners = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}
    for rank in range(Layout(**sizes).n_processes):
        layout = Layout(**sizes, rank=rank)
        for part in parts_of(model_at(config, layout), layout):
            assert part.shape == shapes[part.name]
            for ranges in part.ranges if part.owned else ():
                n_owners[part.name][tuple(slice(*ends) for ends in ranges)] += 1
    for name, numbers in n_owners.items():
        assert torch.equal(numbers, torch.ones_like(numbers)), name


@pytest.mark.parametrize("n_rows", [1, 3, 4, 11, 12])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 7])
def test_a_share_of_rows_is_torchs_chunk_of_the_stacked_rectangles(n_rows: int, size: int) -> None:
    ranges = [((2, 2 + n_rows), (0, 5)), ((40, 43), (0, 5))]
    rows = [row for (start, end), _ in ranges for row in range(start, end)]
    chunks = [chunk.tolist() for chunk in torch.tensor(rows).chunk(size)]
    chunks += [[]] * (size - len(chunks))
    for rank, chunk in enumerate(chunks):
        share = share_of_rows(ranges, rank=rank, size=size)
        assert [row for (start, end), _ in share for row in range(start, end)] == chunk
        assert all(columns == (0, 5) for _, columns in share)


def test_tensor_parallel_gives_whole_heads_of_query_key_and_value() -> None:
    config = GPTConfig(**UNEVEN)  # queries and keys 2 wide, values 4: rows 0-7, 8-15 and 16-31
    held = [tensor_parallel_ranges("h.1.attn.c_attn.bias", (32,), config, rank=rank, size=2) for rank in (0, 1)]
    assert held == [[((0, 4),), ((8, 12),), ((16, 24),)], [((4, 8),), ((12, 16),), ((24, 32),)]]
    assert tensor_parallel_ranges("h.1.attn.c_proj.weight", (16, 16), config, rank=1, size=2) == [((0, 16), (8, 16))]
    assert tensor_parallel_ranges("h.1.mlp.c_fc.weight", (36, 16), config, rank=1, size=2) == [((18, 36), (0, 16))]
    for name in ("h.1.mlp.c_proj.bias", "h.1.ln_1.weight", "wte.weight"):  # whole on every process
        assert tensor_parallel_ranges(name, (16,), config, rank=1, size=2) == [((0, 16),)]


def test_pieces_of_moments_lie_where_those_of_the_weights_do() -> None:
    config, layout = GPTConfig(**UNEVEN), Layout(tp=2, fsdp=2, rank=3)
    part = next(part for part in parts_of(model_at(config, layout), layout) if part.name == "h.0.attn.c_attn.weight")
    values = torch.arange(16.0 * len(part.local)).view(
        -1, 16
    )  # 16 rows of this tensor-parallel half, the last 8 of them
    pieces = list(part.pieces(values, "h.0.attn.c_attn.weight/exp_avg"))
    assert [piece.key.partition("@")[2] for piece in pieces] == ["24:32,0:16"]
    assert pieces[0].tensor.data_ptr() == values.data_ptr()
    assert torch.equal(torch.cat([piece.tensor for piece in pieces]), values)


NEW = [name for names in TRAINED for name in names if ">" not in name]
RESUMED = [name for names in TRAINED for name in names if ">" in name]


@pytest.mark.parametrize("name", NEW)
def test_a_run_begins_with_the_weights_of_one_process(name: str, runs: Runs) -> None:
    check_pieces(runs.reports[name], "initial", initial_weights(runs.path(name)))


def check_goes_on(runs: Runs, name: str, *, n_steps: int) -> None:
    """Assert that a resumed run began with what was saved, and ended as a run of one process without a stop."""
    step, reports = name.count(">") * SAVED_EVERY, runs.reports[name]
    weights, moments = saved_tensors(runs.path(name), step)
    check_pieces(reports, "initial", weights)
    check_pieces(reports, "initial_state", moments)
    assert len(reports[0]["losses"]) == n_steps - step
    assert max(differences(runs, name).values()) <= 1e-5


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_goes_on_in_another_layout_with_what_was_saved_and_ends_as_without_a_stop(name: str, runs: Runs) -> None:
    check_goes_on(runs, name, n_steps=N_STEPS)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", dict.fromkeys([*PAIRS, *CHAINS]))
def test_a_run_goes_on_in_each_other_layout_and_in_a_chain_of_five(name: str, resumed: Runs) -> None:
    check_goes_on(resumed, name, n_steps=24)


@pytest.mark.parametrize("name", NEW)
def test_a_last_checkpoint_holds_what_the_processes_do(name: str, runs: Runs) -> None:
    weights, moments = saved_tensors(runs.path(name), N_STEPS)
    check_pieces(runs.reports[name], "final", weights)
    check_pieces(runs.reports[name], "final_state", moments)


def test_every_layout_is_among_the_runs() -> None:
    assert {name.rpartition("-")[2] for name in NEW} == LAYOUTS.keys()
