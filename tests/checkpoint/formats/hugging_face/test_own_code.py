"""Folders with our class for transformers: any pattern, whole and through the cache; never read as something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import exported, shaken
from safetensors.torch import load_file, save_file

from fewshot.base.errors import BadValue
from fewshot.checkpoint.formats.hugging_face import own_code
from fewshot.checkpoint.formats.hugging_face.own_code import read_own_code, write_own_code
from fewshot.checkpoint.formats.plain_patterns import plain_layers
from fewshot.checkpoint.formats.table import format_for, open_model
from fewshot.model.config import GPTConfig
from fewshot.patterns.schedule import parse
from fewshot.tokenizer.bytes import Bytes

SHAPE: dict[str, Any] = {"n_layers": 3, "d_model": 48, "n_heads": 4, "n_ctx": 40, "n_vocab": 257}
KINDS: list[dict[str, Any]] = [
    {"pattern": "alternate(banded(4), banded(9), dense)", "d_qk": 6},
    {"pattern": "perhead(dense, strided(4), fixed(8, 2), banded(3))", "positions": "rows(5)", "tied": False},
    {"pattern": "alternate(fixed(10, 3), columns(8, 2, 1) | banded(2))", "block": "post-ln", "activation": "gelu"},
    {"pattern": "strided(4)", "block": "sparse-transformer", "tied": False, "d_head": 20, "d_ff": 60},
]


@pytest.fixture(autouse=True)
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the copies that transformers makes of a class away from the user's own."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


@pytest.mark.parametrize("changed", KINDS, ids=str)
@torch.no_grad()
def test_transformers_computes_the_same_and_it_comes_back(tmp_path: Path, changed: dict[str, Any]) -> None:
    model = shaken(**SHAPE | changed)
    checked = exported(tmp_path / "out", model, Bytes(), written_as="code")
    assert checked.greedy_tokens == 36
    assert 0 < checked.largest_difference < 2e-5 * checked.largest_logit
    tokens = torch.randint(257, (3, 40))
    torch.testing.assert_close(read_own_code(tmp_path / "out")(tokens), model(tokens), rtol=0, atol=1e-4)
    opened, _, _ = open_model(f"hf:{tmp_path / 'out'}")
    torch.testing.assert_close(opened(tokens), model(tokens), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_rows_that_are_filled_up_on_the_left_have_the_logits_of_their_own(tmp_path: Path) -> None:
    import transformers

    model = shaken(**SHAPE | KINDS[1])
    write_own_code(tmp_path / "out", model, eot=256)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=True).eval()
    rows = [torch.randint(257, (length,)) for length in (3, 9, 12)]
    filled = torch.stack([torch.nn.functional.pad(row, (12 - len(row), 0), value=256) for row in rows])
    mask = torch.stack([torch.nn.functional.pad(torch.ones_like(row), (12 - len(row), 0)) for row in rows])
    found = theirs(filled, attention_mask=mask)
    for row, logits in zip(rows, found.logits, strict=True):
        torch.testing.assert_close(logits[-len(row) :], model(row[None])[0], rtol=0, atol=1e-4)
    loss = theirs(rows[2][None], labels=rows[2][None]).loss
    torch.testing.assert_close(loss, model.loss(rows[2][None, :-1], rows[2][None, 1:]), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("text", ["dense", "banded(3)", "strided(4)", "block(5)", "columns(6, 2)", "columns(6, 2, 1)"])
def test_the_class_reads_what_the_pattern_allows(text: str) -> None:
    from fewshot.checkpoint.formats.hugging_face.modeling_fewshot import READS

    (((part,),),) = plain_layers(GPTConfig(**SHAPE | {"n_layers": 1}, pattern=text))
    q, k = torch.arange(30)[:, None], torch.arange(30)
    reads = READS[part[0]](q, k, *part[1:]) & (k <= q)
    assert torch.equal(reads, parse(text).for_layer(0).allows(q, k))


def test_without_trust_in_its_code_it_is_not_read_as_something_else(tmp_path: Path) -> None:
    import transformers

    write_own_code(tmp_path / "out", shaken(**SHAPE, pattern="strided(4)"), eot=256)
    with pytest.raises(ValueError, match="trust_remote_code"):
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", trust_remote_code=False)


def test_it_is_chosen_where_no_stock_class_fits_and_is_short() -> None:
    assert format_for(GPTConfig(**SHAPE, pattern="alternate(banded(4), banded(9))"), None) == "code"
    assert len(Path(own_code.__file__).with_name("modeling_fewshot.py").read_text().splitlines()) < 100


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pattern": "banded(9)"}, "its layers are not those of its pattern"),
        ({"pattern": "spiral(9)"}, "spiral"),
        ({"pattern": 3}, "pattern is 3"),
        ({"norm_first": None}, "norm_first"),
        ({"num_attention_heads": 5}, "head_dim|not those|weights"),
        ({"num_attention_heads": -1}, "num_attention_heads is -1"),
        ({"hidden_size": 50}, "hidden_size"),
        ({"vocab_size": 10**9}, "vocab_size"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings"),
        ({"activation_function": "swish"}, "swish"),
        ({"activation_function": ["gelu"]}, "activation_function is"),
    ],
)
def test_a_config_that_lies_is_refused(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    write_own_code(tmp_path, shaken(**SHAPE, pattern="banded(4)"), eot=256)
    plain = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(plain | changed))
    with pytest.raises(BadValue, match=reason):
        read_own_code(tmp_path)


def test_names_that_do_not_parse_and_far_layers_are_refused(tmp_path: Path) -> None:
    write_own_code(tmp_path, shaken(**SHAPE, pattern="banded(4)"), eot=256)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("h.x.c_attn.weight", "h..", "h.10000000.c_attn.weight", "h.70000.up.weight"):
        save_file(tensors | {name: torch.zeros(1)}, tmp_path / "model.safetensors")
        with pytest.raises(BadValue, match=r"more than the model has|a layer before"):
            read_own_code(tmp_path)
