from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewshot.base.errors import BadFile, BadValue, FewshotError
from fewshot.checkpoint.formats.hugging_face.folder import write_tokenizer
from fewshot.checkpoint.formats.hugging_face.gpt2 import (
    from_gpt2_state,
    read_hugging_face,
    write_hugging_face,
)
from fewshot.model.config import ACTIVATIONS, GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import Tokenizer

HELD_BY_GPT2: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": False},
    {"n_inner": 40},
    *({"activation_function": name} for name in ("gelu_pytorch_tanh", "gelu_fast", "gelu", "relu", "quick_gelu")),
    {"scale_attn_weights": False},
    {"scale_attn_by_inverse_layer_idx": True, "reorder_and_upcast_attn": True},
    {"scale_attn_by_inverse_layer_idx": True, "scale_attn_weights": False},
]
GPT2_SHAPE = {"n_layer": 2, "n_embd": 24, "n_head": 3, "n_positions": 13, "vocab_size": 17}


@pytest.fixture
def hugging_face(transformers: Any, tmp_path: Path) -> Callable[..., tuple[Any, Path]]:
    """Makes a random GPT-2 of transformers and the folder that it saved."""

    def make(**changed: Any) -> tuple[Any, Path]:
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(GPT2_SHAPE | changed))).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        model.save_pretrained(tmp_path / "gpt2")
        return model, tmp_path / "gpt2"

    return make


@pytest.fixture(scope="module")
def mingpt(shared_data: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """minGPT's trained sorting model: its weights, and all that it computes for three inputs."""
    golden = shared_data / "golden"
    weights, partials = (np.load(golden / f"mingpt_sort_{name}.npz") for name in ("weights", "partials"))
    return {k: torch.from_numpy(v) for k, v in weights.items()}, {k: torch.from_numpy(v) for k, v in partials.items()}


def test_mingpt_computes_the_same_logits_and_the_same_at_every_stage(
    mingpt: tuple[dict[str, Tensor], dict[str, Tensor]],
) -> None:
    weights, golden = mingpt
    model = from_gpt2_state(weights, n_heads=3)
    first = model.h[0]
    stages = {
        "ln1": first.ln_1,
        "qkv": first.attn.c_attn,
        "yProj": first.attn.c_proj,
        "ln2": first.ln_2,
        "fc": first.mlp.c_fc,
        "mlp": first.mlp,
        "block0": model.h[0],
        "block1": model.h[1],
        "block2": model.h[2],
        "ln_f": model.ln_f,
    }
    inputs = {"x": first, "y": first.attn.c_proj, "gelu": first.mlp.c_proj, "attnResid": first.ln_2}
    seen: dict[str, Tensor] = {}
    for name, module in stages.items():
        module.register_forward_hook(lambda m, given, made, name=name: seen.update({name: made}))
    for name, module in inputs.items():
        module.register_forward_pre_hook(lambda m, given, name=name: seen.update({name: given[0]}))
    with torch.no_grad():
        seen["lm_head"] = model(golden["idx"])
    assert seen.keys() == {*stages, *inputs, "lm_head"}
    for name, value in seen.items():
        torch.testing.assert_close(
            value, golden[name], rtol=1e-5, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_mingpt_is_recognised_as_untied_and_sorts(mingpt: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    weights, _ = mingpt
    model = from_gpt2_state(weights, n_heads=3)
    assert (model.config.n_layers, model.config.d_model, model.config.n_ctx, model.config.tied) == (3, 48, 11, False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 85_728
    tokens = torch.tensor([[2, 0, 1, 1, 0, 2]])
    for _ in range(6):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], 1)
    assert tokens[0, 6:].tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("changed", HELD_BY_GPT2, ids=str)
@torch.no_grad()
def test_a_gpt2_of_transformers_gives_the_same_logits(hugging_face: Any, changed: dict[str, Any], safe: bool) -> None:
    theirs, folder = hugging_face(**changed)
    if not safe:
        (folder / "model.safetensors").unlink()
        torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    ours = read_hugging_face(folder)
    assert not ours.training
    assert ours.config.tied is changed.get("tie_word_embeddings", True)
    tokens = torch.randint(17, (2, 11))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


HOLD_IN_GPT2: list[dict[str, Any]] = [
    {},
    {"tied": False, "d_ff": 40, "dropout": 0.25},
    {"pattern": "alternate(banded(13), strided(1), perhead(dense, block(20)))", "n_layers": 3},  # dense by another name
    {"block": "sparse-transformer", "tied": False, "dropout": 0.25},
    *({"activation": name} for name in ACTIVATIONS),
]


@pytest.mark.parametrize("changed", HOLD_IN_GPT2, ids=str)
@torch.no_grad()
def test_a_model_written_for_transformers_gives_the_same_logits_there_and_back(
    transformers: Any, tmp_path: Path, changed: dict[str, Any]
) -> None:
    shape = {"n_layers": 2, "d_model": 24, "n_heads": 3, "n_ctx": 13, "n_vocab": 17, "init_std": 0.2}
    config = GPTConfig(**shape | changed)
    ours = GPT(config).eval()
    for parameter in ours.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    write_hugging_face(tmp_path / "new" / "out", ours, eot=16)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "new" / "out").eval()
    tokens = torch.randint(17, (2, 11))
    torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=1e-4, atol=1e-4)
    assert (theirs.config.eos_token_id, theirs.config.attn_pdrop) == (16, config.inner_dropout)
    assert json.loads((tmp_path / "new" / "out" / "config.json").read_text())["n_ctx"] == 13  # which llama.cpp reads
    back = read_hugging_face(tmp_path / "new" / "out")
    assert torch.equal(back(tokens), ours(tokens))
    assert (back.config.d_ff, back.config.dropout) == (config.ff_width, config.dropout)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activation_function": "silu"}, "activation_function is 'silu', allowed: gelu_new, "),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06; GPT-2's 1e-5 is needed"),
        ({"model_type": "llama"}, "is of type 'llama'; these can be converted: gpt2, gpt_neo"),
        ({"n_head": None}, "lacks n_head"),
        ({"n_head": 5}, "d_model 24 is not a multiple of n_heads 5"),
    ],
)
def test_a_folder_that_is_not_gpt2_is_refused_in_one_line(
    hugging_face: Any, changed: dict[str, Any], message: str
) -> None:
    _, folder = hugging_face()
    plain = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps({name: value for name, value in plain.items() if value is not None}))
    with pytest.raises(BadValue, match=message) as caught:
        read_hugging_face(folder)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 3}')
    with pytest.raises(BadFile, match=r"holds neither model\.safetensors nor pytorch_model\.bin"):
        read_hugging_face(tmp_path)
    for name, data in [
        ("pytorch_model.bin", b"PK\3\4 cut"),
        ("model.safetensors", b"\x40\0\0\0\0\0\0\0{"),
        ("model.safetensors", b""),
    ]:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BadFile, match=rf"{name} is damaged or cut short: download it again$"):
            read_hugging_face(tmp_path)
    with pytest.raises(BadFile, match=r"config\.json does not exist"):
        read_hugging_face(tmp_path / "none")


