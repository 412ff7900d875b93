"""A run that cannot work is refused before anything is read or built; what it costs is said before it starts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.base.text import in_words
from fewshot.dataset.prepare import DataConfig, SourceConfig
from fewshot.model.config import GPTConfig
from fewshot.model.footprint.activations import activation_bytes
from fewshot.model.footprint.memory import checkpoint_bytes
from fewshot.model.gpt import GPT
from fewshot.train.config import OptimizerConfig
from fewshot.train.optim import OPTIMIZERS, Optimizers
from fewshot.train.plan import MAX_DAYS, check_early, check_whole, is_sure, plan_run
from fewshot.train.resolving.resolve import RunConfig, resolve
from fewshot.train.run import read_run_config, start

GIB = 2**30
DATA = DataConfig(sources=(SourceConfig(name="text", text=("nowhere.txt",)),))
SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 16, "n_heads": 2, "n_ctx": 32}
Given = dict[str, Any]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, set_in_module: Callable[[object, str, object], None]) -> None:
    """A machine of 8 GiB and 10 GFLOP/s on which nothing is built."""

    def built(*args: object, **kwargs: object) -> None:
        raise AssertionError("a model is built")

    set_in_module(plan_run, "free_memory_bytes", lambda device: 8 * GIB)
    set_in_module(plan_run, "matmul_flops_per_second", lambda device, **how: 1e10)
    monkeypatch.setattr(GPT, "__init__", built)


IMPOSSIBLE: dict[str, tuple[Given, str]] = {
    "width": ({"model": {"d_model": 10**9}}, "take a smaller model"),
    "width of a preset": ({"preset": "tiny-1m", "model": {"d_model": 4 * 10**8}}, "take a smaller model"),
    "layers": ({"preset": "tiny-1m", "model": {"n_layers": 100_000}, "n_tokens": 6400}, "take a smaller model"),
    "layers without end": ({"model": {**SHAPE, "n_layers": 10**15}}, "take a smaller model"),
    "heads": ({"model": {**SHAPE, "n_heads": 10**9, "d_head": 64}}, "take a smaller model"),
    "head width": ({"model": {**SHAPE, "d_head": 10**10}}, "take a smaller model"),
    "feed-forward": ({"preset": "tiny-1m", "model": {"d_ff": "1e12"}}, "take a smaller model"),
    "context": ({"model": {**SHAPE, "n_ctx": 10**9}}, "lower --loop.micro_rows or --model.n_ctx"),
    "context of tables": ({"model": {**SHAPE, "n_ctx": 10**10, "positions": "rows(100000)"}}, "--model.n_ctx"),
    "vocabulary": ({"model": {**SHAPE, "n_vocab": 10**12}}, "take a smaller model"),
    "untied vocabulary": ({"model": {**SHAPE, "n_vocab": 2 * 10**7, "tied": False}}, "take a smaller model"),
    "a preset": ({"preset": "gpt3-175b"}, "training (173,986,713,600 parameters 2.78 TB"),
    "batch": ({"model": SHAPE, "schedule": {"batch_tokens": 10**12}}, "lower --schedule.batch_tokens"),
    "batch with its length": (
        {"model": SHAPE, "n_tokens": 10**13, "schedule": {"batch_tokens": 10**12}},
        "lower --schedule.batch_tokens",
    ),
    "rows at once": (
        {"model": SHAPE, "loop": {"micro_rows": 10**7}, "schedule": {"batch_tokens": 10**8, "batch_start_tokens": 32}},
        "lower --loop.micro_rows",
    ),
    "length": ({"model": SHAPE, "n_tokens": 10**18}, "lower --n_tokens"),
    "length of no model": ({"schedule": {"n_tokens": "1e18"}}, "lower --n_tokens"),
    "length of a preset": ({"preset": "gpt3-small", "n_tokens": 3e11}, "years on this machine"),
    "steps": ({"model": SHAPE, "n_tokens": 10**12, "schedule": {"batch_tokens": 32}}, "lower --n_tokens"),
    "a batch beyond its run": (
        {"model": SHAPE, "n_tokens": 60_000, "schedule": {"batch_tokens": 3_000_000}},
        "batch_tokens 3,000,000 is above n_tokens 60,000",
    ),
    "a decay inside the warm-up": (
        {"model": SHAPE, "n_tokens": 6400, "schedule": {"warmup_tokens": 500, "decay_tokens": 400}},
        "decay_tokens 400 must be above schedule.warmup_tokens 500",
    ),
    "a decay inside the warm-up of a run without a length": (
        {"schedule": {"warmup_tokens": 500, "decay_tokens": 400, "batch_tokens": 4000}},
        "decay_tokens 400 must be above schedule.warmup_tokens 500",
    ),
    "a start above the batch": (
        {"model": SHAPE, "n_tokens": 6400, "schedule": {"batch_tokens": 64, "batch_start_tokens": 128}},
        "batch_start_tokens 128 is above batch_tokens 64",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_work_is_refused_before_any_text_is_read(name: str) -> None:
    given, message = IMPOSSIBLE[name]
    with pytest.raises(BadValue) as caught:
        check_early(given, DATA, device="cpu")
    assert message in str(caught.value)


POSSIBLE: dict[str, Given] = {
    "nothing said": {},
    "a length": {"n_tokens": 6400},
    "a preset": {"preset": "tiny-4m", "n_tokens": 10_000_000},
    "a width that some preset divides": {"model": {"d_model": 65}},
    "a batch": {"schedule": {"batch_tokens": 4096}},
    "a batch as long as the run": {"model": SHAPE, "n_tokens": 640, "schedule": {"batch_tokens": 640}},
    "one row above the run": {"model": SHAPE, "n_tokens": 10},
    "clocks beyond the run": {"model": SHAPE, "n_tokens": 640, "schedule": {"warmup_tokens": 10**6}},
    "ramp alone": {"model": SHAPE, "schedule": {"ramp_tokens": 0}},
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_can_work_is_not_refused(name: str) -> None:
    check_early(POSSIBLE[name], DATA, device="cpu")


def configured(given: Given, say: Any = lambda line: None) -> RunConfig:
    return resolve(given, DATA, n_vocab=66, n_text_tokens=10**6, device="cpu", say=say)


def test_a_yes_goes_over_the_plan() -> None:
    long = {"model": SHAPE, "n_tokens": 10**18}
    large = {"preset": "gpt3-13b", "n_tokens": 10**9}
    for given, message in ((long, f"give --yes (needed beyond {MAX_DAYS} days)"), (large, "8.59 GB are free")):
        with pytest.raises(BadValue) as caught:
            check_whole(configured(given), device="cpu", sure=False, say=lambda line: None)
        assert message in str(caught.value)
        check_early({**given, "yes": True}, DATA, device="cpu")
    said: list[str] = []
    check_whole(configured(large), device="cpu", sure=True, say=said.append)
    assert said
    assert "memory: 202 GB for weights, gradients and optimizer" in said[0]
    assert is_sure({"yes": "on"})
    assert not is_sure({})
    with pytest.raises(BadValue, match="yes is 'perhaps', bool is needed"):
        is_sure({"yes": "perhaps"})


def test_the_plan_is_said_with_memory_steps_and_time() -> None:
    said: list[str] = []
    config = configured({"preset": "tiny-4m", "n_tokens": 10_000_000, "schedule": {"batch_tokens": 4096}})
    check_whole(config, device="cpu", sure=False, say=said.append)
    (line,) = said
    seconds = 6 * plan_run(config).n_parameters * 1e7 / 5e9  # half of the machine's peak
    assert line.startswith("plan: ")
    assert line.endswith("8.59 GB are free")
    assert "2,5" in line  # steps, some of them smaller
    assert f" steps, {in_words(seconds + plan_run(config).block_seconds)}; memory: " in line


def test_a_plan_holds_a_hand_worked_run() -> None:
    given = {"model": {**SHAPE, "n_vocab": 66}, "n_tokens": 6400, "schedule": {"batch_tokens": 640}}
    given["optimizer"] = {"name": "adamw"}
    plan = plan_run(configured(given))
    block = 4 * 16 + 16 * 48 + 48 + 16 * 16 + 16 + 16 * 64 + 64 + 64 * 16 + 16
    assert plan.n_parameters == 2 * block + 16 * (66 + 32 + 2)
    assert plan.state_bytes == 16 * plan.n_parameters
    assert (plan.memories[0].activations, plan.work.n_micro) == (activation_bytes(configured(given).model), 20)
    assert plan.n_bytes == plan.memories[0].peak + plan.batch_bytes
    assert plan.batch_bytes == 20 * 33 * 16
    assert (plan.n_steps, plan.flops) == (10, 6.0 * plan.n_parameters * 6400)
    rows = dataclasses.replace(configured(given).loop, micro_rows=7)
    wider = plan_run(dataclasses.replace(configured(given), loop=rows))
    assert (wider.memories[0].activations, wider.work.n_micro) == (7 * plan.memories[0].activations, 3)


def spread(given: Given, monkeypatch: pytest.MonkeyPatch, *, on_one_machine: int = 8, **sizes: int) -> RunConfig:
    """A configuration for the processes of a layout, as torchrun would start them."""
    n = math.prod(sizes.values())
    monkeypatch.setenv("WORLD_SIZE", str(n))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(min(n, on_one_machine)))
    return configured({**given, "parallel": sizes})


DIVIDED: Given = {"model": {**SHAPE, "n_vocab": 66}, "n_tokens": 6400, "schedule": {"batch_tokens": 640}}


def test_a_layout_divides_what_one_process_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = plan_run(configured(DIVIDED))
    divided = plan_run(spread(DIVIDED, monkeypatch, fsdp=4, tp=2))
    assert divided.work.n_micro == alone.work.n_micro / 4
    assert len(divided.memories) == 8
    assert divided.memories[0].moments < alone.memories[0].moments / 3.9
    assert divided.memories[0].activations < alone.memories[0].activations


def test_processes_on_one_machine_share_its_memory_and_those_on_gpus_have_one_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = spread(DIVIDED, monkeypatch, dp=1, fsdp=2, tp=1, pp=2)
    first, _, last, _ = plan_run(config).memories
    assert (first.stage, last.stage) == (0, 1)
    assert plan_run(config).n_bytes - plan_run(config).batch_bytes == pytest.approx(2 * (first.peak + last.peak))
    assert plan_run(config, device="cuda").memories == (max(first, last, key=lambda memory: memory.peak),)
    two_machines = spread(DIVIDED, monkeypatch, on_one_machine=2, dp=1, fsdp=2, tp=1, pp=2)
    assert plan_run(two_machines).memories == (first, first)


def test_a_run_is_not_refused_for_the_memory_of_a_single_process(
    monkeypatch: pytest.MonkeyPatch, set_in_module: Callable[[object, str, object], None]
) -> None:
    large: Given = {"preset": "gpt3-small", "n_tokens": 10**6, "schedule": {"batch_tokens": 2048 * 8}}
    large = {**large, "loop": {"micro_rows": 1}, "yes": False}
    whole = plan_run(configured(large)).n_bytes
    half = max(memory.peak for memory in plan_run(spread(large, monkeypatch, fsdp=8)).memories)
    set_in_module(plan_run, "free_memory_bytes", lambda device: 8 * half + 2**30)
    check_early({**large, "parallel": {"fsdp": 8}}, DATA, device="cpu")
    set_in_module(plan_run, "free_memory_bytes", lambda device: whole)
    with pytest.raises(BadValue, match="of 8 processes together"):
        check_early({**large, "parallel": {"fsdp": 8}}, DATA, device="cpu")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_is_what_training_keeps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    config = GPTConfig(**{**SHAPE, "n_vocab": 66})
    model = GPT(config)
    optimizers = Optimizers(model, OptimizerConfig(name=name))
    model.loss(torch.zeros(1, 32, dtype=torch.long), torch.zeros(1, 32, dtype=torch.long)).backward()
    weights = [tensor for p in model.parameters() if p.grad is not None for tensor in (p, p.grad)]
    kept = sum(tensor.nbytes for tensor in weights)
    optimizers.step(1.0)
    kept += sum(tensor.nbytes for tensor in [piece.tensor for piece in optimizers.state()])
    stored, moments = checkpoint_bytes(config, name)
    assert 2 * stored + moments == pytest.approx(kept, rel=0.05)


@pytest.mark.parametrize(("rows", "chosen"), [(1, 1), (3, 3), (7, 5), (20, 10)])
def test_rows_are_chosen_from_what_the_weights_and_their_state_leave(
    rows: int,
    chosen: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_in_module: Callable[[object, str, object], None],
) -> None:
    monkeypatch.undo()
    (tmp_path / "a.txt").write_text("the old river bends under a stone bridge.\n" * 40)
    given = {"text": str(tmp_path / "a.txt"), "n_tokens": 640, "model": SHAPE, "data": {"tokenizer": "chars"}}
    given["schedule"] = {"batch_tokens": 320, "batch_start_tokens": 320}
    given["loop"] = {"compile": "never"}
    model = GPTConfig(**{**SHAPE, "n_vocab": len(set("the old river bends under a stone bridge.\n")) + 1})
    stored, moments = checkpoint_bytes(model, "muon")
    free = 2 * stored + moments + 4 * rows * activation_bytes(model)
    set_in_module(plan_run, "free_memory_bytes", lambda device: free)
    said: list[str] = []
    reports = start(given, tmp_path / "run", say=said.append)
    next(reports)
    reports.close()
    assert read_run_config(tmp_path / "run").loop.micro_rows == chosen  # a batch of 10 rows in parts of one size
    assert [line for line in said if line.startswith("plan: ")]
