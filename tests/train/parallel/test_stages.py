"""Pipeline parallel: processes hold consecutive blocks, and micro-batches pass from stage to stage."""

from __future__ import annotations

import pytest
import torch
from layout_runs import MICRO_BATCHES, Runs, check_agrees
from torch import nn

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.parallel.mesh import Layout
from fewshot.train.parallel.stages import (
    Elsewhere,
    Stage,
    add_tied_gradients,
    blocks_of_stage,
    keep_stage,
)

SHAPE = {"n_layers": 3, "d_model": 8, "n_heads": 2, "n_ctx": 6, "n_vocab": 11}


@pytest.mark.parametrize("name", ["tied-pp2", "untied-pp2", "tied-pp2fsdp2", "untied-pp2tp2"])
def test_stages_train_as_one_process_does(name: str, runs: Runs) -> None:
    check_agrees(runs, name)


@pytest.mark.parametrize("name", ["tied-pp2", "tied-pp2fsdp2"])
def test_both_copies_of_tied_embeddings_end_with_the_same_bits(name: str, runs: Runs) -> None:
    reports = runs.reports[name]
    ends = [{key: sha for key, sha in report["final"].items() if key.startswith("wte.weight")} for report in reports]
    moments = [
        {key: sha for key, sha in report["final_state"].items() if key.startswith("wte.weight/exp_avg")}
        for report in reports
    ]
    half = len(reports) // 2  # the processes of the first stage
    assert ends[:half] == ends[half:]
    assert moments[:half] == moments[half:]
    assert all(ends)
    assert all(len(held) == 2 for held in moments)
    assert reports[0]["initial"]["wpe.weight" if half == 1 else "wpe.weight@0:8,0:16"]
    assert not any(key.startswith("wpe") for key in reports[half]["final"])


@pytest.mark.parametrize("n_layers", [1, 3, 5, 12])
@pytest.mark.parametrize("pp", [1, 2, 3, 5])
def test_stages_have_all_blocks_in_order_and_later_ones_no_fewer(n_layers: int, pp: int) -> None:
    stages = [blocks_of_stage(n_layers, pp, stage) for stage in range(pp)]
    assert [block for stage in stages for block in stage] == list(range(n_layers))
    sizes = [len(stage) for stage in stages]
    assert sizes == sorted(sizes)
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("pp", [2, 3])
def test_stages_behind_each_other_give_the_loss_and_the_gradients_of_the_whole_model(pp: int, tied: bool) -> None:
    config = GPTConfig(**SHAPE, tied=tied, dropout=0.2)
    tokens = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(0))
    targets, keys = tokens.roll(-1, 1), torch.tensor([5, 6, 7])
    documents = torch.tensor([[0, 0, 0, 1, 1, 2]] * 3)
    whole = GPT(config, seed=4).train()
    loss = whole.loss(tokens, targets, documents, n_tokens=40, dropout_keys=keys)
    loss.backward()
    x, models = tokens, []
    for rank in range(pp):
        model, layout = GPT(config, seed=4), Layout(pp=pp, rank=rank)
        keep_stage(model, layout)
        models.append(model)
        x = Stage(model, layout).train()(x, targets, documents, keys, 40)
    torch.testing.assert_close(x, loss.detach().view(1), rtol=0, atol=1e-6, check_stride=False)
    x.sum().backward()
    for name, weight in whole.named_parameters():
        held = [dict(model.named_parameters()).get(name) for model in models]
        gradients = [copy.grad for copy in held if copy is not None]
        assert len(gradients) == (2 if tied and name == "wte.weight" else 1), name
        torch.testing.assert_close(sum(gradients), weight.grad, rtol=1e-5, atol=1e-7)


def test_what_other_stages_have_takes_no_memory() -> None:
    model = GPT(GPTConfig(**{**SHAPE, "tied": False}))
    keep_stage(model, Layout(pp=3, rank=1))
    assert {name.split(".")[0] for name, _ in model.named_parameters()} == {"h"}
    assert [isinstance(block, Elsewhere) for block in model.h] == [True, False, True]
    assert model.lm_head is None
    x: torch.Tensor = torch.ones(2)
    assert nn.Sequential(Elsewhere(), Elsewhere())(x) is x


def test_one_process_has_a_single_copy_whose_gradient_stays() -> None:
    model = GPT(GPTConfig(**SHAPE))
    model.wte.weight.grad = torch.ones_like(model.wte.weight)
    add_tied_gradients(model, Layout())
    assert model.wte.weight.grad.eq(1).all()


def test_a_micro_batch_passes_from_stage_to_stage_once_each_way(runs: Runs) -> None:
    # The first time that there are so many micro-batches, stages tell each other the shapes.
    again = [step for step in range(6) if MICRO_BATCHES[step] in MICRO_BATCHES[:step]]
    assert again == [1, 2, 4, 5]
    for report in runs.reports["untied-pp2"]:
        for step in again:
            n = MICRO_BATCHES[step]
            assert report["exchanges"][step]["gradient"] == {"send": n, "recv": n, "allreduce": 1}
    for report in runs.reports["tied-pp2"]:  # of one micro-batch, filled up to two; both copies' gradients are added
        assert report["exchanges"][1]["gradient"] == {"send": 2, "recv": 2, "allreduce": 2}