def random_state() -> dict[str, Tensor]:
    return GPT(GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11)).state_dict()


@pytest.mark.parametrize("lost", ["wte.weight", "wpe.weight", "h.0.mlp.c_fc.bias", "h.1.ln_2.bias", "ln_f.weight"])
def test_a_state_dict_that_lacks_a_tensor_is_refused_by_name(lost: str) -> None:
    state = random_state()
    del state[lost]
    with pytest.raises(BadValue, match=f"not GPT-2 weights: .*{lost}"):
        from_gpt2_state(state, n_heads=3)


def test_a_state_dict_with_a_foreign_tensor_is_refused_by_name() -> None:
    with pytest.raises(BadValue, match=r"not GPT-2 weights: .*h\.0\.attn\.rotary") as caught:
        from_gpt2_state(random_state() | {"h.0.attn.rotary": torch.zeros(3)}, n_heads=3)
    assert "\n" not in str(caught.value)


def test_old_mask_buffers_and_half_precision_are_taken_in_stride() -> None:
    state = random_state()
    old = {f"transformer.{name}": tensor.half() for name, tensor in state.items()}
    old |= {"transformer.h.0.attn.bias": torch.ones(1, 1, 7, 7), "transformer.h.0.attn.masked_bias": torch.tensor(-1e4)}
    model = from_gpt2_state(old, n_heads=3, pattern="banded(4)")
    assert model.config.pattern == "banded(4)"
    torch.testing.assert_close(dict(model.state_dict()), dict(state), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "changed",
    [
        {"pattern": "alternate(dense, banded(4))"},
        {"block": "post-ln"},
        {"d_head": 5},
    ],
    ids=str,
)
def test_a_model_that_gpt2_cannot_express_is_not_written(tmp_path: Path, changed: dict[str, Any]) -> None:
    model = GPT(GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11, **changed))
    with pytest.raises(FewshotError, match="has dense pre-ln or sparse-transformer layers") as caught:
        write_hugging_face(tmp_path / "out", model, eot=0)
    assert str(next(iter(changed.values()))) in str(caught.value)
    assert not (tmp_path / "out").exists()


