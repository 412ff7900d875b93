"""Tensor parallel: processes share the heads and the feed-forward units of every block."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from layout_runs import BLOCKS, MICRO_BATCHES, Runs, check_agrees

from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.train.parallel.heads import share_heads
from fewshot.train.parallel.mesh import Layout

SHAPE = {"n_layers": 2, "d_model": 16, "n_heads": 4, "n_ctx": 7, "n_vocab": 11, "d_ff": 36, "d_qk": 2}


@pytest.mark.parametrize("name", ["tied-tp2", "untied-tp2", "tied-tp2fsdp2", "untied-pp2tp2"])
def test_processes_that_share_heads_train_as_one_does(name: str, runs: Runs) -> None:
    check_agrees(runs, name)


@pytest.mark.parametrize("size", [2, 4])
def test_what_the_processes_compute_of_a_half_of_a_block_adds_up_to_the_whole(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = GPT(GPTConfig(**SHAPE), seed=3)
    for bias in (block.attn.c_attn.bias for block in whole.h):
        torch.nn.init.normal_(bias)
    x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(Layout, "group", lambda self, name: None)
    monkeypatch.setattr(dist, "all_reduce", lambda values, group: None)
    for half in ("attn", "mlp"):
        total = torch.zeros_like(x)
        for rank in range(size):
            model = GPT(whole.config)
            model.load_state_dict(whole.state_dict())
            share_heads(model, Layout(tp=size, rank=rank))
            part = getattr(model.h[1], half)
            assert sum(p.numel() for p in part.parameters()) < sum(
                p.numel() for p in getattr(whole.h[1], half).parameters()
            )
            total += part(x) - part.c_proj.bias  # the bias is added once, to the sum
        expected = getattr(whole.h[1], half)(x)
        torch.testing.assert_close(total + getattr(whole.h[1], half).c_proj.bias, expected, rtol=1e-5, atol=1e-6)


def test_one_process_keeps_its_modules() -> None:
    model = GPT(GPTConfig(**SHAPE))
    modules = list(model.modules())
    share_heads(model, Layout(fsdp=4))
    assert list(model.modules()) == modules


@pytest.mark.parametrize(("name", "n_exchanges"), [("tied-tp2", {}), ("untied-tp2", {"alltoall_base": 2})])
def test_a_block_is_added_up_twice_forward_and_twice_backward(
    name: str, n_exchanges: dict[str, int], runs: Runs
) -> None:
    for report in runs.reports[name]:
        steps = report["exchanges"][:6]
        assert [step["gradient"] for step in steps] == [{"allreduce": 4 * BLOCKS * n + 1} for n in MICRO_BATCHES]
        assert [step["update"] for step in steps] == [n_exchanges] * 6
