"""A tokenizer from a path: ours, Hugging Face's or GPT-2's own files."""

from __future__ import annotations

from pathlib import Path

from fewshot.base.errors import BadFile
from fewshot.base.files import read_json
from fewshot.tokenizer.bpe import from_hugging_face, load_gpt2
from fewshot.tokenizer.chars import Chars
from fewshot.tokenizer.vocab import Tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a tokenizer.json, or in a folder that holds one, or GPT-2's two files; else BadFile."""
    if path.is_dir():
        if (path / "tokenizer.json").is_file():
            return load_tokenizer(path / "tokenizer.json")
        if (path / "encoder.json").is_file() or (path / "vocab.json").is_file():
            return load_gpt2(path)
        raise BadFile(f"{path} holds neither tokenizer.json nor encoder.json and vocab.bpe")
    plain = read_json(path)
    if isinstance(plain, dict) and plain.get("fewshot") == "chars" and isinstance(plain.get("characters"), str):
        return Chars(plain["characters"])
    if isinstance(plain, dict) and "model" in plain:
        return from_hugging_face(plain, path)
    raise BadFile(f"{path} is not a tokenizer.json")