NOT_OF_ONE_MODEL: dict[str, tuple[dict[str, Any], Callable[[dict[str, Tensor]], dict[str, Tensor]] | None, str]] = {
    "fewer layers said": ({"n_layer": 1}, None, "says n_layer 1, but the weights have 2"),
    "more layers said": ({"n_layer": 10**6}, None, "says n_layer 1000000, but the weights have 2"),
    "no layers said": ({"n_layer": 0}, None, "says n_layer 0"),
    "a negative width": ({"n_embd": -4}, None, "says n_embd -4, but the weights have 24"),
    "another width": ({"n_embd": 48}, None, "says n_embd 48"),
    "another vocabulary": ({"vocab_size": 50257}, None, "says vocab_size 50257, but the weights have 17"),
    "another context": ({"n_positions": 1024}, None, "says n_positions 1024, but the weights have 13"),
    "another inner width": ({"n_inner": 40}, None, "says n_inner 40, but the weights have 96"),
    "a width that is a word": ({"n_embd": "24"}, None, "says n_embd '24'"),
    "a width that is true": ({"n_layer": True}, None, "says n_layer True"),
    "a width in brackets": ({"n_embd": [24]}, None, r"says n_embd \[24\]"),
    "heads that are a word": ({"n_head": "four"}, None, "n_head is 'four', must be a whole number"),
    "no heads": ({"n_head": 0}, None, "n_head is 0, must be a whole number of at least 1"),
    "heads that are no whole number": ({"n_head": 3.0}, None, r"n_head is 3\.0, must be a whole number"),
    "dropout that is a word": ({"resid_pdrop": "some"}, None, "resid_pdrop is 'some', must be in"),
    "dropout above 1": ({"resid_pdrop": 1.5}, None, r"resid_pdrop is 1\.5, must be in"),
    "untied and no head": ({"tie_word_embeddings": False}, None, "the weights lack lm_head.weight"),
    "tied and another head": (
        {},
        lambda state: state | {"lm_head.weight": state["transformer.wte.weight"] + 1},
        "hold two different ones",
    ),
    "tied by a word": ({"tie_word_embeddings": "yes"}, None, "tie_word_embeddings is 'yes'"),
    "a lost layer": (
        {},
        lambda state: {name: tensor for name, tensor in state.items() if ".h.0." not in name},
        r"not GPT-2 weights: .*h\.0",
    ),
    "a layer of a million": (
        {},
        lambda state: state | {"transformer.h.999999.ln_1.bias": torch.zeros(24)},
        r"a layer before h\.999999 is missing",
    ),
    "a layer without a number": (
        {},
        lambda state: state | {"transformer.h.x.ln_1.bias": torch.zeros(24)},
        r"not GPT-2 weights: .*h\.x",
    ),
    "a table without rows": (
        {},
        lambda state: state | {"transformer.wte.weight": torch.zeros(24)},
        r"wte\.weight is torch\.float32 of shape \(24,\)",
    ),
    "whole numbers": (
        {},
        lambda state: state | {"transformer.ln_f.bias": torch.zeros(24, dtype=torch.int64)},
        r"ln_f\.bias is torch\.int64",
    ),
    "a NaN": (
        {},
        lambda state: state | {"transformer.ln_f.bias": torch.full((24,), float("nan"))},
        r"ln_f\.bias holds numbers that are not finite",
    ),
    "an infinity in half precision": (
        {},
        lambda state: {name: (tensor * 1e6).half() for name, tensor in state.items()},
        "holds numbers that are not finite",
    ),
}


