"""What a step is computed in, and in how many parts."""

from __future__ import annotations

import pytest
import torch

from fewshot.model.config import GPTConfig
from fewshot.model.plan import activation_bytes
from fewshot.train.precision import fitting_rows, possible_precisions


def processor(monkeypatch: pytest.MonkeyPatch, *, onednn: bool = True, bf16: bool = True) -> None:
    """A CPU with these instructions."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16)


NONE = "the processor has no bfloat16 instructions"


@pytest.mark.parametrize(
    ("onednn", "bf16", "names", "reason"),
    [
        (True, True, ["float32", "bfloat16"], "the processor has it"),
        (True, False, ["float32"], NONE),
        (False, True, ["float32"], NONE),
        (False, False, ["float32"], NONE),
    ],
)
def test_a_cpu_may_take_bfloat16_if_it_has_it(
    onednn: bool, bf16: bool, names: list[str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, onednn=onednn, bf16=bf16)
    possible = possible_precisions("auto", "cpu")
    assert [precision.name for precision in possible] == names
    assert possible[-1].reason == reason


@pytest.mark.parametrize("has_it", [True, False])
def test_a_gpu_takes_bfloat16_where_it_is_no_emulation(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it and not including_emulation)
    (only,) = possible_precisions("auto", "cuda")
    assert only.dtype == (torch.bfloat16 if has_it else torch.float32)


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_a_precision_that_is_named_is_the_only_one(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, bf16=False)
    (only,) = possible_precisions(wanted, "cpu")
    assert (str(only.dtype), only.reason) == (f"torch.{wanted}", "as configured")


def test_as_many_rows_as_fit_in_a_quarter_of_the_free_memory_go_through_at_once() -> None:
    config = GPTConfig(n_layers=2, d_model=16, n_heads=2, n_ctx=32, n_vocab=66)
    for recompute in ("none", "selective", "full"):
        row = activation_bytes(config, recompute=recompute)
        for free, rows in ((4 * 7 * row, 7), (4 * 8 * row - 1, 7), (0, 1), (-5 * row, 1), (4 * row, 1)):
            assert fitting_rows(config, free_bytes=free, recompute=recompute) == rows
    assert activation_bytes(config, recompute="full") < activation_bytes(config)
