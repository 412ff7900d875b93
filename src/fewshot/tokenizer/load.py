"""A tokenizer from disk.

In: a path. Out: the `Tokenizer` that was saved there. It knows only formats.
"""

from __future__ import annotations

from pathlib import Path

from fewshot.base.errors import BadFile, BadValue
from fewshot.base.files import read_json
from fewshot.tokenizer.bpe import GPT2_FILES, bpe_from_json, load_gpt2
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import chars_from_json, chars_from_library
from fewshot.tokenizer.vocab import Tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Return the tokenizer in a `tokenizer.json` (ours, or byte-level BPE of Hugging Face `tokenizers`) or in a folder.

    A folder holds `tokenizer.json`, or GPT-2's two files under either of their names. Anything else raises `BadFile`.
    """
    try:
        if not path.is_dir():
            return _from_json(path)
        if (path / "tokenizer.json").exists():
            return _from_json(path / "tokenizer.json")
        if any((path / ids).exists() and (path / merges).exists() for ids, merges in GPT2_FILES):
            return load_gpt2(path)
    except BadValue as error:
        raise BadFile(f"{path} is not a usable tokenizer: {error}") from None
    raise BadFile(f"{path} holds no tokenizer: tokenizer.json, or encoder.json and vocab.bpe, is needed")


def _from_json(path: Path) -> Tokenizer:
    value = read_json(path)
    if not isinstance(value, dict):
        raise BadFile(f"{path} is not a tokenizer: it holds a {type(value).__name__}, not an object")
    match value.get("type"):
        case "bytes":
            return Bytes()
        case "chars":
            return chars_from_json(value)
    model = value.get("model")
    if isinstance(model, dict) and model.get("type") == "WordLevel":
        return chars_from_library(value)
    return bpe_from_json(value)
