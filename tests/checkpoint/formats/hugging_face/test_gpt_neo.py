from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from models import shaken
from safetensors.torch import load_file, save_file
from torch import Tensor

from fewshot.base.errors import BadValue, FewshotError
from fewshot.checkpoint.formats.hugging_face.gpt_neo import check_is_gpt_neo, read_gpt_neo, write_gpt_neo
from fewshot.checkpoint.formats.table import format_for, open_model
from fewshot.cli.main import main
from fewshot.model.config import ACTIVATIONS, GPTConfig

SHAPE: dict[str, Any] = {"n_layers": 4, "d_model": 48, "n_heads": 4, "n_ctx": 40, "n_vocab": 64}


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5 * expected.abs().max().item())


KINDS: list[dict[str, Any]] = [
    {"pattern": "alternate(dense, banded(8))"},
    {"pattern": "alternate(dense, banded(8))", "tied": False, "d_ff": 100, "dropout": 0.1},
    {"pattern": "banded(1)"},
    {"pattern": "perhead(banded(7), banded(7) | banded(3))", "positions": "rows(5)"},
    {"pattern": "alternate(dense, banded(8))", "d_head": 10, "d_qk": 5},
    {"pattern": "alternate(banded(3), dense, banded(40))"},  # the last is dense
    {"block": "sparse-transformer", "tied": False, "pattern": "alternate(banded(5), strided(1))"},
    *({"activation": name, "pattern": "banded(7)"} for name in ACTIVATIONS),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changed", KINDS, ids=str)
@torch.no_grad()
def test_a_banded_model_is_a_stock_gpt_neo_exactly(transformers: Any, tmp_path: Path, changed: dict[str, Any]) -> None:
    """At lengths below, at and beyond the window, whole and through the cache, and the text that it writes."""
    ours = shaken(**SHAPE | changed)
    write_gpt_neo(tmp_path / "neo", ours, eot=3)
    theirs = transformers.GPTNeoForCausalLM.from_pretrained(tmp_path / "neo").eval()
    assert (theirs.config.eos_token_id, theirs.config.resid_dropout) == (3, ours.config.dropout)
    generator = torch.Generator().manual_seed(2)
    for length in (1, 7, 8, 9, 16, 40):
        tokens = torch.randint(64, (3, length), generator=generator)
        expected = ours(tokens)
        close(theirs(tokens).logits, expected)
        cache, parts = None, []
        for chunk in tokens.split(5, dim=1):
            answer = theirs(chunk, past_key_values=cache, use_cache=True)
            cache = answer.past_key_values
            parts.append(answer.logits)
        close(torch.cat(parts, dim=1), expected)
    back = read_gpt_neo(tmp_path / "neo")
    close(back(tokens), expected)
    written = tokens[:1, :4]
    greedy = theirs.generate(written, max_new_tokens=36, do_sample=False, eos_token_id=None, pad_token_id=3)
    for _ in range(36):
        written = torch.cat([written, ours(written)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(greedy, written)


@torch.no_grad()
def test_another_window_or_another_scale_would_be_seen(transformers: Any, tmp_path: Path) -> None:
    """What the tolerance above can tell."""
    ours = shaken(**SHAPE, pattern="alternate(dense, banded(8))")
    write_gpt_neo(tmp_path / "neo", ours, eot=3)
    plain = json.loads((tmp_path / "neo" / "config.json").read_text())
    tokens = torch.arange(40)[None]
    for wrong in ({"window_size": 7}, {"window_size": 9}, {"activation_function": "gelu"}):
        (tmp_path / "neo" / "config.json").write_text(json.dumps(plain | wrong))
        with pytest.raises(AssertionError):
            close(read_gpt_neo(tmp_path / "neo")(tokens), ours(tokens))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"tie_word_embeddings": False},
        {"intermediate_size": 100, "activation_function": "relu"},
        {"attention_types": [[["global"], 1], [["local"], 3]], "window_size": 5},
    ],
    ids=str,
)
@torch.no_grad()
def test_a_gpt_neo_of_transformers_gives_the_same_logits(
    transformers: Any, tmp_path: Path, changed: dict[str, Any]
) -> None:
    shape = {"hidden_size": 48, "num_layers": 4, "num_heads": 4, "max_position_embeddings": 40, "vocab_size": 64}
    types = {"attention_types": [[["global", "local"], 2]], "window_size": 8}
    torch.manual_seed(0)
    theirs = transformers.GPTNeoForCausalLM(transformers.GPTNeoConfig(**shape | types | changed)).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    theirs.save_pretrained(tmp_path / "neo")
    ours = read_gpt_neo(tmp_path / "neo")
    for length in (1, 5, 8, 9, 40):
        tokens = torch.randint(64, (3, length))
        close(ours(tokens), theirs(tokens).logits)
    expected = "alternate(dense, banded(8))" if "window_size" not in changed else ours.config.pattern
    assert ours.config.pattern == expected
    write_gpt_neo(tmp_path / "again", ours, eot=3)
    close(read_gpt_neo(tmp_path / "again")(tokens), ours(tokens))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pattern": "alternate(banded(4), banded(8))"}, "pattern"),
        ({"pattern": "strided(4)"}, "pattern"),
        ({"pattern": "perhead(dense, banded(4))"}, "pattern"),
        ({"pattern": "perhead(banded(4), banded(8))"}, "pattern"),
        ({"block": "post-ln"}, "block"),
        ({"d_head": 13}, "d_head"),
    ],
    ids=str,
)
def test_what_gpt_neo_cannot_express_is_refused(changed: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadValue, match=rf"GPT-Neo has .*this model has {reason}"):
        check_is_gpt_neo(GPTConfig(**SHAPE | changed))


