"""OPT's folders: what is written is what transformers computes, and what transformers wrote is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from models import exported, shaken
from safetensors.torch import load_file, save_file

from fewshot.base.errors import BadValue
from fewshot.checkpoint.formats.hugging_face.opt import check_is_opt, read_opt, write_opt
from fewshot.model.config import GPTConfig
from fewshot.tokenizer.bytes import Bytes

SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 48, "n_heads": 4, "n_ctx": 40, "n_vocab": 257}


@pytest.mark.parametrize(
    "changed",
    [
        {"tied": False, "d_ff": 100, "activation": "relu", "dropout": 0.1},
        {"block": "post-ln", "d_head": 10, "d_qk": 7},
        {"block": "sparse-transformer", "tied": False, "positions": "rows(5)", "pattern": "banded(40)"},
    ],
    ids=str,
)
@torch.no_grad()
def test_transformers_computes_the_same_and_it_comes_back(
    transformers: Any, tmp_path: Path, changed: dict[str, Any]
) -> None:
    model = shaken(**SHAPE | changed)
    checked = exported(tmp_path / "out", model, Bytes(), written_as="opt")
    assert checked.greedy_tokens == 36
    assert 0 < checked.largest_difference < 2e-5 * checked.largest_logit
    tokens = torch.randint(257, (3, 40))
    torch.testing.assert_close(read_opt(tmp_path / "out")(tokens), model(tokens), rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changed", [{}, {"do_layer_norm_before": False}, {"tie_word_embeddings": False}], ids=str)
@torch.no_grad()
def test_an_opt_of_transformers_gives_the_same_logits(
    transformers: Any, tmp_path: Path, changed: dict[str, Any]
) -> None:
    shape = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 100, "vocab_size": 64}
    torch.manual_seed(0)
    config = transformers.OPTConfig(**shape, word_embed_proj_dim=48, max_position_embeddings=40, **changed)
    theirs = transformers.OPTForCausalLM(config).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    theirs.save_pretrained(tmp_path)
    ours = read_opt(tmp_path)
    assert (ours.config.activation, ours.config.dropout) == ("relu", 0.1)
    for length in (1, 7, 40):
        tokens = torch.randint(64, (3, length))
        expected = theirs(tokens, attention_mask=torch.ones_like(tokens)).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=2e-5 * expected.abs().max().item())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [({"pattern": "banded(8)"}, "pattern"), ({"d_head": 13}, "d_head")],
)
def test_what_opt_cannot_express_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadValue, match=rf"OPT has .*this model has {reason}"):
        check_is_opt(GPTConfig(**SHAPE | changed))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"word_embed_proj_dim": 24}, "OPT-350m"),
        ({"enable_bias": False}, "enable_bias is False"),
        ({"do_layer_norm_before": "yes"}, "do_layer_norm_before is 'yes'"),
        ({"num_attention_heads": "many"}, "num_attention_heads is 'many'"),
        ({"ffn_dim": 7}, "ffn_dim 7"),
        ({"max_position_embeddings": 42}, "max_position_embeddings 42"),
        ({"activation_function": "swish"}, "swish"),
        ({"tie_word_embeddings": False}, "lacks? lm_head"),
    ],
)
def test_a_config_that_lies_is_refused(tmp_path: Path, changed: dict[str, Any], reason: str) -> None:
    write_opt(tmp_path, shaken(**SHAPE), eot=256)
    plain = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(plain | changed))
    with pytest.raises(BadValue, match=reason):
        read_opt(tmp_path)


@pytest.mark.parametrize(
    "lost", ["self_attn.q_proj.bias", "fc1.weight", "final_layer_norm.weight", "embed_tokens.weight"]
)
def test_a_lost_a_misshapen_and_an_unknown_tensor_are_named(tmp_path: Path, lost: str) -> None:
    write_opt(tmp_path, shaken(**SHAPE), eot=256)
    tensors = load_file(tmp_path / "model.safetensors")
    name = next(name for name in tensors if name.endswith(lost))
    save_file({key: tensor for key, tensor in tensors.items() if key != name}, tmp_path / "model.safetensors")
    with pytest.raises(BadValue, match=r"missing|Missing"):
        read_opt(tmp_path)
    save_file(tensors | {name: tensors[name][:3].clone()}, tmp_path / "model.safetensors")
    with pytest.raises(BadValue, match=r"shape|must be"):
        read_opt(tmp_path)
    save_file(tensors | {"model.decoder.project_in.weight": torch.zeros(2, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(BadValue, match=r"project_in\.weight is not known"):
        read_opt(tmp_path)
