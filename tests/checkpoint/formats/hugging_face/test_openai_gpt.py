"""GPT-1's folders: what is written is what transformers computes, and what transformers wrote is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import exported, shaken

from fewshot.base.errors import BadValue
from fewshot.checkpoint.formats.hugging_face.openai_gpt import check_is_openai_gpt, read_openai_gpt, write_openai_gpt
from fewshot.checkpoint.formats.table import format_for
from fewshot.model.config import GPTConfig
from fewshot.tokenizer.bytes import Bytes

SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 48, "n_heads": 4, "n_ctx": 40, "n_vocab": 257, "block": "post-ln"}


@pytest.mark.parametrize("changed", [{"dropout": 0.1}, {"activation": "relu", "d_head": 10, "d_qk": 7}], ids=str)
@torch.no_grad()
def test_transformers_computes_the_same_and_it_comes_back(
    transformers: Any, tmp_path: Path, changed: dict[str, Any]
) -> None:
    model = shaken(**SHAPE | changed)
    checked = exported(tmp_path / "out", model, Bytes(), written_as="openai-gpt")
    assert checked.greedy_tokens == 36
    assert 0 < checked.largest_difference < 2e-5 * checked.largest_logit
    tokens = torch.randint(257, (3, 40))
    torch.testing.assert_close(read_openai_gpt(tmp_path / "out")(tokens), model(tokens), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_a_gpt1_of_transformers_gives_the_same_logits(transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.OpenAIGPTConfig(n_embd=48, n_layer=2, n_head=4, n_positions=40, vocab_size=64)
    theirs = transformers.OpenAIGPTLMHeadModel(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    theirs.save_pretrained(tmp_path)
    ours = read_openai_gpt(tmp_path)
    assert (ours.config.block, ours.config.activation_name) == ("post-ln", "gelu_tanh")
    for length in (1, 7, 40):
        tokens = torch.randint(64, (3, length))
        expected = theirs(tokens).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"block": "pre-ln"}, "block"),
        ({"pattern": "banded(8)"}, "pattern"),
        ({"d_ff": 100}, "d_ff 192, this model has 100"),
        ({"tied": False}, "tied True"),
        ({"activation": "quick_gelu"}, "activation gelu_tanh or relu, this model has quick_gelu"),
    ],
)
def test_what_gpt1_cannot_express_is_refused_and_opt_can(changed: dict[str, Any], reason: str) -> None:
    config = GPTConfig(**SHAPE | changed)
    with pytest.raises(BadValue, match=reason):
        check_is_openai_gpt(config)
    if "pattern" not in changed and "block" not in changed:
        assert format_for(config, None) == "opt"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"afn": "swish"}, "afn is 'swish'"),
        ({"n_head": 0}, "n_head is 0"),
        ({"n_positions": 41}, "n_positions 41"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon"),
    ],
)
def test_a_config_that_lies_is_refused(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    write_openai_gpt(tmp_path, shaken(**SHAPE), eot=256)
    plain = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(plain | changed))
    with pytest.raises(BadValue, match=reason):
        read_openai_gpt(tmp_path)