@pytest.mark.parametrize("gain", [0.0, 1e-12, -1e-6])
@pytest.mark.parametrize("shift", [0.0, -1.0, 0.3])
@torch.no_grad()
def test_a_gain_of_next_to_nothing_is_no_hindrance(tmp_path: Path, gain: float, shift: float) -> None:
    model = shaken(**SHAPE, pattern="banded(8)")
    model.h[1].ln_1.weight[5], model.h[1].ln_1.bias[5] = gain, shift
    write_gpt_neo(tmp_path / "neo", model, eot=3)
    tokens = torch.arange(40)[None]
    close(read_gpt_neo(tmp_path / "neo")(tokens), model(tokens))


def test_what_would_not_be_exact_is_not_written(tmp_path: Path, set_in_module: Any) -> None:
    set_in_module(write_gpt_neo, "NOT_CLOSE", 1e-12)
    with pytest.raises(BadValue, match=r"do not fit into the matrices of h\.0\.attn"):
        write_gpt_neo(tmp_path / "neo", shaken(**SHAPE, pattern="banded(8)"), eot=3)
    assert not (tmp_path / "neo").exists()


def test_the_first_class_that_can_hold_a_model_is_written() -> None:
    assert format_for(GPTConfig(**SHAPE), None) == "gpt2"
    assert format_for(GPTConfig(**SHAPE), "gpt_neo") == "gpt_neo"
    assert format_for(GPTConfig(**SHAPE, pattern="banded(8)"), None) == "gpt_neo"
    with pytest.raises(BadValue, match="GPT-2 has dense"):
        format_for(GPTConfig(**SHAPE, pattern="banded(8)"), "gpt2")


