"""What is chosen where nothing is said, and what cannot work."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadValue
from fewshot.train.config import LoopConfig, OptimizerConfig, ScheduleConfig
from fewshot.train.resolving.resolve import RunConfig, check_sections, data_config, resolve

GOLDEN = Path(__file__).parents[1] / "golden"


def test_committed_runs_and_the_demo_resolve_to_what_they_always_did() -> None:
    spec = importlib.util.spec_from_file_location("make_resolved", GOLDEN / "make_resolved.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    assert maker.resolved() == json.loads((GOLDEN / "resolved.json").read_text())


SHAPE = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_ctx": 32}


def configured(**given: Any) -> tuple[RunConfig, str]:
    """What is resolved for a small model, and what was said."""
    given = {"text": "a.txt", "model": SHAPE, **given}
    said: list[str] = []
    check_sections(given)
    config = resolve(given, data_config(given), n_vocab=66, n_text_tokens=10**6, device="cpu", say=said.append)
    return config, "\n".join(said)


FOLLOWS: dict[str, tuple[int, dict[str, int], dict[str, int]]] = {
    "the start follows a small batch": (3_200_000, {"batch_tokens": 64}, {"batch_start_tokens": 32}),
    "the start is a sixteenth of a large batch": (
        3_200_000,
        {"batch_tokens": 32_000},
        {"batch_start_tokens": 1984},  # 62 whole rows
    ),
    "the start is whole rows": (3_200_000, {}, {"batch_tokens": 1600, "batch_start_tokens": 96}),
    "a batch of one row has no ramp": (3_200_000, {"batch_tokens": 32}, {"batch_start_tokens": 32}),
    "the batch follows a large start": (640_000, {"batch_start_tokens": 6400}, {"batch_tokens": 6400}),
    "ramp, warm-up and decay follow the length": (
        300_000,
        {},
        {"ramp_tokens": 4_000, "warmup_tokens": 6_000, "decay_tokens": 260_000},
    ),
    "the decay follows a long warm-up": (6400, {"warmup_tokens": 6000}, {"decay_tokens": 6001}),
    "the warm-up follows a short decay": (64_000, {"decay_tokens": 1000}, {"warmup_tokens": 500}),
    "the shortest run of all": (1, {}, {"batch_tokens": 32, "warmup_tokens": 0, "decay_tokens": 1}),
    "what is said stands": (
        64_000,
        {"batch_tokens": 640, "batch_start_tokens": 64, "warmup_tokens": 7, "decay_tokens": 50_000},
        {"batch_tokens": 640, "batch_start_tokens": 64, "warmup_tokens": 7, "decay_tokens": 50_000},
    ),
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_what_is_not_said_of_a_schedule_follows_what_is(name: str) -> None:
    n_tokens, said, expected = FOLLOWS[name]
    config, _ = configured(n_tokens=n_tokens, schedule=said)
    assert {key: getattr(config.schedule, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("asked", "done"), [(47, 32), (49, 64), (16, 32), (1, 32), (100, 96), (32, 32), (96, 96), (1000, 992)]
)
def test_a_batch_is_kept_as_the_whole_rows_that_it_is_run_in(asked: int, done: int) -> None:
    config, said = configured(n_tokens=64_000, schedule={"batch_tokens": asked, "batch_start_tokens": asked})
    assert config.schedule.batch_tokens == config.schedule.batch_start_tokens == done
    assert (
        f"schedule: batch_tokens {done:,} in whole rows, because {asked:,} is not a multiple of n_ctx 32" in said
    ) == (asked != done)
    assert f"in batches of {done:,}" in said


CLOCKS: dict[str, tuple[int, dict[str, int], str]] = {
    "a warm-up beyond the run": (
        6400,
        {"warmup_tokens": 1_000_000},
        "the warm-up takes 1,000,000 tokens, the run has 6,400: the learning rate ends at 0.64% of its peak",
    ),
    "a warm-up as long as the run": (6400, {"warmup_tokens": 6400}, "ends at 100.00% of its peak"),
    "a warm-up beyond both": (6400, {"warmup_tokens": 9000, "decay_tokens": 6400}, "the warm-up takes 9,000"),
    "a decay beyond the run": (
        640,
        {"decay_tokens": 12_800},
        "the decay takes 12,800 tokens, the run has 640: the learning rate ends at 99.5% of its peak",
    ),
    "a decay that ends early": (
        64_000,
        {"decay_tokens": 6400},
        "the decay ends after 6,400 of 64,000 tokens: the learning rate stays at 10.0% of its peak",
    ),
    "a ramp beyond the run": (
        6400,
        {"ramp_tokens": 64_000, "batch_tokens": 3200, "batch_start_tokens": 32},
        "the batch grows over 64,000 tokens, the run has 6,400: it ends at 352 of 3,200",
    ),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_a_clock_that_does_not_fit_the_run_is_said(name: str) -> None:
    n_tokens, schedule, message = CLOCKS[name]
    _, said = configured(n_tokens=n_tokens, schedule=schedule)
    assert message in said


def test_nothing_is_said_of_clocks_that_fit() -> None:
    for schedule in ({}, {"warmup_tokens": 0, "decay_tokens": 6400}, {"ramp_tokens": 0}):
        _, said = configured(n_tokens=6400, schedule=schedule)
        assert "schedule:" not in said


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (ScheduleConfig, {"ramp_tokens": -7}, "ramp_tokens is -7, must not be negative"),
        (ScheduleConfig, {"warmup_tokens": -1}, "warmup_tokens is -1, must not be negative"),
        (ScheduleConfig, {"batch_tokens": 0}, "batch_tokens is 0, must be at least 1"),
        (OptimizerConfig, {"beta1": 1.0}, "beta1 is 1.0 and beta2 0.95, both must be in [0, 1)"),
        (OptimizerConfig, {"beta2": -0.1}, "beta1 is 0.9 and beta2 -0.1, both must be in [0, 1)"),
        (OptimizerConfig, {"beta1": float("nan")}, "beta1 is nan and beta2 0.95, both must be in [0, 1)"),
        (OptimizerConfig, {"weight_decay": float("inf")}, "weight_decay is inf, must be at least 0 and finite"),
        (OptimizerConfig, {"weight_decay": -1.0}, "weight_decay is -1.0, must be at least 0 and finite"),
        (OptimizerConfig, {"eps": float("nan")}, "eps is nan, must be > 0"),
        (OptimizerConfig, {"clip": 0.0}, "clip is 0.0, must be > 0"),
        (OptimizerConfig, {"momentum": 1.0}, "momentum is 1.0, must be in [0, 1)"),
        (LoopConfig, {"precision": "float16"}, "precision is 'float16', allowed: auto, float32, bfloat16"),
    ],
)
def test_a_value_that_is_not_allowed_is_named_with_what_is(kind: Any, given: dict[str, Any], message: str) -> None:
    clocks = {"n_tokens": 6400, "batch_tokens": 64, "batch_start_tokens": 1, "ramp_tokens": 0}
    good = {**clocks, "warmup_tokens": 0, "decay_tokens": 1} if kind is ScheduleConfig else {}
    with pytest.raises(BadValue) as caught:
        kind(**{**good, **given})
    assert message in str(caught.value)


FLOATS = [
    f"{section}.{name}"
    for section, names in {
        "optimizer": ("lr", "matrix_lr", "beta1", "beta2", "eps", "weight_decay", "momentum", "clip"),
        "schedule": ("final_fraction",),
        "model": ("dropout", "init_std"),
        "data": ("val_fraction",),
    }.items()
    for name in names
]


@pytest.mark.parametrize("field", FLOATS)
@pytest.mark.parametrize("value", [".nan", float("inf"), "-inf", "1e999"])
def test_a_number_of_any_section_must_be_finite(field: str, value: Any) -> None:
    section, name = field.split(".")
    inside = {**(SHAPE if section == "model" else {}), name: value}
    with pytest.raises(BadValue, match=rf"{name} is .*, a (finite )?number is needed"):
        configured(n_tokens=6400, **{section: inside})


@pytest.mark.parametrize("n_vocab", [10, 256, 2**24 + 1, 10**9, "1e12", 10**30])
def test_a_vocabulary_that_cannot_be_trained_is_refused_before_text_is_read(n_vocab: Any) -> None:
    with pytest.raises(BadValue, match=r"n_vocab.* (is too small|must be at most 16,777,216)"):
        data_config({"text": "a.txt", "data": {"n_vocab": n_vocab}})


@pytest.mark.parametrize("tokenizer", ["chars", "bytes", "tokenizer.json", "~/t"])
def test_the_size_of_a_vocabulary_that_has_none_to_choose_is_refused(tokenizer: str) -> None:
    with pytest.raises(BadValue, match=f"data.n_vocab is 500, but data.tokenizer {tokenizer} has its own size"):
        data_config({"text": "a.txt", "data": {"n_vocab": 500, "tokenizer": tokenizer}})


@pytest.mark.parametrize("kernel", ["off", "no", False, {"dense": "flash"}, {"dense": "sdpa", "banded(3)": "on"}, 3])
def test_an_unknown_kernel_is_named_before_text_is_read(kernel: Any) -> None:
    with pytest.raises(BadValue, match=r"unknown kernel '(off|no|false|flash|on|3)'.*allowed: auto, "):
        check_sections({"text": "a.txt", "loop": {"kernel": kernel}})
    check_sections({"text": "a.txt", "loop": {"kernel": "auto"}})
    check_sections({"text": "a.txt", "loop": {"kernel": {"dense": "sdpa"}}})
