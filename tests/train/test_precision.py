"""What a step is computed in, and in how many parts."""

from __future__ import annotations

import pytest
import torch

from fewshot.model.config import GPTConfig
from fewshot.model.plan import activation_bytes
from fewshot.train.precision import MIN_BF16_WIDTH, choose_precision, fitting_rows

WIDE = MIN_BF16_WIDTH


def processor(monkeypatch: pytest.MonkeyPatch, *, onednn: bool = True, bf16: bool = True) -> None:
    """A CPU with these instructions."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: onednn)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: bf16)


@pytest.mark.parametrize(
    ("onednn", "bf16", "d_model", "dtype", "reason"),
    [
        (True, True, WIDE, torch.bfloat16, "the processor has it"),
        (True, True, WIDE - 1, torch.float32, f"d_model {WIDE - 1} is too narrow"),
        (True, False, WIDE, torch.float32, "the processor has no bfloat16 instructions"),
        (False, True, WIDE, torch.float32, "the processor has no bfloat16 instructions"),
        (False, False, 8, torch.float32, "the processor has no bfloat16 instructions"),
    ],
)
def test_bfloat16_is_taken_on_a_cpu_that_has_it_for_wide_models_alone(
    onednn: bool, bf16: bool, d_model: int, dtype: torch.dtype, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    processor(monkeypatch, onednn=onednn, bf16=bf16)
    chosen = choose_precision("auto", "cpu", d_model=d_model)
    assert chosen.dtype == dtype
    assert chosen.reason.startswith(reason)


@pytest.mark.parametrize("has_it", [True, False])
def test_a_gpu_takes_bfloat16_where_it_is_no_emulation(has_it: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_it and not including_emulation)
    for d_model in (8, WIDE):
        chosen = choose_precision("auto", "cuda", d_model=d_model)
        assert chosen.dtype == (torch.bfloat16 if has_it else torch.float32)


@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_a_precision_that_is_named_is_taken(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, bf16=False)
    chosen = choose_precision(wanted, "cpu", d_model=8)
    assert (str(chosen.dtype), chosen.reason) == (f"torch.{wanted}", "as configured")


def test_as_many_rows_as_fit_in_a_quarter_of_the_free_memory_go_through_at_once() -> None:
    config = GPTConfig(n_layers=2, d_model=16, n_heads=2, n_ctx=32, n_vocab=66)
    for recompute in (False, True):
        row = activation_bytes(config, recompute=recompute)
        for free, rows in ((4 * 7 * row, 7), (4 * 8 * row - 1, 7), (0, 1), (-5 * row, 1), (4 * row, 1)):
            assert fitting_rows(config, free_bytes=free, recompute=recompute) == rows
    assert activation_bytes(config, recompute=True) < activation_bytes(config)
