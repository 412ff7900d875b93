"""Every row of FORMATS, with no edit for a new one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fewshot.base.errors import BadFile, BadValue, NotFinite
from fewshot.checkpoint.formats.table import FORMATS, check_convertible, format_for, open_model, reader_of
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

WRITTEN = [name for name, row in FORMATS.items() if row.write is not None]
OF_ANY_PATTERN = ("code", "onnx", "page")
READ_BACK = [name for name in WRITTEN if FORMATS[name].read is not None]
SHAPE = {"n_layers": 2, "d_model": 12, "n_heads": 3, "n_ctx": 7, "n_vocab": 257}


def can_hold(name: str, config: GPTConfig) -> bool:
    try:
        return format_for(config, name) == name
    except BadValue:
        return False


@pytest.mark.parametrize("name", READ_BACK)
def test_a_model_that_was_written_is_recognised_and_comes_back_with_its_tokenizer(name: str, tmp_path: Path) -> None:
    shapes = [GPTConfig(**SHAPE, block=block) for block in ("pre-ln", "post-ln")]
    model = GPT(next(shape for shape in shapes if can_hold(name, shape))).eval()
    FORMATS[name].write(tmp_path / "new", model, Bytes())
    assert reader_of(tmp_path / "new") is FORMATS[name].read
    back, tokenizer = FORMATS[name].read(tmp_path / "new")
    tokens = torch.randint(257, (2, 7))
    torch.testing.assert_close(back(tokens), model(tokens))
    assert tokenizer.encode("caf\u00e9\r\n") == Bytes().encode("caf\u00e9\r\n")
    opened, _, weights = open_model(f"hf:{tmp_path / 'new'}")
    torch.testing.assert_close(opened(tokens), model(tokens))
    with torch.no_grad():
        model.h[0].mlp.c_proj.bias[3] += 1
    FORMATS[name].write(tmp_path / "other", model, Bytes())
    assert open_model(f"hf:{tmp_path / 'other'}")[2] != weights == open_model(f"hf:{tmp_path / 'new'}")[2]


def test_a_path_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="a Hugging Face GPT-2 folder"):
        open_model(f"hf:{tmp_path}")
    with pytest.raises(BadValue, match="give a path after hf:"):
        open_model("hf:")
    with pytest.raises(BadFile, match="run folder"):
        open_model(str(tmp_path / "none"))


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in OF_ANY_PATTERN])
def test_a_model_of_a_pattern_that_others_do_not_know_is_refused(name: str) -> None:
    with pytest.raises(BadValue, match="pattern"):
        FORMATS[name].check(GPTConfig(**SHAPE, pattern="strided(2)"))


def test_other_folders_are_of_no_format(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    assert reader_of(tmp_path) is None
    assert reader_of(tmp_path / "none") is None


def test_a_run_whose_weights_are_not_finite_is_not_converted() -> None:
    model = GPT(GPTConfig(n_layers=1, d_model=12, n_heads=3, n_ctx=7, n_vocab=11))
    check_convertible(model, n_tokens=11, source=Path("run"))
    with torch.no_grad():
        model.ln_f.bias[2] = float("-inf")
    with pytest.raises(NotFinite, match=r"run: ln_f\.bias holds numbers that are not finite"):
        check_convertible(model, n_tokens=11, source=Path("run"))
