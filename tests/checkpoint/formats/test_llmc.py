"""llm.c's model files, written here as its train_gpt2.py writes them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from models import shaken

from fewshot.base.errors import BadFile, BadValue, NotFinite
from fewshot.checkpoint.formats.llmc import is_llmc, read_llmc
from fewshot.checkpoint.formats.table import open_model
from fewshot.cli.main import main
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

SHAPE = {"n_layers": 3, "d_model": 24, "n_heads": 4, "n_ctx": 13, "n_vocab": 257, "d_ff": 96}
KINDS = [f"{name}.{part}" for name in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
         for part in ("weight", "bias")]  # fmt: skip


def write(path: Path, model: GPT, *, version: int, header: dict[int, int] | None = None) -> None:
    """Write every kind of parameter for all layers, one kind after the other, with 27 rows more in the vocabulary."""
    state = model.state_dict()
    names = ["wte.weight", "wpe.weight"]
    names += [f"h.{i}.{kind}" for kind in KINDS for i in range(model.config.n_layers)]
    names += ["ln_f.weight", "ln_f.bias"]
    tensors = [state[name] for name in names]
    tensors[0] = torch.nn.functional.pad(tensors[0], (0, 0, 0, 27))
    numbers = np.zeros(256, np.int32)
    numbers[:8] = [20240326, version, 13, 257, 3, 4, 24, 284]
    for place, number in (header or {}).items():
        numbers[place] = number
    with path.open("wb") as file:
        file.write(numbers.tobytes())
        for tensor in tensors:
            plain = tensor.numpy() if version == 3 else tensor.bfloat16().view(torch.int16).numpy()
            file.write(np.ascontiguousarray(plain).tobytes())


@pytest.mark.parametrize(("version", "tolerance"), [(3, 0.0), (5, 0.5)])
@torch.no_grad()
def test_the_logits_are_those_of_the_model(tmp_path: Path, version: int, tolerance: float) -> None:
    model, file = shaken(**SHAPE), tmp_path / "model.bin"
    write(file, model, version=version)
    assert is_llmc(file)
    tokens = torch.randint(257, (2, 13))
    back = read_llmc(file)
    assert back.config == model.config
    torch.testing.assert_close(back(tokens), model(tokens), rtol=0, atol=tolerance)
    if version == 5:
        assert torch.equal(back.wpe.weight, model.wpe.weight.bfloat16().float())


def test_it_is_converted_with_the_vocabulary_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, file = shaken(**SHAPE), tmp_path / "model.bin"
    write(file, model, version=3)
    assert main(["convert", str(file), str(tmp_path / "run")]) == 2
    assert "copy GPT-2's vocabulary there" in capsys.readouterr().err
    Bytes().save(tmp_path / "tokenizer.json")
    assert main(["convert", str(file), str(tmp_path / "run")]) == 0
    opened, tokenizer, _ = open_model(str(tmp_path / "run"))
    tokens = torch.randint(257, (2, 13))
    torch.testing.assert_close(opened(tokens), model(tokens))
    assert tokenizer.n_vocab == 257
    shutil.rmtree(tmp_path / "run")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({1: 1}, "of version 1"),
        ({3: 10**9}, r"n_vocab 1,000,000,000, which is more than 284 rows"),
        ({7: 2**31 - 1}, "its header says"),
        ({4: 0}, "n_layers 0"),
        ({6: -24}, "d_model -24"),
        ({5: 5}, "n_heads 5"),
        ({2: 14}, "its header says"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path: Path, header: dict[int, int], reason: str) -> None:
    write(tmp_path / "model.bin", shaken(**SHAPE), version=3, header=header)
    with pytest.raises((BadFile, BadValue), match=reason):
        read_llmc(tmp_path / "model.bin")


def test_a_file_that_is_cut_short_or_not_finite_is_refused(tmp_path: Path) -> None:
    file, model = tmp_path / "model.bin", shaken(**SHAPE)
    write(file, model, version=3)
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(BadFile, match="cut short or damaged"):
        read_llmc(file)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(BadFile, match="is no model of llm"):
        read_llmc(file)
    with torch.no_grad():
        model.ln_f.bias[1] = float("nan")
    write(file, model, version=3)
    with pytest.raises(NotFinite, match=r"ln_f\.bias"):
        read_llmc(file)
    assert not is_llmc(tmp_path)
    assert not is_llmc(tmp_path / "none.bin")