@pytest.mark.parametrize("name", NOT_OF_ONE_MODEL)
def test_what_is_not_of_one_model_is_refused_in_one_line(hugging_face: Any, name: str) -> None:
    changed, change, message = NOT_OF_ONE_MODEL[name]
    _, folder = hugging_face()
    plain = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps(plain))
    if change is not None:
        state = change(load_file(folder / "model.safetensors"))
        save_file({key: tensor.contiguous().clone() for key, tensor in state.items()}, folder / "model.safetensors")
    with pytest.raises(FewshotError, match=message) as caught:
        read_hugging_face(folder)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_n_ctx_beside_n_positions_is_ignored_as_transformers_does(transformers: Any, hugging_face: Any) -> None:
    _, folder = hugging_face(n_positions=128)
    plain = json.loads((folder / "config.json").read_text()) | {"n_ctx": 1024}
    (folder / "config.json").write_text(json.dumps(plain))
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    ours = read_hugging_face(folder)
    assert ours.config.n_ctx == theirs.config.n_positions == 128
    tokens = torch.randint(17, (2, 128))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("safe", [True, False])
@torch.no_grad()
def test_weights_in_several_files_are_read_as_transformers_reads_them(
    hugging_face: Any, tied: bool, safe: bool
) -> None:
    theirs, folder = hugging_face(tie_word_embeddings=tied)
    theirs.save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    if not safe:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        for part in set(index["weight_map"].values()):
            torch.save(load_file(folder / part), folder / f"{part}.bin")
            (folder / part).unlink()
        index["weight_map"] = {name: f"{part}.bin" for name, part in index["weight_map"].items()}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        (folder / "model.safetensors.index.json").unlink()
    assert len([*folder.glob("model-*")]) > 2
    tokens = torch.randint(17, (2, 11))
    torch.testing.assert_close(read_hugging_face(folder)(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


TEXT = "Two lines\r\nof text,\tné 日本 \u2028 \x00 end <|endoftext|> <|endo ft|>"


@pytest.mark.parametrize("make", [lambda: train_chars([TEXT]), Bytes, lambda: train_bpe([TEXT * 9], n_vocab=300)])
def test_a_written_tokenizer_gives_the_same_ids_in_transformers_and_back(
    transformers: Any, tmp_path: Path, make: Callable[[], Tokenizer]
) -> None:
    ours = make()
    write_tokenizer(tmp_path, ours, n_ctx=13)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = [TEXT, "", " ", "\n\n\n", "  of  text", "日", *TEXT]
    for text in texts:
        ids = ours.encode(text)
        assert theirs.encode(text) == ids == load_tokenizer(tmp_path).encode(text)
        assert theirs.decode(ids) == text
    assert (theirs.eos_token_id, theirs.bos_token_id, len(theirs)) == (ours.eot, ours.eot, ours.n_vocab)
    theirs.save_pretrained(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").encode(TEXT) == ours.encode(TEXT)


def test_gpt2s_golden_texts_have_their_ids_in_transformers(
    transformers: Any, tmp_path: Path, shared_data: Path
) -> None:
    write_tokenizer(tmp_path, load_tokenizer(shared_data / "vocab" / "gpt2"), n_ctx=13)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    lines = (shared_data / "golden" / "gpt2_bpe_golden.jsonl").read_text(encoding="utf-8").splitlines()
    golden = [json.loads(line) for line in lines]
    assert len(golden) >= 83
    for row in golden:
        assert theirs.encode(row["text"]) == row["ids"], row


@pytest.mark.parametrize(
    ("vocab", "message"),
    [
        ({"a": 0, "bc": 1, "<|endoftext|>": 2}, "it must hold characters"),
        ({"a": 0, "b": 2, "<|endoftext|>": 3}, "the ids must be 0 to 2"),
        ({"a": 1, "<|endoftext|>": 0}, "it must hold characters"),
        ({"a": 0, "b": 1}, "it must hold characters"),
        ({"a": 0.5, "<|endoftext|>": 1}, "has no ids"),
        ({}, "it must hold characters"),
        (["a"], "has no ids"),
    ],
)
def test_a_vocabulary_of_words_is_no_character_tokenizer(tmp_path: Path, vocab: Any, message: str) -> None:
    plain = json.loads(train_chars(["ab"]).to_library_json())
    plain["model"]["vocab"] = vocab
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    with pytest.raises(BadFile, match=message):
        load_tokenizer(tmp_path)
    plain["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(plain))
    with pytest.raises(BadFile, match="only if each character is one"):
        load_tokenizer(tmp_path)
