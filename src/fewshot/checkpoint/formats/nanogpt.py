"""nanoGPT's checkpoints, read: `ckpt.pt`, as its train.py writes it, and GPT-2's vocabulary beside it; and minGPT's.

minGPT's projects write `model.pt`, the weights alone, and config.json beside it; it has GELU in its tanh form.
Its feed-forward layers have GELU by the error function, whatever weights it began with; before it had the option `bias`
(January 2023) they had the tanh form. Biases that it does not have are zeros here.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from fewshot.base.errors import BadFile, check
from fewshot.base.files import read_json
from fewshot.checkpoint.formats.hugging_face.folder import check_shape, check_sizes, tokenizer_beside
from fewshot.checkpoint.formats.hugging_face.gpt2 import LINEAR, from_gpt2_state
from fewshot.checkpoint.formats.weights import check_plain_tensors, check_weights_finite, read_plain
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

NAME, MINGPT = "ckpt.pt", "model.pt"
MINGPT_HEADS = {"gpt-mini": 6, "gpt-micro": 4, "gpt-nano": 3, "gopher-44m": 16, "openai-gpt": 12, "gpt2": 12}
MINGPT_HEADS |= {"gpt2-medium": 16, "gpt2-large": 20, "gpt2-xl": 25}  # of its model_type, where n_head is null
COMPILED = "_orig_mod."  # before the names of a model that was compiled
NORMS = ("ln_1.weight", "ln_2.weight", "ln_f.weight")


def is_nanogpt(path: Path) -> bool:
    """Return whether `path` is a checkpoint of nanoGPT, or the folder of one."""
    return path.suffix == ".pt" if path.is_file() else any((path / name).is_file() for name in (NAME, MINGPT))


def read_model_and_tokenizer(path: Path) -> tuple[GPT, Tokenizer]:
    """Return the model in a checkpoint, and the tokenizer that lies beside it."""
    file = path if path.is_file() else next(path / name for name in (NAME, MINGPT) if (path / name).is_file())
    no_end = " (a vocabulary of characters, meta.pkl, has no end of text, which is needed here)"
    return read_checkpoint(file), tokenizer_beside(file, no_end)


def read_checkpoint(file: Path) -> GPT:
    """Return the model in `ckpt.pt`; raises BadFile for another file, BadValue where its parts disagree."""
    plain = read_plain(file)
    if isinstance(plain, dict) and plain and all(isinstance(tensor, Tensor) for tensor in plain.values()):
        check_plain_tensors(plain, file)
        return _read_mingpt(plain, file)
    state, sizes = (plain.get(name) if isinstance(plain, dict) else None for name in ("model", "model_args"))
    if not isinstance(state, dict) or not isinstance(sizes, dict):
        raise BadFile(f"{file} is no checkpoint of nanoGPT or minGPT: it lacks model and model_args")
    check_plain_tensors(state, file)
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


def _read_mingpt(state: dict[str, Tensor], file: Path) -> GPT:
    """Return the model of weights alone, whose number of heads stands in config.json beside them."""
    where = file.parent / "config.json"
    whole = read_json(where)
    config = whole.get("model", whole) if isinstance(whole, dict) else {}
    check(isinstance(config, dict), f"{where} holds no sizes of a model")
    n_heads = config.get("n_head") or MINGPT_HEADS.get(str(config.get("model_type")), 0)
    check_shape(n_heads, 0.0, where, dropout_name="dropout")
    check_weights_finite(state, file)
    model = from_gpt2_state(state, n_heads=n_heads)
    config = {name: size for name, size in config.items() if size is not None}
    sizes = {"n_layer": model.config.n_layers, "n_embd": model.config.d_model, "vocab_size": model.config.n_vocab}
    check_sizes(config, {**sizes, "block_size": model.config.n_ctx}, where)
    return model


def _with_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with zeros for the biases that a model without them (`bias=False`) lacks."""
    zeros = {
        f"{name.removesuffix('weight')}bias": torch.zeros(len(tensor))
        for name, tensor in state.items()
        if name.endswith((*LINEAR, *NORMS)) and tensor.dim()
    }
    return zeros | state
