"""GPT-1's folders (transformers' openai-gpt), read and written: dense layers with their norm last.

The class has feed-forward layers of four times the width, GELU in its tanh form under the name "gelu", and no cache.
"""

from __future__ import annotations

from pathlib import Path

from fewshot.base.errors import BadValue, check
from fewshot.checkpoint.formats.folded import folded_state
from fewshot.checkpoint.formats.hugging_face.folder import (
    check_epsilon,
    check_fits,
    check_shape,
    check_sizes,
    check_tied,
    is_of_type,
    read_config,
    write_folder,
)
from fewshot.checkpoint.formats.hugging_face.gpt2 import LINEAR, from_gpt2_state
from fewshot.checkpoint.formats.weights import read_weights
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

TYPE = "openai-gpt"
NAMES = {"wte.weight": "tokens_embed.weight", "wpe.weight": "positions_embed.weight"}
ACTIVATIONS = {"gelu": "gelu_tanh", "relu": "relu"}  # the class's names, and ours


def is_openai_gpt(path: Path) -> bool:
    """Return whether `path` is the folder of a GPT-1."""
    return is_of_type(path, TYPE)


def check_is_openai_gpt(config: GPTConfig) -> None:
    """Raise BadValue for a model that GPT-1's class cannot express."""
    what = "Hugging Face's openai-gpt has dense"
    check_fits(config, what, blocks=("post-ln",))
    others: dict[str, tuple[object, list[object]]] = {
        "d_ff": (config.ff_width, [4 * config.d_model]),
        "tied": (config.tied, [True]),
        "activation": (config.activation_name, [*ACTIVATIONS.values()]),
    }
    for name, (is_, allowed) in others.items():
        if is_ not in allowed:
            needed = " or ".join(map(str, allowed))
            raise BadValue(f"this model cannot be converted: {what} layers with {name} {needed}, this model has {is_}")


def write_openai_gpt(folder: Path, model: GPT, *, eot: int) -> None:
    """Write a GPT-1 folder, `config.json` last; what `check_is_openai_gpt` refuses raises BadValue."""
    config = model.config
    check_is_openai_gpt(config)
    state = folded_state(model)
    turned = {name: tensor.T if name.endswith(LINEAR) else tensor for name, tensor in state.items()}
    plain = {
        "model_type": TYPE,
        "architectures": ["OpenAIGPTLMHeadModel"],
        "n_layer": config.n_layers,
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_positions": config.n_ctx,
        "afn": next(name for name, ours in ACTIVATIONS.items() if ours == config.activation_name),
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.inner_dropout,
        "attn_pdrop": config.inner_dropout,
    }
    named = {f"transformer.{NAMES.get(name, name)}": tensor for name, tensor in turned.items()}
    write_folder(folder, config, plain, named, eot=eot)


def read_openai_gpt(folder: Path) -> GPT:
    """Return the model in a GPT-1 folder; raises BadValue where config.json and the weights disagree."""
    where, config = read_config(folder)
    n_heads, dropout = config.get("n_head", 0), config.get("resid_pdrop", 0.1)
    check_shape(n_heads, dropout, where, dropout_name="resid_pdrop")
    afn = config.get("afn", "gelu")
    if not isinstance(afn, str) or afn not in ACTIVATIONS:
        raise BadValue(f"{where}: afn is {afn!r}, allowed: {', '.join(ACTIVATIONS)}")
    check_epsilon(config)
    weights = read_weights(folder)
    ours = {theirs: name for name, theirs in NAMES.items()}
    state = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    state.pop("position_ids", None)
    model = from_gpt2_state(
        {ours.get(name, name): tensor for name, tensor in state.items()},
        n_heads=n_heads,
        dropout=float(dropout),
        activation=None if afn == "gelu" else ACTIVATIONS[afn],
        block="post-ln",
    )
    sizes = model.config
    expected = {"n_layer": sizes.n_layers, "n_embd": sizes.d_model, "n_positions": sizes.n_ctx}
    check_sizes(config, expected | {"vocab_size": sizes.n_vocab}, where)
    check(
        sizes.ff_width == 4 * sizes.d_model,
        f"{where}: its feed-forward layers are {sizes.ff_width:,} wide, not 4 times n_embd",
    )
    check_tied(config, sizes, weights, where)
    return model
