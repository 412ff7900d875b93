"""Folders of others: a model is measured as itself, or refused in one line that says what is wrong with it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewshot.base.errors import BadFile, BadValue, FewshotError
from fewshot.bench.harness import save_small_model
from fewshot.evaluate.load import load

transformers = pytest.importorskip("transformers")

WEIGHTS, BIN = "model.safetensors", "pytorch_model.bin"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n"


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "good"
    save_small_model(folder, ["some words to learn from, and more of the words " * 20], n_ctx=64)
    return folder


@pytest.fixture
def copy(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def change_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    save_file(change(dict(tensors)), folder / WEIGHTS, metadata={"format": "pt"})


def without(*parts):
    return lambda tensors: {name: value for name, value in tensors.items() if not any(part in name for part in parts)}


def configure(folder, **values):
    plain = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps(plain))


def split(folder, index=None):
    """The weights in two parts; `index` changes what the index says."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for part, held in parts.items():
        save_file({name: tensors[name] for name in held}, folder / part, metadata={"format": "pt"})
    where = {name: part for part, held in parts.items() for name in held}
    plain = {"metadata": {}, "weight_map": where if index is None else index(where)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(plain))


def as_bin(folder, value=None):
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors if value is None else value, folder / BIN)


def rewrite(name, change):
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def remove(*names):
    return lambda folder: [(folder / name).unlink() for name in names]


