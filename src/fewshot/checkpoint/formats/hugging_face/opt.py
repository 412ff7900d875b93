"""OPT's folders, read and written: dense layers with their norm first or last, queries, keys and values apart.

Positions are stored from row 2 on. transformers' class knows every activation; OPT itself has ReLU.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fewshot.base.errors import check
from fewshot.checkpoint.formats.folded import folded_state
from fewshot.checkpoint.formats.hugging_face.folder import (
    PRE_LN,
    activation_of,
    check_fits,
    check_shape,
    check_sizes,
    check_tied,
    is_of_type,
    read_config,
    write_folder,
)
from fewshot.checkpoint.formats.hugging_face.gpt2 import from_gpt2_state
from fewshot.checkpoint.formats.weights import read_weights
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

FIRST_POSITION = 2  # row of the table
PREFIX = "model.decoder."
LAYER = {"ln_1": "self_attn_layer_norm", "attn.c_proj": "self_attn.out_proj", "ln_2": "final_layer_norm"}
LAYER |= {"mlp.c_fc": "fc1", "mlp.c_proj": "fc2"}
OUTSIDE = {"wte": "embed_tokens", "wpe": "embed_positions", "ln_f": "final_layer_norm"}
PARTS = ("q_proj", "k_proj", "v_proj")
ONLY = {"enable_bias": True, "layer_norm_elementwise_affine": True, "_remove_final_layer_norm": False}


def is_opt(path: Path) -> bool:
    """Return whether `path` is the folder of an OPT."""
    return is_of_type(path, "opt")


def check_is_opt(config: GPTConfig) -> None:
    """Raise BadValue for a model that OPT's class cannot express."""
    blocks = (*PRE_LN, "post-ln")
    check_fits(config, "Hugging Face's OPT has dense", blocks=blocks)


def _their_name(name: str) -> str:
    """Return OPT's name of one of our parameters, those of c_attn apart."""
    own_name, part = name.rsplit(".", 1)
    if own_name == "lm_head":
        return name
    if not own_name.startswith("h."):
        return f"{PREFIX}{OUTSIDE[own_name]}.{part}"
    _, layer, inner = own_name.split(".", 2)
    return f"{PREFIX}layers.{layer}.{LAYER[inner]}.{part}"


def write_opt(folder: Path, model: GPT, *, eot: int) -> None:
    """Write an OPT folder, `config.json` last; what `check_is_opt` refuses raises BadValue."""
    config = model.config
    check_is_opt(config)
    state = folded_state(model)
    theirs: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".attn.c_attn." in name:
            _, layer, _, _, part = name.split(".")
            for projection, rows in zip(PARTS, tensor.chunk(3), strict=True):
                theirs[f"{PREFIX}layers.{layer}.self_attn.{projection}.{part}"] = rows
        else:
            theirs[_their_name(name)] = tensor
    table = theirs[_their_name("wpe.weight")]
    theirs[_their_name("wpe.weight")] = torch.cat([table.new_zeros(FIRST_POSITION, config.d_model), table])
    plain = {
        "model_type": "opt",
        "architectures": ["OPTForCausalLM"],
        "num_hidden_layers": config.n_layers,
        "hidden_size": config.d_model,
        "word_embed_proj_dim": config.d_model,
        "num_attention_heads": config.n_heads,
        "ffn_dim": config.ff_width,
        "max_position_embeddings": config.n_ctx,
        "do_layer_norm_before": config.block != "post-ln",
        "dropout": config.dropout,
        "attention_dropout": config.inner_dropout,
        "pad_token_id": None,  # the embedding of one learns nothing
        **ONLY,
    }
    write_folder(folder, config, plain, theirs, eot=eot)


def read_opt(folder: Path) -> GPT:
    """Return the model in an OPT folder; raises BadValue where config.json and the weights disagree."""
    where, config = read_config(folder)
    n_heads, dropout = config.get("num_attention_heads", 0), config.get("dropout", 0.1)
    check_shape(n_heads, dropout, where, heads_name="num_attention_heads", dropout_name="dropout")
    for name, needed in ONLY.items():
        check(config.get(name, needed) == needed, f"{where}: {name} is {config.get(name)!r}, {needed} is needed")
    first = config.get("do_layer_norm_before", True)
    check(isinstance(first, bool), f"{where}: do_layer_norm_before is {first!r}, must be true or false")
    width = config.get("word_embed_proj_dim", config.get("hidden_size"))
    check(
        width == config.get("hidden_size"),
        f"{where}: word_embed_proj_dim is {width!r}, not hidden_size: embeddings of another width, as OPT-350m has "
        "them, are not read",
    )
    activation = activation_of({"activation_function": "relu", **config}, where)
    weights = {
        f"model.{name.removeprefix('model.')}" if name.startswith("decoder.") else name: tensor
        for name, tensor in read_weights(folder).items()
    }
    model = from_gpt2_state(
        _our_state(weights),
        n_heads=n_heads,
        dropout=float(dropout),
        activation=activation,
        block="pre-ln" if first else "post-ln",
    )
    sizes = model.config
    expected = {"num_hidden_layers": sizes.n_layers, "hidden_size": sizes.d_model, "ffn_dim": sizes.ff_width}
    check_sizes(config, expected | {"max_position_embeddings": sizes.n_ctx, "vocab_size": sizes.n_vocab}, where)
    check_tied(config, sizes, weights, where)
    return model


def _our_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return OPT's tensors under our names; raises BadValue for one that is missing or that OPT does not have."""
    n_layers = len({name.split(".")[3] for name in weights if name.startswith(f"{PREFIX}layers.")})
    left, state = dict(weights), {}
    places = [f"{name}.{part}" for name in OUTSIDE for part in ("weight", "bias")] + ["lm_head.weight"]
    places += [f"h.{i}.{name}.{part}" for i in range(n_layers) for name in LAYER for part in ("weight", "bias")]
    for name in places:
        if _their_name(name) in left:
            state[name] = left.pop(_their_name(name))
    for i in range(n_layers):
        for part in ("weight", "bias"):
            names = [f"{PREFIX}layers.{i}.self_attn.{projection}.{part}" for projection in PARTS]
            missing = [name for name in names if name not in left]
            check(not missing, f"these are not OPT's weights: {', '.join(missing)} is missing")
            rows = [left.pop(name) for name in names]
            check(
                all(row.dim() > 0 and row.shape == rows[0].shape for row in rows),
                f"these are not OPT's weights: {names[0]} is of another shape",
            )
            state[f"h.{i}.attn.c_attn.{part}"] = torch.cat(rows)
    check(not left, f"these are not OPT's weights: {', '.join(sorted(left)[:4])} is not known")
    if "wpe.weight" in state and state["wpe.weight"].dim() == 2:
        state["wpe.weight"] = state["wpe.weight"][FIRST_POSITION:]
    return state
