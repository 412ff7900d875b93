"""What is written as GGUF: its keys and tensors, and what llama.cpp computes from it."""

from __future__ import annotations

import json
import pydoc_data.topics
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from models import exported

from fewshot.base.errors import BadFile, BadValue, ExportDiffers
from fewshot.checkpoint.export import NOTE, export
from fewshot.checkpoint.formats.gguf import FILE, TYPES, check_is_gguf, read_gguf, write_gguf
from fewshot.checkpoint.load import load_run
from fewshot.checkpoint.runtimes.llama_cpp import ask, check_with_llama_cpp
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bpe import train_bpe
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import Chars
from fewshot.tokenizer.vocab import Tokenizer
from fewshot.train.run import start

SHAPE: dict[str, Any] = {"n_layers": 2, "d_model": 64, "n_heads": 4, "n_ctx": 48}
TOKENIZERS: dict[str, Tokenizer] = {
    "bpe": train_bpe(["the cat sat on the mat, and the dog on the log. It's 1234 " * 30], n_vocab=300),
    "bytes": Bytes(),
    "chars": Chars("abcdefghij klmnop\nqrstuvwxyz.\u00e9"),
}


def model_for(tokenizer: Tokenizer, **changed: Any) -> GPT:
    """A model that is far from its first weights, with logits of the size of a trained one's."""
    model = GPT(GPTConfig(**{"n_vocab": tokenizer.n_vocab} | SHAPE | changed), seed=1).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter += 0.1 * torch.randn_like(parameter)
            else:
                parameter.copy_(torch.randn_like(parameter) * (0.3 if name in ("wte.weight", "wpe.weight") else 0.15))
    return model


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("changed", [{}, {"tied": False, "d_ff": 96, "n_vocab": 320}], ids=["tied", "untied"])
def test_llama_cpp_computes_the_same(tmp_path: Path, kind: str, changed: dict[str, Any]) -> None:
    pytest.importorskip("xllamacpp")
    tokenizer = TOKENIZERS[kind]
    checked = exported(tmp_path / "out", model_for(tokenizer, **changed), tokenizer, written_as="gguf")
    assert checked.by.startswith("llama.cpp")
    assert {1, 46} <= {*checked.lengths}
    assert checked.greedy_tokens == 129
    assert checked.texts == (10 if kind != "chars" else 3)
    assert 0 < checked.largest_difference < 2e-2
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Modelfile", NOTE, FILE]
    assert "FROM ./model.gguf" in (tmp_path / "out" / "Modelfile").read_text()


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_smaller_types_say_by_how_much_they_differ(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("xllamacpp")
    tokenizer, sizes = TOKENIZERS["bpe"], {}
    for written_as in ("gguf", f"gguf_{kind}"):
        export(tmp_path / written_as, model_for(tokenizer), tokenizer, written_as=written_as, source={})
        sizes[written_as] = (tmp_path / written_as / FILE).stat().st_size
    note = json.loads((tmp_path / f"gguf_{kind}" / NOTE).read_text())["checked"]
    assert "log-probabilities in nats (their mean by" in note["of"]
    assert sizes[f"gguf_{kind}"] < sizes["gguf"] * 0.8


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned a little of a text."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "text.txt").write_text("".join(pydoc_data.topics.topics.values()), encoding="utf-8")
    given = {
        "text": str(folder / "text.txt"),
        "data": {"tokenizer": "bpe", "n_vocab": 320},
        "model": {"n_layers": 2, "d_model": 64, "n_heads": 4, "n_ctx": 32, "pattern": "dense"},
        "n_tokens": 60_000,
        "schedule": {"batch_tokens": 1024},
        "optimizer": {"name": "normuon"},
        "loop": {"compile": "never"},
    }
    for _ in start(given, folder / "run", say=lambda line: None):
        pass
    return folder / "run"


@pytest.mark.slow
@torch.no_grad()
def test_a_smaller_type_changes_the_loss_on_a_text_by_less_than_is_promised(tmp_path: Path, trained: Path) -> None:
    """A token's log-probability after up to 31 others, by llama.cpp with each type, beside the model's own."""
    pytest.importorskip("xllamacpp")
    model, tokenizer, _ = load_run(trained)
    ids = tokenizer.encode(pydoc_data.topics.topics["with"])[:300]
    places = range(1, len(ids))
    prompts = [ids[max(0, place - 30) : place] for place in places]
    ours = [model(torch.tensor([prompt]))[0, -1].log_softmax(-1) for prompt in prompts]
    losses: dict[str, list[float]] = {"ours": [], "f32": [], "f16": [], "q8_0": []}
    answers: dict[str, list[dict[int, float]]] = {}
    for kind in ("f32", "f16", "q8_0"):
        write_gguf(tmp_path / kind, model, tokenizer, kind=kind)  # type: ignore[arg-type]
        written = ask(
            tmp_path / kind, n_ctx=32, prompts=[(prompt, 1) for prompt in prompts], likeliest=tokenizer.n_vocab
        )["written"]
        answers[kind] = [{token["id"]: token["logprob"] for token in row["likeliest"]} for row in written]
    for number, place in enumerate(places):
        if all(ids[place] in rows[number] for rows in answers.values()):  # within a character it gives none
            losses["ours"].append(-ours[number][ids[place]].item())
            for kind, rows in answers.items():
                losses[kind].append(-rows[number][ids[place]])
    means = {kind: sum(values) / len(values) for kind, values in losses.items()}
    assert len(losses["ours"]) > 200
    assert means["ours"] < 5.0  # it has learned something
    assert abs(means["f32"] - means["ours"]) < 2e-3
    assert abs(means["f16"] - means["ours"]) < 0.01
    assert abs(means["q8_0"] - means["ours"]) < 0.05


@pytest.mark.parametrize("tied", [True, False])
def test_keys_and_tensors_are_read_back(tmp_path: Path, tied: bool) -> None:
    gguf = pytest.importorskip("gguf")
    tokenizer = TOKENIZERS["bpe"]
    model = model_for(tokenizer, tied=tied, n_vocab=310)
    write_gguf(tmp_path, model, tokenizer, kind="f32")
    read = gguf.GGUFReader(tmp_path / FILE)
    keys = {name: field.contents() for name, field in read.fields.items()}
    assert keys["general.architecture"] == keys["tokenizer.ggml.model"] == "gpt2"
    expected = {"block_count": 2, "context_length": 48, "embedding_length": 64, "feed_forward_length": 256}
    assert {name: keys[f"gpt2.{name}"] for name in expected} == expected
    assert keys["gpt2.attention.head_count"] == 4
    assert len(keys["tokenizer.ggml.tokens"]) == len(keys["tokenizer.ggml.token_type"]) == 310
    assert keys["tokenizer.ggml.tokens"][tokenizer.eot] == "<|endoftext|>"
    assert keys["tokenizer.ggml.eos_token_id"] == tokenizer.eot
    tensors = {tensor.name: torch.tensor(tensor.data) for tensor in read.tensors}
    assert len(tensors) == len(model.state_dict()) == 28 + (not tied)
    assert torch.equal(tensors["blk.1.ffn_up.weight"], model.state_dict()["h.1.mlp.c_fc.weight"])
    assert torch.equal(tensors["blk.0.attn_qkv.bias"], model.state_dict()["h.0.attn.c_attn.bias"])
    assert torch.equal(tensors["token_embd.weight"], model.state_dict()["wte.weight"])


@pytest.mark.parametrize("kind", TOKENIZERS)
@torch.no_grad()
def test_it_comes_back_with_its_tokenizer(tmp_path: Path, kind: str) -> None:
    tokenizer = TOKENIZERS[kind]
    model = model_for(tokenizer, tied=False, n_vocab=310, d_head=10)
    write_gguf(tmp_path, model, tokenizer, kind="f32")
    back, its_tokenizer = read_gguf(tmp_path)
    tokens = torch.randint(tokenizer.n_vocab, (2, 48))
    torch.testing.assert_close(back(tokens), model(tokens), rtol=0, atol=1e-5)
    assert its_tokenizer.fingerprint == tokenizer.fingerprint or kind == "bytes"
    text = "a cat on the mat.\n"
    assert (its_tokenizer.encode(text), its_tokenizer.eot) == (tokenizer.encode(text), tokenizer.eot)
    write_gguf(tmp_path / "half", model, tokenizer, kind="f16")
    torch.testing.assert_close(read_gguf(tmp_path / "half" / FILE)[0](tokens), model(tokens), rtol=0, atol=0.05)


def test_other_files_and_types_are_refused(tmp_path: Path) -> None:
    write_gguf(tmp_path, model_for(TOKENIZERS["bpe"]), TOKENIZERS["bpe"], kind="q8_0")
    with pytest.raises(BadValue, match="Q8_0; F32 and F16 are read"):
        read_gguf(tmp_path)
    data = (tmp_path / FILE).read_bytes()
    for broken in (data[: len(data) // 2], data[:200], b"GGUF", b"", b"\0" * 3000):
        (tmp_path / FILE).write_bytes(broken)
        with pytest.raises(BadFile, match="damaged or cut short"):
            read_gguf(tmp_path)
    (tmp_path / FILE).write_bytes(data.replace(b"gpt2", b"gpt9", 1))
    with pytest.raises(BadValue, match="architecture 'gpt9'"):
        read_gguf(tmp_path)


def test_another_model_and_another_vocabulary_are_noticed(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    tokenizer = TOKENIZERS["bytes"]
    model = model_for(tokenizer)
    write_gguf(tmp_path, model, tokenizer, kind="f32")
    with torch.no_grad():
        model.get_parameter("wpe.weight").copy_(model.get_parameter("wpe.weight").roll(1, dims=0))
    with pytest.raises(ExportDiffers, match="llama"):
        check_with_llama_cpp(tmp_path, model, tokenizer, kind="f32")
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:5000])
    with pytest.raises(ExportDiffers, match="cannot read the export"):
        check_with_llama_cpp(tmp_path, model, tokenizer, kind="f32")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"pattern": "banded(8)"}, "pattern"),
        ({"block": "post-ln"}, "block"),
        ({"activation": "gelu"}, "gelu_tanh"),
    ],
)
def test_what_llama_cpp_does_not_have_is_refused(changed: dict[str, Any], reason: str) -> None:
    check_is_gguf(GPTConfig(**SHAPE, n_vocab=9, pattern="banded(48)"))
    with pytest.raises(BadValue, match=reason):
        check_is_gguf(GPTConfig(**SHAPE, n_vocab=9, **changed))


