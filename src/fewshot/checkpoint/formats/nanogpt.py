"""nanoGPT's checkpoints, read: `ckpt.pt`, as its train.py writes it, and GPT-2's vocabulary beside it.

Its feed-forward layers have GELU by the error function, whatever weights it began with; before it had the option `bias`
(January 2023) they had the tanh form. Biases that it does not have are zeros here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fewshot.base.errors import BadFile, check
from fewshot.checkpoint.formats.gpt2 import LINEAR, from_gpt2_state
from fewshot.checkpoint.formats.hugging_face import check_shape, check_sizes
from fewshot.checkpoint.formats.weights import check_weights_finite, read_plain
from fewshot.model.gpt import GPT
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import Tokenizer

NAME = "ckpt.pt"
COMPILED = "_orig_mod."  # before the names of a model that was compiled
NORMS = ("ln_1.weight", "ln_2.weight", "ln_f.weight")


def is_nanogpt(path: Path) -> bool:
    """Return whether `path` is a checkpoint of nanoGPT, or the folder of one."""
    return path.suffix == ".pt" if path.is_file() else (path / NAME).is_file()


def read_model_and_tokenizer(path: Path) -> tuple[GPT, Tokenizer]:
    """Return the model in a checkpoint, and the tokenizer that lies beside it."""
    file = path if path.is_file() else path / NAME
    model = read_checkpoint(file)
    try:
        return model, load_tokenizer(file.parent)
    except BadFile as error:
        raise BadFile(
            f"{error}; copy GPT-2's vocabulary there (a vocabulary of characters, meta.pkl, has no end of text, which "
            "is needed here)"
        ) from None


def read_checkpoint(file: Path) -> GPT:
    """Return the model in `ckpt.pt`; raises BadFile for another file, BadValue where its parts disagree."""
    plain = read_plain(file)
    state, sizes = (plain.get(name) if isinstance(plain, dict) else None for name in ("model", "model_args"))
    if not isinstance(state, dict) or not isinstance(sizes, dict):
        raise BadFile(f"{file} is no checkpoint of nanoGPT: it lacks model and model_args")
    check(all(isinstance(tensor, Tensor) for tensor in state.values()), f"{file}: its model holds more than tensors")
    check_weights_finite(state, file)
    n_heads, dropout = sizes.get("n_head", 0), sizes.get("dropout", 0.0)
    check_shape(n_heads, dropout, file, dropout_name="dropout")
    model = from_gpt2_state(
        _with_biases({name.removeprefix(COMPILED): tensor for name, tensor in state.items()}),
        n_heads=n_heads,
        dropout=float(dropout),
        activation="gelu" if "bias" in sizes else None,
    )
    config = model.config
    expected = {"n_layer": config.n_layers, "n_embd": config.d_model, "vocab_size": config.n_vocab}
    check_sizes(sizes, {**expected, "block_size": config.n_ctx}, file)
    return model


def _with_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with zeros for the biases that a model without them (`bias=False`) lacks."""
    zeros = {
        f"{name.removesuffix('weight')}bias": torch.zeros(len(tensor))
        for name, tensor in state.items()
        if name.endswith((*LINEAR, *NORMS)) and tensor.dim()
    }
    return zeros | state
