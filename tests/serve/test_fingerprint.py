from __future__ import annotations

from fewshot.serve.fingerprint import fingerprint, identity
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars


def test_it_changes_with_weights_their_type_and_the_tokenizer() -> None:
    names = [
        fingerprint(identity(weights, tokenizer, weight_type))
        for weights in ("a", "b")
        for tokenizer in (Bytes(), train_chars(["ab"]))
        for weight_type in ("float32", "int8")
    ]
    assert len(set(names)) == 8
    assert names[0] == fingerprint(identity("a", Bytes(), "float32"))
    assert names[0] != fingerprint(identity("a", Bytes(), "float32", "cuda"))