@pytest.mark.parametrize("count", [200_000, 2**31, 2**60])
def test_a_header_that_says_more_than_the_file_holds_is_refused_at_once(tmp_path: Path, count: int) -> None:
    key, array = b"a", struct.pack("<IIQ", 9, 4, count)  # an array of uint32
    text = struct.pack("<Q", len(key)) + key
    for data in (
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text + array,
        b"GGUF" + struct.pack("<IQQ", 3, count, 0) + text,
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", count),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text + struct.pack("<IIQ", 9, 9, 1) * 3000,
    ):
        (tmp_path / FILE).write_bytes(data)
        with pytest.raises(BadFile, match="damaged or cut short"):
            read_gguf(tmp_path)


def test_the_sign_of_a_blank_in_a_vocabulary_is_refused(tmp_path: Path) -> None:
    tokenizer = Chars("a\u2581")
    with pytest.raises(BadValue, match="takes for a blank"):
        write_gguf(tmp_path, model_for(tokenizer), tokenizer, kind="f32")
    assert not (tmp_path / FILE).exists()


def test_every_type_has_a_row() -> None:
    from fewshot.checkpoint.formats.table import FORMATS

    assert {"gguf", "gguf_f16", "gguf_q8_0"} == {name for name in FORMATS if name.startswith("gguf")}
    assert list(TYPES) == ["f32", "f16", "q8_0"]
