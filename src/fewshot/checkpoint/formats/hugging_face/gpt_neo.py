"""GPT-Neo's folders, read and written: layers that are dense or have one band, in any order, as GPT-3's.

GPT-Neo is the one class of transformers with learned positions and a window. It differs from ours in three things:
queries, keys and values are matrices of their own, without biases; scores are not divided by the root of the head's
width; and a window is that of every local layer.

Biases go into the matrices. What a LayerNorm gives, before its gain g and shift b, sums to 0 over the features, so that
a row vector times 1/g reads nothing of it but the shift. Let b' = b + step * g, and for the joint matrix W and bias c

    u = (c - step * W g) / sum(b' / g),    W' = W + u (1/g)^T:    W' (g n + b') = W (g n + b) + c  for all such n.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    is_count,
    is_of_type,
    read_config,
    write_folder,
)
from fewshot.checkpoint.formats.hugging_face.gpt2 import LAYER, from_gpt2_state
from fewshot.checkpoint.formats.weights import read_weights
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.patterns.pages import band_of
from fewshot.patterns.pattern import Banded, Dense, Pattern
from fewshot.patterns.schedule import alternate

STEPS = (1.0, 3.0)  # of b; one of them keeps the sum far from 0
NOT_CLOSE = 1e-4  # of the largest number: so much would be wrong
MASKS = ("attn.attention.bias", "attn.attention.masked_bias")  # no parameters; old files have them
PARTS = ("q_proj", "k_proj", "v_proj")


def is_gpt_neo(path: Path) -> bool:
    """Return whether `path` is the folder of a GPT-Neo."""
    return is_of_type(path, "gpt_neo")


def read_gpt_neo(folder: Path) -> GPT:
    """Return the model in a GPT-Neo folder; raises BadValue where config.json and the weights disagree."""
    where, config = read_config(folder)
    n_heads, dropout = config.get("num_heads", 0), config.get("resid_dropout", 0.0)
    check_shape(n_heads, dropout, where, heads_name="num_heads", dropout_name="resid_dropout")
    activation, weights = activation_of(config, where), read_weights(folder)
    state = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith(MASKS)}
    layers = _patterns_of(config, where, n_layers=len({at[1] for at in map(LAYER.match, state) if at}))
    for i in range(len(layers)):
        _join(state, f"h.{i}.attn.", n_heads=n_heads)
    model = from_gpt2_state(
        state, n_heads=n_heads, dropout=float(dropout), activation=activation, pattern=alternate(*_period(layers)).text
    )
    _check_sizes(config, model.config, where)
    check_tied(config, model.config, weights, where)
    return model


def _patterns_of(config: Mapping[str, Any], where: Path, *, n_layers: int) -> list[Pattern]:
    """Return the pattern of every layer; another number of them than the weights have is never written out."""
    window, types = config.get("window_size", 256), config.get("attention_types", [[["global", "local"], 12]])
    check(is_count(window), f"{where}: window_size is {window!r}, must be a whole number of at least 1")
    kinds: dict[str, Pattern] = {"global": Dense(), "local": Banded(window)}
    try:
        fits = all(is_count(times) for _, times in types) and sum(len(some) * n for some, n in types) == n_layers
        layers = [kinds[name] for some, times in types for _ in range(times) for name in some] if fits else []
    except (TypeError, ValueError, KeyError):
        layers = []
    check(
        len(layers) == n_layers > 0,
        f"{where}: attention_types is {types!r}, must be lists of [kinds, times], each global or local, for the "
        f"{n_layers} layers of the weights",
    )
    return layers


def _period(layers: Sequence[Pattern]) -> Sequence[Pattern]:
    """Return the shortest beginning that, repeated, is the whole."""
    lengths = (n for n in range(1, len(layers) + 1) if all(layer == layers[i % n] for i, layer in enumerate(layers)))
    return layers[: next(lengths)]


def _join(state: dict[str, Tensor], layer: str, *, n_heads: int) -> None:
    """Put GPT-2's joint matrix in the place of three, in a state dict; a lost one raises BadValue."""
    old = f"{layer}attention."
    names = [f"{old}{part}.weight" for part in PARTS]
    missing = [name for name in names if name not in state or state[name].dim() != 2]
    check(not missing, f"these are not GPT-Neo weights: {', '.join(missing)} is missing")
    q, k, v = (state.pop(name) for name in names)
    try:
        joint = torch.cat([q * math.sqrt(len(q) // n_heads), k, v])
    except RuntimeError as error:
        raise BadValue(f"these are not GPT-Neo weights: {layer}: {' '.join(str(error).split())[:200]}") from None
    state[f"{layer}c_attn.weight"], state[f"{layer}c_attn.bias"] = joint, torch.zeros(len(joint))
    for part in ("weight", "bias"):
        if f"{old}out_proj.{part}" in state:
            state[f"{layer}c_proj.{part}"] = state.pop(f"{old}out_proj.{part}")


def _check_sizes(config: Mapping[str, Any], sizes: GPTConfig, where: Path) -> None:
    """Raise BadValue for a size in config.json that is not the weights'."""
    expected = {
        "num_layers": sizes.n_layers,
        "hidden_size": sizes.d_model,
        "intermediate_size": sizes.ff_width,
        "max_position_embeddings": sizes.n_ctx,
        "vocab_size": sizes.n_vocab,
    }
    of_width = {"intermediate_size": 4 * sizes.d_model} if config.get("intermediate_size", 0) is None else {}
    check_sizes({**config, **of_width}, expected, where)


def check_is_gpt_neo(config: GPTConfig) -> None:
    """Raise BadValue for a model that GPT-Neo's class cannot express."""
    check_fits(
        config,
        "Hugging Face's GPT-Neo has dense layers and layers of one band in",
        pattern_fits=_kinds_of(config) is not None,
        pattern_wanted="'alternate(dense, banded(W))'",
    )


def _kinds_of(config: GPTConfig) -> tuple[list[str], int] | None:
    """Return whether each layer is global or local, and the window; None if there are other patterns."""
    schedule = config.schedule()
    bands = [band_of(schedule.for_layer(i), config.n_ctx, config.n_heads) for i in range(config.n_layers)]
    windows = {band for band in bands if band != config.n_ctx}
    if None in windows or len(windows) > 1:
        return None
    return [
        "global" if band == config.n_ctx else "local" for band in bands
    ], windows.pop() or 0 if windows else config.n_ctx


def write_gpt_neo(folder: Path, model: GPT, *, eot: int) -> None:
    """Write a GPT-Neo folder, `config.json` last; what `check_is_gpt_neo` refuses raises `BadValue`."""
    check_is_gpt_neo(model.config)
    config, layers = model.config, _kinds_of(model.config)
    assert layers is not None
    kinds, window = layers
    state = folded_state(model)
    for i in range(config.n_layers):
        _split(state, f"h.{i}.", config)
    plain = {
        "model_type": "gpt_neo",
        "architectures": ["GPTNeoForCausalLM"],
        "num_layers": config.n_layers,
        "hidden_size": config.d_model,
        "num_heads": config.n_heads,
        "intermediate_size": config.ff_width,
        "max_position_embeddings": config.n_ctx,
        "window_size": window,
        "attention_types": [[[kind], 1] for kind in kinds],
        "resid_dropout": config.dropout,
        "embed_dropout": config.inner_dropout,
        "attention_dropout": config.inner_dropout,
    }
    named = {name if name.startswith("lm_head") else f"transformer.{name}": tensor for name, tensor in state.items()}
    write_folder(folder, config, plain, named, eot=eot)


def _split(state: dict[str, Tensor], layer: str, config: GPTConfig) -> None:
    """Put GPT-Neo's three matrices without biases in the place of the joint one, in a state dict."""
    gain, shift = (state[f"{layer}ln_1.{part}"].double() for part in ("weight", "bias"))
    weight, bias = (state.pop(f"{layer}attn.c_attn.{part}").double() for part in ("weight", "bias"))
    if bias.any():
        weight, shift = _without_bias(weight, bias, gain, shift, layer)
        state[f"{layer}ln_1.bias"] = shift.float()
    q, k, v = weight.split(config.d_model)
    for part, matrix in zip(PARTS, (q / math.sqrt(config.d_model // config.n_heads), k, v), strict=True):
        state[f"{layer}attn.attention.{part}.weight"] = matrix.float()
    for part in ("weight", "bias"):
        state[f"{layer}attn.attention.out_proj.{part}"] = state.pop(f"{layer}attn.c_proj.{part}")


def _without_bias(weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor, layer: str) -> tuple[Tensor, Tensor]:
    """Return the matrix, and the shift of the norm before it, that do without the bias; see the top of the file.

    A feature whose gain is 0 is a constant: it alone can carry the biases.
    """
    constant = (gain == 0).double()
    row, step = (1 / gain, gain) if not constant.any() else (constant, constant)
    new_shift = next(moved for moved in (shift + n * step for n in STEPS) if abs(row @ moved) >= (row @ step) / 2)
    new_weight = weight + torch.outer((bias - weight @ (new_shift - shift)) / (row @ new_shift), row)
    tried = torch.randn(64, len(gain), generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(gain.device)
    normed = torch.nn.functional.layer_norm(tried, (len(gain),))
    expected = (normed * gain + shift) @ weight.T + bias
    without = (normed * gain + new_shift).float() @ new_weight.float().T
    if not (without - expected).abs().max() <= NOT_CLOSE * expected.abs().max():
        raise BadValue(
            f"this model cannot be converted: the biases of queries, keys and values, which GPT-Neo does not have, "
            f"do not fit into the matrices of {layer}attn"
        )
    return new_weight, new_shift
