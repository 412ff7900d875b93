from __future__ import annotations

from pathlib import Path

from fewshot.checkpoint.manifest import Checkpoint
from fewshot.model.config import GPTConfig
from fewshot.serve.fingerprint import fingerprint, identity
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.chars import train_chars


def test_it_changes_with_weights_their_type_and_the_tokenizer() -> None:
    config = GPTConfig(n_layers=1, d_model=4, n_heads=1, n_ctx=4, n_vocab=4)
    checkpoints = [Checkpoint(path=Path(), step=1, config=config, weights=weights) for weights in ("a", "b")]
    names = [
        fingerprint(identity(checkpoint, tokenizer, weight_type))
        for checkpoint in checkpoints
        for tokenizer in (Bytes(), train_chars(["ab"]))
        for weight_type in ("float32", "int8")
    ]
    assert len(set(names)) == 8
    assert names[0] == fingerprint(identity(checkpoints[0], Bytes(), "float32"))