Change = Callable[[dict[str, Any], dict[str, Tensor]], Any]
BROKEN: dict[str, tuple[Change, str]] = {
    "other kinds": (lambda plain, state: plain.update(attention_types=[[["odd"], 4]]), "attention_types is"),
    "too few layers": (lambda plain, state: plain.update(attention_types=[[["global"], 3]]), "attention_types is"),
    "a thousand million layers": (
        lambda plain, state: plain.update(attention_types=[[["global"], 10**12]], num_layers=10**12),
        r"attention_types is \[\[\['global'\], 1000000000000\]\]",
    ),
    "another number of layers": (
        lambda plain, state: plain.update(num_layers=7),
        "num_layers 7, but the weights have 4",
    ),
    "no list": (lambda plain, state: plain.update(attention_types=7), "attention_types is 7"),
    "no window": (lambda plain, state: plain.update(window_size=0), "window_size is 0, must be a whole number"),
    "no heads": (lambda plain, state: plain.pop("num_heads"), "num_heads is 0, must be a whole number"),
    "heads that do not divide": (lambda plain, state: plain.update(num_heads=5), "not a multiple of n_heads 5"),
    "another width": (lambda plain, state: plain.update(hidden_size=64), "hidden_size 64, but the weights have 48"),
    "a lost matrix": (
        lambda plain, state: state.pop("transformer.h.2.attn.attention.k_proj.weight"),
        r"h\.2\.attn\.attention\.k_proj\.weight is missing",
    ),
    "a matrix of another width": (
        lambda plain, state: state.update({"transformer.h.2.attn.attention.k_proj.weight": torch.ones(48, 47)}),
        r"not GPT-Neo weights: h\.2",
    ),
    "an unknown tensor": (
        lambda plain, state: state.update({"transformer.h.0.attn.rotary": torch.ones(3)}),
        r"h\.0\.attn\.rotary",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_folder_whose_parts_disagree_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    change, message = BROKEN[name]
    write_gpt_neo(tmp_path, shaken(**SHAPE, pattern="alternate(dense, banded(8))"), eot=3)
    plain, state = json.loads((tmp_path / "config.json").read_text()), load_file(tmp_path / "model.safetensors")
    change(plain, state)
    (tmp_path / "config.json").write_text(json.dumps(plain))
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(FewshotError, match=message) as caught:
        read_gpt_neo(tmp_path)
    assert "\n" not in str(caught.value)


def test_old_masks_are_no_parameters(tmp_path: Path) -> None:
    ours = shaken(**SHAPE, pattern="alternate(dense, banded(8))")
    write_gpt_neo(tmp_path, ours, eot=3)
    state = load_file(tmp_path / "model.safetensors")
    state["transformer.h.0.attn.attention.bias"] = torch.ones(1, 1, 40, 40)
    state["transformer.h.0.attn.attention.masked_bias"] = torch.tensor(-1e9)
    save_file(state, tmp_path / "model.safetensors")
    close(read_gpt_neo(tmp_path)(torch.arange(40)[None]), ours(torch.arange(40)[None]))


def test_a_run_with_a_band_is_converted_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.txt").write_text("The cat sat on the mat. " * 200)
    words = ["train", "--text", str(tmp_path / "text.txt"), "--out", str(tmp_path / "run"), "--n_tokens", "2048"]
    words += ["--data.tokenizer", "bytes", "--model.n_layers", "2", "--model.d_model", "16", "--model.n_heads", "2"]
    words += ["--model.n_ctx", "32", "--model.pattern", "alternate(dense, banded(4))", "--loop.compile", "never"]
    assert main(words) == 0
    assert main(["convert", str(tmp_path / "run"), str(tmp_path / "neo")]) == 0
    assert json.loads((tmp_path / "neo" / "config.json").read_text())["model_type"] == "gpt_neo"
    assert main(["convert", str(tmp_path / "neo"), str(tmp_path / "back")]) == 0
    ours, theirs = (open_model(name)[0] for name in (str(tmp_path / "run"), f"hf:{tmp_path / 'neo'}"))
    close(theirs(torch.arange(32)[None]), ours(torch.arange(32)[None]))
    assert theirs.config.pattern == "alternate(dense, banded(4))"
    capsys.readouterr()
    for more, message in (
        (["--as", "gpt2"], "GPT-2 has dense"),
        (["--as", "gpt3"], "allowed: code, gguf, gguf_f16, gguf_q8_0, gpt2, gpt_neo"),
    ):
        assert main(["convert", str(tmp_path / "run"), str(tmp_path / "no"), *more]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert message in said
    assert main(["convert", str(tmp_path / "neo"), str(tmp_path / "no"), "--as", "gpt2"]) == 2
    assert "--as is for a run" in capsys.readouterr().err
