"""What is written as ONNX: any kind of model, at any batch and length."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from models import exported, shaken

from fewshot.base.errors import BadValue, ExportDiffers
from fewshot.checkpoint.formats.onnx import FILE, check_is_onnx, write_onnx
from fewshot.checkpoint.runtimes.onnx import check_with_onnxruntime
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

pytest.importorskip("onnxscript")
SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 48, "n_heads": 4, "n_ctx": 40, "n_vocab": 257}
KINDS: list[dict[str, Any]] = [
    {"pattern": "alternate(dense, banded(8))", "d_qk": 6},
    {"pattern": "perhead(dense, strided(4), fixed(8, 2), banded(3))", "positions": "rows(5)", "tied": False},
    {"block": "post-ln", "activation": "gelu"},
    {"block": "sparse-transformer", "tied": False, "pattern": "strided(4)", "d_head": 20},
]


@pytest.mark.parametrize("changed", KINDS, ids=str)
def test_onnxruntime_computes_the_same(tmp_path: Path, changed: dict[str, Any]) -> None:
    pytest.importorskip("onnxruntime")
    checked = exported(tmp_path / "out", shaken(**SHAPE | changed), Bytes(), written_as="onnx")
    assert checked.by.startswith("onnxruntime")
    assert {1, 2, 20, 40} <= {*checked.lengths}
    assert checked.greedy_tokens == 36
    assert 0 < checked.largest_difference < 2e-5 * checked.largest_logit


def test_another_model_is_noticed(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    write_onnx(tmp_path, shaken(**SHAPE, pattern="banded(8)"), Bytes())
    with pytest.raises(ExportDiffers, match="onnxruntime"):
        check_with_onnxruntime(tmp_path, shaken(**SHAPE, pattern="banded(9)"), Bytes())


def test_a_context_of_one_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="n_ctx is 1"):
        write_onnx(tmp_path, GPT(GPTConfig(**SHAPE | {"n_ctx": 1})), Bytes())
    assert not (tmp_path / FILE).exists()
    check_is_onnx(GPTConfig(**SHAPE | {"n_ctx": 2}))
