"""GPT-2's public weight formats, read and written: Hugging Face folders, and state dicts of the minGPT family.

Hugging Face keeps each linear layer transposed ([in, out], "Conv1D"); minGPT and nanoGPT keep torch's [out, in].
The shape of `c_attn` tells which it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.base.errors import BadValue, check
from fewshot.checkpoint.formats.folded import folded_state
from fewshot.checkpoint.formats.hugging_face.folder import (
    activation_of,
    check_fits,
    check_shape,
    check_sizes,
    check_tied,
    is_of_type,
    read_config,
    write_folder,
)
from fewshot.checkpoint.formats.weights import read_weights
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

LINEAR = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
OTHER_TYPES = ("gpt_neo", "opt", "openai-gpt", "fewshot")  # that are read too, by others
LAYER = re.compile(r"h\.(\d{1,6})\.", re.ASCII)


def is_gpt2(path: Path) -> bool:
    """Return whether `path` is a Hugging Face folder of a model; one of a type that nobody reads is refused by name."""
    return is_of_type(path) and not any(is_of_type(path, kind) for kind in OTHER_TYPES)


def from_gpt2_state(state: Mapping[str, Tensor], *, n_heads: int, **other: Any) -> GPT:
    """Return a model with the weights of a GPT-2-shaped state dict; sizes are read off its shapes.

    Raises BadValue when a tensor is missing, has another shape or is not of GPT-2's naming.
    """
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith((".attn.bias", ".attn.masked_bias"))}
    missing = {"wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.0.mlp.c_fc.bias"} - state.keys()
    if missing:
        raise BadValue(f"these are not GPT-2 weights: {', '.join(sorted(missing))} is missing")
    for name, tensor in state.items():
        n_axes = 2 if name.endswith((*LINEAR, "wte.weight", "wpe.weight", "lm_head.weight")) else 1
        check(
            tensor.dim() == n_axes and tensor.is_floating_point(),
            f"these are not GPT-2 weights: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}",
        )
    layers = {int(at[1]) for at in map(LAYER.match, state) if at}
    check(layers == set(range(len(layers))), f"these are not GPT-2 weights: a layer before h.{max(layers)} is missing")
    (n_vocab, d_model), n_ctx = state["wte.weight"].shape, state["wpe.weight"].shape[0]
    head = state.get("lm_head.weight", state["wte.weight"])
    config = GPTConfig(
        n_layers=len(layers),
        d_model=d_model,
        n_heads=n_heads,
        n_ctx=n_ctx,
        n_vocab=n_vocab,
        d_ff=state["h.0.mlp.c_fc.bias"].shape[0],
        tied=torch.equal(head, state["wte.weight"]),
        **other,
    )
    if state["h.0.attn.c_attn.weight"].shape[0] == d_model:
        state = {name: tensor.T if name.endswith(LINEAR) else tensor for name, tensor in state.items()}
    if config.tied:
        state.pop("lm_head.weight", None)
    _check_shapes(config, state)  # before anything as large as they say is made
    model = GPT(config)
    try:
        model.load_state_dict(state)  # in float32, whatever it was stored in
    except RuntimeError as error:
        raise BadValue(f"these are not GPT-2 weights: {' '.join(str(error).split())[:300]}") from None
    return model.eval()


def _check_shapes(config: GPTConfig, state: Mapping[str, Tensor]) -> None:
    """Raise BadValue where a tensor is missing, too many, or not of the shape that the others ask for."""
    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in GPT(config).state_dict().items()}
    wrong = [name for name, shape in expected.items() if name not in state or state[name].shape != shape]
    wrong += sorted(state.keys() - expected.keys())
    if wrong:
        name = wrong[0]
        is_ = tuple(state[name].shape) if name in state else "missing"
        needed = tuple(expected[name]) if name in expected else "missing"
        raise BadValue(f"these are not GPT-2 weights: {name} is {is_}, but by the others it must be {needed}")


def read_hugging_face(folder: Path) -> GPT:
    """Return the model in a Hugging Face GPT-2 folder: `config.json`, and weights in one file or in parts.

    Raises BadValue where the two disagree, or where GPT-2's class would compute what ours does not.
    """
    where, config = read_config(folder)
    if config.get("model_type") != "gpt2":
        readable = ", ".join(["gpt2", *OTHER_TYPES])
        raise BadValue(f"{where} is of type {config.get('model_type')!r}; these can be converted: {readable}")
    if "n_head" not in config:
        raise BadValue(f"{where} lacks n_head, which cannot be read from the weights")
    n_heads, dropout = config["n_head"], config.get("resid_pdrop", 0.0)
    check_shape(n_heads, dropout, where, dropout_name="resid_pdrop")
    activation, weights = activation_of(config, where), read_weights(folder)
    model = from_gpt2_state(weights, n_heads=n_heads, dropout=float(dropout), activation=activation)
    _scale_queries(model, config)
    _check_sizes(config, model.config, where)
    check_tied(config, model.config, weights, where)
    return model


@torch.no_grad()
def _scale_queries(model: GPT, config: Mapping[str, Any]) -> None:
    """Multiply queries by what transformers' GPT-2 can scale attention by, beside 1 / sqrt(head width) or instead."""
    width = model.config.d_model
    for i in range(model.config.n_layers):
        factor = 1.0 if config.get("scale_attn_weights", True) else model.config.head_width**0.5
        if config.get("scale_attn_by_inverse_layer_idx"):
            factor /= i + 1
        for part in ("weight", "bias"):
            model.get_parameter(f"h.{i}.attn.c_attn.{part}")[:width] *= factor


def _check_sizes(config: Mapping[str, Any], sizes: GPTConfig, where: Path) -> None:
    """Raise BadValue for a size in config.json that is not the weights'."""
    expected = {
        "n_layer": sizes.n_layers,
        "n_embd": sizes.d_model,
        "n_inner": sizes.ff_width,
        "n_positions": sizes.n_ctx,  # n_ctx, which older files hold beside it, means nothing to transformers
        "vocab_size": sizes.n_vocab,
    }
    without_inner = {"n_inner": 4 * sizes.d_model} if config.get("n_inner", 0) is None else {}
    check_sizes({**config, **without_inner}, expected, where)


def check_is_gpt2(config: GPTConfig) -> None:
    """Raise BadValue for a model that GPT-2's class cannot express."""
    check_fits(config, "Hugging Face's GPT-2 has dense")


def write_hugging_face(folder: Path, model: GPT, *, eot: int) -> None:
    """Write a Hugging Face GPT-2 folder, `config.json` last; what `check_is_gpt2` refuses raises `BadValue`."""
    check_is_gpt2(model.config)
    config = model.config
    state = {}
    for name, tensor in folded_state(model).items():
        turned = tensor.T if name.endswith(LINEAR) else tensor
        state[name if name.startswith("lm_head") else f"transformer.{name}"] = turned
    plain = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": config.n_layers,
        "n_embd": config.d_model,
        "n_head": config.n_heads,
        "n_inner": config.ff_width,
        "n_positions": config.n_ctx,
        "n_ctx": config.n_ctx,  # transformers no longer reads it, llama.cpp and mlx-lm do
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.inner_dropout,
        "attn_pdrop": config.inner_dropout,
    }
    write_folder(folder, config, plain, state, eot=eot)
