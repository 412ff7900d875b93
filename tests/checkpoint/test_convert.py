from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot.base.errors import BadFile, BadValue, FewshotError
from fewshot.checkpoint.convert import from_gpt2_state, read_hugging_face, write_hugging_face
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

GPT2_SHAPE = {"n_layer": 2, "n_embd": 24, "n_head": 3, "n_positions": 13, "vocab_size": 17}


@pytest.fixture(scope="module")
def transformers() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("transformers")


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
        "x": model.drop,
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
    inputs = {"y": first.attn.c_proj, "gelu": first.mlp.c_proj, "attnResid": first.ln_2}
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
@pytest.mark.parametrize("changed", [{}, {"tie_word_embeddings": False}, {"n_inner": 40}], ids=["tied", "untied", "ff"])
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


@pytest.mark.parametrize("changed", [{}, {"tied": False, "d_ff": 40, "dropout": 0.25}], ids=["plain", "special"])
@torch.no_grad()
def test_a_model_written_for_transformers_gives_the_same_logits_there_and_back(
    transformers: Any, tmp_path: Path, changed: dict[str, Any]
) -> None:
    shape = {"n_layers": 2, "d_model": 24, "n_heads": 3, "n_ctx": 13, "n_vocab": 17, "init_std": 0.2}
    config = GPTConfig(**shape, **changed)
    ours = GPT(config).eval()
    write_hugging_face(tmp_path / "new" / "out", ours, eot=16)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "new" / "out").eval()
    tokens = torch.randint(17, (2, 11))
    torch.testing.assert_close(theirs(tokens).logits, ours(tokens), rtol=1e-4, atol=1e-4)
    assert (theirs.config.eos_token_id, theirs.config.attn_pdrop) == (16, config.dropout)
    back = read_hugging_face(tmp_path / "new" / "out")
    assert torch.equal(back(tokens), ours(tokens))
    assert (back.config.d_ff, back.config.dropout) == (config.ff_width, config.dropout)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"activation_function": "relu"}, "activation 'relu' is not GPT-2's tanh GELU"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06; GPT-2's 1e-5 is needed"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scales attention in a way that GPT-2 does not"),
        ({"scale_attn_weights": False}, "scales attention in a way that GPT-2 does not"),
        ({"model_type": "gpt_neo"}, "is of type 'gpt_neo'; only 'gpt2' can be converted"),
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
        {"block": "sparse-transformer", "tied": False},
        {"positions": "rows(3)"},
        {"d_head": 5},
        {"d_qk": 2},
    ],
    ids=str,
)
def test_a_model_that_gpt2_cannot_express_is_not_written(tmp_path: Path, changed: dict[str, Any]) -> None:
    model = GPT(GPTConfig(n_layers=2, d_model=12, n_heads=3, n_ctx=7, n_vocab=11, **changed))
    with pytest.raises(FewshotError, match="knows only dense pre-LN layers with learned positions") as caught:
        write_hugging_face(tmp_path / "out", model, eot=0)
    assert str(next(iter(changed.values()))) in str(caught.value)
    assert not (tmp_path / "out").exists()
