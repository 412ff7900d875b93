"""What the model folders of Hugging Face's libraries have in common: config.json, weights, a tokenizer.

In: a folder, or a model's weights under the names of its class. Out: checked values, or a folder that is whole once it
has its config.json. Knows nothing of a class's names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fewshot.base.errors import BadFile, BadValue, check
from fewshot.base.files import read_json, write_json, write_text, written_whole
from fewshot.checkpoint.save import write_tensors
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.patterns.pages import is_dense
from fewshot.tokenizer.load import load_tokenizer
from fewshot.tokenizer.vocab import EOT, Tokenizer

CONFIG = "config.json"
PRE_LN = ("pre-ln", "sparse-transformer")  # blocks of one order; they differ in how they are trained
ACTIVATIONS = {  # transformers' names, and ours; of several, the first is written
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu": "gelu",
    "relu": "relu",
    "quick_gelu": "quick_gelu",
}


def is_of_type(path: Path, kind: str | None = None) -> bool:
    """Return whether `path` is a folder of a model, of this `model_type` if one is given."""
    if kind is None:
        return (path / CONFIG).is_file()
    try:
        return bool(read_config(path)[1].get("model_type") == kind)
    except (BadFile, BadValue):
        return False


def read_config(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Return the path of a folder's config.json, for messages, and what it holds."""
    where = folder / CONFIG
    config = read_json(where)
    check(isinstance(config, dict), f"{where} holds no names and values")
    return where, config


def activation_of(config: Mapping[str, Any], where: Path) -> str | None:
    """Return our name of the activation; None for GPT's own. Another one, or another norm, raises BadValue."""
    name = config.get("activation_function", "gelu_new")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise BadValue(f"{where}: activation_function is {name!r}, allowed: {', '.join(ACTIVATIONS)}")
    check_epsilon(config)
    return None if ACTIVATIONS[name] == "gelu_tanh" else ACTIVATIONS[name]


def check_epsilon(config: Mapping[str, Any]) -> None:
    """Raise BadValue for another norm than GPT-2's."""
    if config.get("layer_norm_epsilon", 1e-5) != 1e-5:
        raise BadValue(f"layer_norm_epsilon is {config['layer_norm_epsilon']}; GPT-2's 1e-5 is needed")


def check_tied(config: Mapping[str, Any], sizes: GPTConfig, weights: Mapping[str, Tensor], where: Path) -> None:
    """Raise BadValue where config.json and the weights disagree on whether the output matrix is the embedding."""
    tied = config.get("tie_word_embeddings", True)
    check(isinstance(tied, bool), f"{where}: tie_word_embeddings is {tied!r}, must be true or false")
    if not tied and "lm_head.weight" not in weights:
        raise BadValue(
            f"{where} says tie_word_embeddings false, but the weights lack lm_head.weight: one is incomplete"
        )
    if tied and not sizes.tied:
        raise BadValue(
            f"{where} ties lm_head.weight to wte.weight, but the weights hold two different ones: one is wrong"
        )


def check_sizes(said: Mapping[str, Any], expected: Mapping[str, int], where: Path) -> None:
    """Raise BadValue for a size that a file says, if it says it, and that is not the weights'."""
    for name, size in expected.items():
        value = said.get(name, size)
        if not (is_count(value) and value == size):
            raise BadValue(
                f"{where} says {name} {value!r}, but the weights have {size:,}: they do not belong to the same model"
            )


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number of at least 1."""
    return type(value) is int and value >= 1


def check_shape(n_heads: Any, dropout: Any, where: Path, *, dropout_name: str, heads_name: str = "n_head") -> None:
    """Raise BadValue for a number of heads or a share to drop that cannot be."""
    check(is_count(n_heads), f"{where}: {heads_name} is {n_heads!r}, must be a whole number of at least 1")
    may_be = type(dropout) in (int, float) and 0 <= dropout < 1
    check(may_be, f"{where}: {dropout_name} is {dropout!r}, must be in [0, 1)")


def check_fits(
    config: GPTConfig,
    what: str,
    *,
    pattern_fits: bool | None = None,
    pattern_wanted: str = "dense",
    blocks: tuple[str, ...] = PRE_LN,
) -> None:
    """Raise BadValue for a model that a class with such blocks and heads of d_model / n_heads cannot express.

    `pattern_fits`: whether it has the layers of the model; None: it has dense ones alone. Narrower heads, narrower
    queries and keys, and other positions than learned ones are no hindrance: `folded_state`.
    """
    if pattern_fits is None:
        pattern_fits = all(is_dense(pattern, config.n_ctx, config.n_heads) for pattern in config.patterns)
    heads_fit = config.d_model % config.n_heads == 0 and config.head_width * config.n_heads <= config.d_model
    others = {
        "pattern": (config.pattern, pattern_fits, pattern_wanted),
        "block": (config.block, config.block in blocks, blocks[0]),
        "d_head": (config.head_width, heads_fit, "of at most d_model / n_heads"),
    }
    wrong = [f"{name} {is_!r} (--model.{name} {wanted})" for name, (is_, fits, wanted) in others.items() if not fits]
    if wrong:
        raise BadValue(
            f"this model cannot be converted: {what} {' or '.join(blocks)} layers, but this model has "
            f"{', '.join(wrong)}; to convert one, train it with the options in brackets"
        )


def with_tokenizer(read: Callable[[Path], GPT]) -> Callable[[Path], tuple[GPT, Tokenizer]]:
    """Return what reads a folder's model by `read`, and its tokenizer."""

    def read_both(folder: Path) -> tuple[GPT, Tokenizer]:
        tokenizer = load_tokenizer(folder)
        return read(folder), tokenizer

    return read_both


def tokenizer_beside(file: Path, more: str = "") -> Tokenizer:
    """Return the tokenizer in the folder of a file that holds none; raises BadFile with the way out."""
    try:
        return load_tokenizer(file.parent)
    except BadFile as error:
        raise BadFile(f"{error}; copy GPT-2's vocabulary there{more}") from None


def and_tokenizer(write: Callable[..., None]) -> Callable[[Path, GPT, Tokenizer], None]:
    """Return what writes a model by `write`, config.json last, and before it its tokenizer."""

    def write_both(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
        write_tokenizer(folder, tokenizer, n_ctx=model.config.n_ctx)
        write(folder, model, eot=tokenizer.eot)

    return write_both


def write_tokenizer(folder: Path, tokenizer: Tokenizer, *, n_ctx: int) -> None:
    """Write the two files from which the transformers library makes a tokenizer with the same ids."""
    write_text(folder / "tokenizer.json", tokenizer.to_library_json())
    plain = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": EOT,
        "eos_token": EOT,
        "model_max_length": n_ctx,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,  # a text that spells <|endoftext|> is text, as it is here
    }
    write_json(folder / "tokenizer_config.json", plain)


def write_folder(
    folder: Path, config: GPTConfig, plain: Mapping[str, Any], state: Mapping[str, Tensor], *, eot: int
) -> None:
    """Write weights and config.json, which is last: `plain`, which is the class's own, and what all have."""
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / "model.safetensors") as partial:
        write_tensors(partial, state)
    ends = {"bos_token_id": eot, "eos_token_id": eot}
    write_json(folder / "generation_config.json", {**ends, "pad_token_id": eot})
    common = {
        "vocab_size": config.n_vocab,
        "tie_word_embeddings": config.tied,
        "activation_function": next(name for name, ours in ACTIVATIONS.items() if ours == config.activation_name),
        "layer_norm_epsilon": 1e-5,
        **ends,
    }
    write_json(folder / CONFIG, {**plain, **common})
