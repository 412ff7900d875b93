"""What is timed decides; what is given, too short to matter or impossible is not timed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fewshot.kernels.choose import Choices, choose_for
from fewshot.model.config import GPTConfig
from fewshot.model.machine import requirements_of
from fewshot.train.config import LoopConfig
from fewshot.train.fastest import QUICK_FLOPS, fastest
from fewshot.train.precision import Precision

SetInModule = Callable[[object, str, object], None]
CONFIG = GPTConfig(n_layers=3, d_model=16, n_heads=2, n_ctx=8, n_vocab=11, pattern="alternate(dense, banded(4))")
LONG, SHORT = 10**10, 10  # tokens


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_in_module: SetInModule) -> None:
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "cache"))
    both = [Precision(dtype=dtype, reason="possible") for dtype in (torch.float32, torch.bfloat16)]
    set_in_module(
        fastest, "possible_precisions", lambda wanted, device: [p for p in both if wanted in ("auto", p.name)]
    )


def kernels_for(dtype: torch.dtype) -> Choices:
    return choose_for(CONFIG.patterns, "sdpa", requirements_of(CONFIG, device="cpu", dtype=dtype, training=True))


@pytest.fixture
def timed(set_in_module: SetInModule) -> Callable[..., list[str]]:
    """Set the seconds a token of each way; return the list of the ways that are then timed."""

    def use(**seconds: float) -> list[str]:
        asked: list[str] = []

        def seconds_of(config: Any, loop: Any, chosen: Any, kernels: Any, *, compiled: bool) -> float:
            asked.append(chosen.name + "_compiled" * compiled)
            return seconds[asked[-1]]

        set_in_module(fastest, "_seconds_a_token", seconds_of)
        return asked

    return use


def choose(n_tokens: int = LONG, problem: str | None = None, device: str = "cpu", **loop: str) -> tuple[str, bool, str]:
    choice = fastest(
        CONFIG, LoopConfig(**loop), n_tokens=n_tokens, device=device, problem=problem, kernels_for=kernels_for
    )
    return choice.precision.name, choice.compiled, choice.reason


def test_the_faster_type_is_taken_and_compiled_if_that_gains(timed: Callable[..., list[str]]) -> None:
    asked = timed(float32=3e-5, bfloat16=2e-5, bfloat16_compiled=1e-5)
    assert choose() == ("bfloat16", True, "2.00 times as fast here")
    assert asked == ["float32", "bfloat16", "bfloat16_compiled"]


@pytest.mark.parametrize(("narrow", "taken"), [(0.97, "float32"), (1.3, "float32"), (0.9, "bfloat16")])
def test_float32_is_kept_where_bfloat16_gains_little_or_nothing(
    timed: Callable[..., list[str]], narrow: float, taken: str
) -> None:
    timed(float32=1e-5, bfloat16=narrow * 1e-5, float32_compiled=1e-5, bfloat16_compiled=1e-5)
    assert choose()[:2] == (taken, False)


def test_compiling_is_not_tried_in_a_run_of_minutes(timed: Callable[..., list[str]]) -> None:
    asked = timed(float32=3e-5, bfloat16=2e-5)
    n_tokens = int(590 / 2e-5)
    assert choose(n_tokens) == ("bfloat16", False, "the run is too short to gain from it")
    assert asked == ["float32", "bfloat16"]


def test_a_run_of_seconds_is_not_timed_at_all(timed: Callable[..., list[str]]) -> None:
    asked = timed()
    assert 6 * 10_000 * SHORT < QUICK_FLOPS
    assert choose(SHORT) == ("float32", False, "the run is too short to gain from it")
    assert choose(SHORT, compile="always")[:2] == ("float32", True)
    assert choose(SHORT, precision="bfloat16")[0] == "bfloat16"
    assert asked == []


def test_what_is_given_is_not_timed(timed: Callable[..., list[str]]) -> None:
    asked = timed()
    for name in ("float32", "bfloat16"):
        assert choose(precision=name, compile="never") == (name, False, "switched off")
        assert choose(precision=name, compile="always") == (name, True, "as configured")
        assert choose(precision=name, problem="no compiler") == (name, False, "no compiler")
    assert asked == []


def test_where_nothing_can_be_compiled_the_types_are_still_compared(timed: Callable[..., list[str]]) -> None:
    timed(float32=3e-5, bfloat16=2e-5)
    assert choose(problem="no compiler") == ("bfloat16", False, "no compiler")


def test_a_gpu_compiles_where_it_can(timed: Callable[..., list[str]]) -> None:
    asked = timed()
    assert choose(device="cuda")[1:] == (True, "on a GPU")
    assert choose(device="cuda", problem="no compiler")[1:] == (False, "no compiler")
    assert choose(device="cuda", compile="never")[1:] == (False, "switched off")
    assert asked == []


def test_blocks_and_loss_are_really_run_and_their_times_are_stored(set_in_module: SetInModule, tmp_path: Path) -> None:
    first = choose(precision="float32", compile="never"), choose(compile="never")
    (one, other) = (tmp_path / "cache" / "training").iterdir()  # float32 and bfloat16
    assert one.name != other.name

    def again(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("measured again")

    set_in_module(fastest, "_time", again)
    assert (choose(precision="float32", compile="never"), choose(compile="never")) == first
