from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot.base.errors import BadFile, FewshotError
from fewshot.checkpoint.formats.nanogpt import MINGPT_HEADS, is_nanogpt, read_checkpoint
from fewshot.checkpoint.formats.table import FORMATS, open_model, reader_of
from fewshot.cli.main import main

SIZES = {"n_layer": 2, "n_head": 3, "n_embd": 24, "block_size": 13, "vocab_size": 17, "dropout": 0.1}


def nanogpt(transformers: Any, *, bias: bool = True, compiled: bool = False, **changed: Any) -> tuple[Any, Any]:
    """A checkpoint as nanoGPT's train.py writes it, and transformers' model of the same function."""
    sizes = SIZES | changed
    shape = {"n_positions" if name == "block_size" else name: n for name, n in sizes.items() if name != "dropout"}
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape, activation_function="gelu")).eval()
    for name, parameter in theirs.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3)
        if name.endswith(".bias") and not bias:
            torch.nn.init.zeros_(parameter)
    state: dict[str, Tensor] = {}
    for name, tensor in theirs.state_dict().items():
        if bias or not name.endswith(".bias"):
            linear = tensor.dim() == 2 and ".h." in name
            state[("_orig_mod." if compiled else "") + name] = (tensor.T if linear else tensor).clone()
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.95)}]}
    config = {"dataset": "openwebtext", "compile": compiled, "learning_rate": 6e-4}
    best = {"iter_num": 3, "best_val_loss": torch.tensor(2.5)}
    return {
        "model": state,
        "optimizer": optimizer,
        "model_args": sizes | {"bias": bias},
        "config": config,
        **best,
    }, theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
@torch.no_grad()
def test_a_checkpoint_gives_the_logits_of_the_same_model(
    transformers: Any, tmp_path: Path, bias: bool, compiled: bool
) -> None:
    plain, theirs = nanogpt(transformers, bias=bias, compiled=compiled)
    torch.save(plain, tmp_path / "ckpt.pt")
    ours = read_checkpoint(tmp_path / "ckpt.pt")
    assert (ours.config.activation, ours.config.tied, ours.config.dropout) == ("gelu", True, 0.1)
    tokens, logits = torch.randint(17, (2, 11)), theirs(torch.arange(11)[None]).logits
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5 * logits.abs().max().item())


@torch.no_grad()
def test_before_the_option_bias_gelu_had_its_tanh_form(transformers: Any, tmp_path: Path) -> None:
    plain, _ = nanogpt(transformers)
    del plain["model_args"]["bias"]
    torch.save(plain, tmp_path / "ckpt.pt")
    assert read_checkpoint(tmp_path / "ckpt.pt").config.activation_name == "gelu_tanh"


def test_a_checkpoint_beside_a_vocabulary_is_opened_converted_and_generated_from(
    transformers: Any, tmp_path: Path, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(shared_data / "vocab" / "gpt2", out)
    torch.save(nanogpt(transformers, vocab_size=50304)[0], out / "ckpt.pt")
    for path in (out, out / "ckpt.pt"):
        assert is_nanogpt(path)
        model, tokenizer, _ = open_model(f"hf:{path}")
        assert (model.config.n_vocab, tokenizer.n_vocab) == (50304, 50257)
    assert main(["convert", str(out / "ckpt.pt"), str(tmp_path / "run")]) == 0
    assert main(["generate", str(tmp_path / "run"), "The cat", "--n_tokens", "3", "--json"]) == 0
    assert "The cat" in capsys.readouterr().out
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "gpt2")]) == 0
    back, _, _ = open_model(f"hf:{tmp_path / 'gpt2'}")
    tokens = torch.arange(7)[None]
    assert torch.equal(back(tokens), model(tokens))