class Code:
    """Its pickle runs a command."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def lose_part(folder):
    split(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def add_words(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<user>", "<bot>"])
    tokenizer.save_pretrained(folder)


def put_adapter(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "gpt2"}')


def only_adapter(folder):
    put_adapter(folder)
    remove("config.json", WEIGHTS)(folder)


def only_gguf(folder):
    remove("config.json", WEIGHTS)(folder)
    (folder / "model.Q4.gguf").write_bytes(b"GGUF" + bytes(60))


def own_code(folder):
    configure(folder, auto_map={"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}, model_type="mine")
    (folder / "mine.py").write_text("import pathlib; pathlib.Path('ran').touch()")


def own_tokenizer_code(folder):
    where = folder / "tokenizer_config.json"
    plain = json.loads(where.read_text()) | {"auto_map": {"AutoTokenizer": ["mine.T", None]}, "tokenizer_class": "T"}
    where.write_text(json.dumps(plain))
    (folder / "mine.py").write_text("import pathlib; pathlib.Path('ran').touch()")


def become_run(folder):
    remove("config.json")(folder)
    (folder / "config.yaml").write_text("model: {}\n")


NOT_THE_MODEL = {
    "a layer is missing": (lambda f: change_tensors(f, without(".h.1.")), r"weights lack .*h\.1\..*random"),
    "one bias is missing": (lambda f: change_tensors(f, without("ln_f.bias")), r"weights lack .*ln_f\.bias, which"),
    "no embeddings": (lambda f: change_tensors(f, without("wte")), r"weights lack .*wte\.weight"),
    "an untied head is missing": (lambda f: configure(f, tie_word_embeddings=False), r"lack lm_head\.weight, which"),
    "a tied head of its own": (
        lambda f: change_tensors(f, lambda t: t | {"lm_head.weight": t["transformer.wte.weight"] + 1}),
        r"hold lm_head\.weight with values of its own",
    ),
    "one layer too many": (lambda f: configure(f, n_layer=1), r"hold .*h\.1\..* and 7 more, for which its config"),
    "one layer too few": (lambda f: configure(f, n_layer=3), r"lack .*h\.2\."),
    "foreign tensors": (lambda f: change_tensors(f, lambda t: t | {"score.weight": torch.ones(2, 32)}), "hold .*score"),
    "other names": (
        lambda f: change_tensors(f, lambda t: {k.replace("attn", "attention"): v for k, v in t.items()}),
        "lack .*attn.* hold .*attention",
    ),
    "another vocabulary": (lambda f: configure(f, vocab_size=500), r"wte\.weight is \(286, 32\), not \(500, 32\)"),
    "another width": (lambda f: configure(f, n_embd=64), r"other sizes than its config\.json says: .* and \d+ more"),
    "a longer context": (lambda f: configure(f, n_positions=99), r"wpe\.weight is \(64, 32\), not \(99, 32\)"),
    "numbers of NaN": (
        lambda f: change_tensors(f, lambda t: {k: v * float("nan") for k, v in t.items()}),
        "not finite",
    ),
    "float16 that overflows": (
        lambda f: (
            change_tensors(f, lambda t: {k: (v * 3e3).half() if v.dim() > 1 else v.half() for k, v in t.items()})
            or configure(f, dtype="float16")
        ),
        "not finite.*float16",
    ),
    "words that the model does not know": (add_words, "tokenizer has 288 tokens, the model knows 286.*not resized"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "holds no tokenizer: save it there"),
    "cut weights": (rewrite(WEIGHTS, lambda data: data[:-100]), rf"{WEIGHTS} is damaged or cut short: download"),
    "cut in the header": (rewrite(WEIGHTS, lambda data: data[:100]), rf"{WEIGHTS} is damaged or cut short"),
    "empty weights": (rewrite(WEIGHTS, lambda data: b""), rf"{WEIGHTS} is damaged or cut short"),
    "a page in the place of weights": (rewrite(WEIGHTS, lambda data: b"<html>" * 50), "damaged or cut short"),
    "a pointer": (rewrite(WEIGHTS, lambda data: POINTER), r"is a pointer of git-lfs.*git lfs pull"),
    "a pointer in the older format": (
        lambda f: (as_bin(f), rewrite(BIN, lambda data: POINTER)(f)),
        "is a pointer of git-lfs",
    ),
    "cut in the older format": (
        lambda f: (as_bin(f), rewrite(BIN, lambda data: data[:-900])(f)),
        "damaged|corrupt",
    ),
    "code in the weights": (lambda f: as_bin(f, {"wte": Code()}), "holds pickled code, which is never run"),
    "a whole model in the weights": (lambda f: as_bin(f, torch.nn.Linear(2, 2)), "pickled code, which is never run"),
    "a lost part": (lose_part, r"model-00002-of-00002\.safetensors is missing"),
    "a part elsewhere": (
        lambda f: split(f, lambda w: dict.fromkeys(w, "../good/model.safetensors")),
        "only files beside",
    ),
    "an absolute part": (
        lambda f: split(f, lambda w: dict.fromkeys(w, "/etc/passwd")),
        "only files beside it are read",
    ),
    "an index of nothing": (lambda f: split(f, lambda w: []), "lacks weight_map"),
    "no weights": (remove(WEIGHTS), "transformers cannot load"),
    "bitsandbytes": (
        lambda f: configure(f, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
        "transformers cannot load .*bitsandbytes",
    ),
    "GPTQ": (
        lambda f: configure(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        "transformers cannot load",
    ),
    "an unknown kind": (lambda f: configure(f, model_type="mind"), "transformers cannot load .*mind"),
    "a size that is a word": (lambda f: configure(f, n_head="four"), "cannot load .*n_head.* expected int"),
    "heads that do not divide": (lambda f: configure(f, n_head=5), "transformers cannot load"),
    "a damaged configuration": (rewrite("config.json", lambda data: data[:-20]), r"config\.json is not JSON"),
    "a configuration of brackets": (rewrite("config.json", lambda data: b"[" * 100_000), "nested too deeply"),
    "a list as configuration": (rewrite("config.json", lambda data: b"[]"), "holds no names and values"),
    "an adapter": (only_adapter, "holds an adapter: merge it"),
    "an adapter beside a model": (put_adapter, "holds an adapter: merge it"),
    "GGUF": (only_gguf, "name one of its GGUF files"),
    "code of its own": (own_code, "brings its own code, which is never run"),
    "code of its own for the tokenizer": (own_tokenizer_code, "brings its own code, which is never run"),
    "a run of ours": (become_run, "is a run of fewshot: leave out the 'hf:'"),
    "no configuration": (remove("config.json"), r"holds no config\.json"),
    "a damaged tokenizer": (rewrite("tokenizer.json", lambda data: data[:-40]), "transformers cannot load"),
    "only a pickle": (
        lambda f: (as_bin(f), (f / BIN).write_bytes(pickle.dumps([1, 2]))),
        "damaged|transformers cannot",
    ),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", NOT_THE_MODEL)
def test_what_is_not_that_model_is_refused_in_one_line(name, copy, monkeypatch, capfd):
    change, message = NOT_THE_MODEL[name]
    change(copy)
    monkeypatch.chdir(copy)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question on standard input"))
    with pytest.raises(FewshotError, match=message) as caught:
        load(f"hf:{copy}")
    assert "\n" not in str(caught.value)
    assert "huggingface.co" not in str(caught.value)
    assert not (copy / "ran").exists()
    assert capfd.readouterr().out == ""


def identity(folder) -> str:
    return load(f"hf:{folder}").weights


SAME = {
    "a touched file": lambda f: os.utime(f / "config.json", (1, 1)),
    "a new README": lambda f: (f / "README.md").write_text("changed"),
    "an index of parts": split,
    "the older format": as_bin,
    "masks of old files": lambda f: change_tensors(
        f, lambda t: t | {"transformer.h.0.attn.bias": torch.ones(1, 1, 9, 9)}
    ),
    "tables of old files": lambda f: change_tensors(
        f,
        lambda t: (
            t
            | {f"transformer.h.0.attn.{name}": torch.ones(3) for name in ("masked_bias", "causal_mask", "position_ids")}
            | {"transformer.h.1.rotary_emb.inv_freq": torch.ones(3)}
        ),
    ),
    "another version of the library": lambda f: configure(f, transformers_version="4.1.0"),
    "another key order": lambda f: (f / "config.json").write_text(
        json.dumps(dict(reversed(json.loads((f / "config.json").read_text()).items())))
    ),
    "names without their first part": lambda f: change_tensors(
        f, lambda t: {k.removeprefix("transformer."): v for k, v in t.items()}
    ),
    "a tied head that is there too": lambda f: change_tensors(
        f, lambda t: t | {"lm_head.weight": t["transformer.wte.weight"].clone()}
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_the_same_model_has_one_identity_however_it_lies(name, good, copy):
    SAME[name](copy)
    assert identity(copy) == identity(good)


def test_every_spelling_of_a_path_is_one_identity(good, monkeypatch):
    monkeypatch.chdir(good.parent)
    monkeypatch.setenv("HOME", str(good.parent))
    spellings = [good, "good", "good/", "./good", "../" + good.parent.name + "/good", "~/good"]
    assert len({identity(spelling) for spelling in spellings}) == 1


def reorder_tokenizer(folder):
    plain = json.loads((folder / "tokenizer.json").read_text())
    vocab = plain["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (folder / "tokenizer.json").write_text(json.dumps(plain))


def nudge(tensors):
    tensors["transformer.ln_f.bias"] = tensors["transformer.ln_f.bias"] + 1e-3
    return tensors


OTHER = {
    "one tensor": lambda f: change_tensors(f, nudge),
    "heads": lambda f: configure(f, n_head=4),
    "the activation": lambda f: configure(f, activation_function="relu"),
    "the norm's epsilon": lambda f: configure(f, layer_norm_epsilon=1e-3),
    "the tokenizer": reorder_tokenizer,
}


@pytest.mark.parametrize("name", OTHER)
def test_another_model_has_another_identity(name, good, copy):
    OTHER[name](copy)
    assert identity(copy) != identity(good)


@pytest.mark.parametrize("name", ["absent", "absent/", "./absent", "../absent", "~/absent", "a/b/c", "two words"])
def test_a_folder_that_is_not_there_is_said_so(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / name) if name in ("absent", "absent/") else name
    with pytest.raises(BadFile, match=r"does not exist|holds no config\.json") as caught:
        load(f"hf:{path}")
    assert "huggingface" not in str(caught.value)


def test_a_name_that_no_hub_gives_is_one_line_without_addresses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def offline(*_, **__):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files.\nCheck your connection.")

    for kind in (transformers.AutoConfig, transformers.AutoModelForCausalLM):
        monkeypatch.setattr(kind, "from_pretrained", offline)
    with pytest.raises(BadFile, match="gpt7 is no folder here, and no model of that name can be loaded") as caught:
        load("hf:gpt7")
    assert "huggingface" not in str(caught.value)


@pytest.mark.parametrize("name", ["hf:", "hf: "])
def test_a_prefix_without_a_path_is_said_so(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadValue, match=r"^give a path after hf:"):
        load(name)


ENCODER_DECODERS = {
    "t5": lambda t: t.T5ForConditionalGeneration(
        t.T5Config(vocab_size=97, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ),
    "bart": lambda t: t.BartForConditionalGeneration(
        t.BartConfig(vocab_size=97, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
                     decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32)
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ENCODER_DECODERS)
def test_an_encoder_decoder_is_called_one(kind, copy):
    for name in (WEIGHTS, "config.json"):
        (copy / name).unlink()
    ENCODER_DECODERS[kind](transformers).save_pretrained(copy)
    with pytest.raises(BadFile) as caught:
        load(f"hf:{copy}")
    assert str(caught.value) == (f"{copy} is an encoder-decoder ({kind}): only causal language models are measured")


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadFile, match=r"x\.gguf is damaged or cut short"):
        load(f"hf:{tmp_path / 'x.gguf'}")
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(BadFile, match=r"model\.bin is a file: give the folder"):
        load(f"hf:{tmp_path / 'model.bin'}")


def test_the_command_prints_one_line_and_no_table(copy):
    change_tensors(copy, without(".h.1."))
    words = [sys.executable, "-m", "fewshot", "evaluate", f"hf:{copy}", "--tasks", "arithmetic_5d_add"]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "which transformers would fill with random numbers" in done.stderr