def test_without_a_vocabulary_what_is_needed_is_said(transformers: Any, tmp_path: Path) -> None:
    torch.save(nanogpt(transformers)[0], tmp_path / "ckpt.pt")
    (tmp_path / "meta.pkl").touch()
    with pytest.raises(BadFile, match="copy GPT-2's vocabulary there") as caught:
        open_model(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


Change = Callable[[dict[str, Any]], Any]
BROKEN: dict[str, tuple[Change, str]] = {
    "no model": (lambda plain: plain.pop("model"), "no checkpoint of nanoGPT or minGPT: it lacks model and"),
    "no sizes": (lambda plain: plain.pop("model_args"), "no checkpoint of nanoGPT"),
    "no heads": (lambda plain: plain["model_args"].pop("n_head"), "n_head is 0, must be a whole number"),
    "heads that do not divide": (lambda plain: plain["model_args"].update(n_head=5), "not a multiple of n_heads 5"),
    "another context": (
        lambda plain: plain["model_args"].update(block_size=14),
        "block_size 14, but the weights have 13",
    ),
    "more layers": (lambda plain: plain["model_args"].update(n_layer=9), "n_layer 9, but the weights have 2"),
    "dropout of words": (lambda plain: plain["model_args"].update(dropout="some"), "dropout is 'some'"),
    "a model of words": (lambda plain: plain["model"].update(note="x"), "note is no ordinary tensor"),
    "a NaN": (
        lambda plain: plain["model"].update({"transformer.ln_f.bias": torch.full((24,), float("nan"))}),
        r"ln_f\.bias holds numbers that are not finite",
    ),
    "a lost tensor": (lambda plain: plain["model"].pop("transformer.h.1.mlp.c_fc.weight"), r"h\.1\.mlp\.c_fc"),
    "an unknown tensor": (
        lambda plain: plain["model"].update({"transformer.h.0.attn.rotary": torch.ones(3)}),
        r"h\.0\.attn\.rotary",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_checkpoint_is_refused_in_one_line(transformers: Any, tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    plain, _ = nanogpt(transformers)
    change(plain)
    torch.save(plain, tmp_path / "ckpt.pt")
    with pytest.raises(FewshotError, match=message) as caught:
        read_checkpoint(tmp_path / "ckpt.pt")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_with_code_or_cut_short_is_refused(tmp_path: Path) -> None:
    torch.save({"model": print, "model_args": {}}, tmp_path / "ckpt.pt")
    with pytest.raises(BadFile, match="holds pickled code, which is never run"):
        read_checkpoint(tmp_path / "ckpt.pt")
    (tmp_path / "ckpt.pt").write_bytes((tmp_path / "ckpt.pt").read_bytes()[:100])
    with pytest.raises(BadFile, match="damaged or cut short"):
        read_checkpoint(tmp_path / "ckpt.pt")


def test_other_folders_hold_no_checkpoint(tmp_path: Path) -> None:
    assert reader_of(tmp_path / "none.pt") is None
    (tmp_path / "weights.bin").touch()
    assert not is_nanogpt(tmp_path)


@torch.no_grad()
def test_a_trained_model_of_mingpt_is_read_from_its_folder(shared_data: Path, tmp_path: Path) -> None:
    golden = shared_data / "golden"
    weights, partials = (np.load(golden / f"mingpt_sort_{name}.npz") for name in ("weights", "partials"))
    torch.save({name: torch.from_numpy(weights[name]) for name in weights.files}, tmp_path / "model.pt")
    n_heads = json.loads((golden / "mingpt_sort_config.json").read_text())["n_head"]
    config = {"system": {}, "model": {"model_type": "gpt-nano", "n_head": None, "n_layer": None, "dropout": 0.1}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert n_heads == MINGPT_HEADS["gpt-nano"]
    assert is_nanogpt(tmp_path)
    assert reader_of(tmp_path) is FORMATS["nanogpt"].read  # although there is a config.json
    model = read_checkpoint(tmp_path / "model.pt")
    tokens, logits = (torch.from_numpy(partials[name]) for name in ("idx", "lm_head"))
    torch.testing.assert_close(model(tokens.long()), logits, rtol=0, atol=1e-4)
    for wrong, reason in (({"n_head": 5}, "n_head|heads"), ({"model_type": "other"}, "n_head is 0")):
        (tmp_path / "config.json").write_text(json.dumps({"model": config["model"] | wrong}))
        with pytest.raises(FewshotError, match=reason):
            read_checkpoint(tmp_path / "model.pt")
    (tmp_path / "config.json").unlink()
    with pytest.raises(BadFile, match=r"config\.json"):
        read_checkpoint(tmp_path / "model.pt")
