"""Folders with a class of their own, `modeling_fewshot.py`: any pattern, for transformers with trust_remote_code.

`model_type` is "fewshot", so that without trust_remote_code such a folder is refused: as a "gpt2" it would be read by
the stock class, which knows no patterns. What the class does not have is in its weights: narrow queries and keys are
filled up with zeros, coordinates of positions are one table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from fewshot.base.errors import BadValue, check
from fewshot.base.files import read_text, write_text
from fewshot.checkpoint.formats.folded import folded_state
from fewshot.checkpoint.formats.hugging_face.folder import (
    activation_of,
    check_shape,
    check_sizes,
    check_tied,
    is_of_type,
    read_config,
    write_folder,
)
from fewshot.checkpoint.formats.hugging_face.gpt2 import LAYER
from fewshot.checkpoint.formats.plain_patterns import plain_layers
from fewshot.checkpoint.formats.weights import read_weights
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.patterns.schedule import parse

TYPE, MODULE = "fewshot", "modeling_fewshot"
NAMES = {"attn.c_attn": "c_attn", "attn.c_proj": "c_proj", "mlp.c_fc": "up", "mlp.c_proj": "down", "lm_head": "head"}


def is_own_code(path: Path) -> bool:
    """Return whether `path` is a folder with our class."""
    return is_of_type(path, TYPE)


def check_is_own_code(config: GPTConfig) -> None:
    """Raise BadValue for a pattern that the class does not know."""
    plain_layers(config)


def write_own_code(folder: Path, model: GPT, *, eot: int) -> None:
    """Write weights, the class, and config.json last; what `check_is_own_code` refuses raises BadValue."""
    config = model.config
    plain = {
        "model_type": TYPE,
        "architectures": ["FewshotForCausalLM"],
        "auto_map": {"AutoConfig": f"{MODULE}.FewshotConfig", "AutoModelForCausalLM": f"{MODULE}.FewshotForCausalLM"},
        "hidden_size": config.d_model,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.ff_width,
        "max_position_embeddings": config.n_ctx,
        "norm_first": config.block != "post-ln",
        "pattern": config.pattern,  # what `layers` says, as fewshot spells it
        "layers": plain_layers(config),
    }
    state = {_renamed(name): tensor for name, tensor in folded_state(model, head_width=config.head_width).items()}
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{MODULE}.py", read_text(Path(__file__).with_name(f"{MODULE}.py")))
    write_folder(folder, config, plain, state, eot=eot)


def _renamed(name: str) -> str:
    for ours, theirs in NAMES.items():
        name = name.replace(ours, theirs)
    return name


def read_own_code(folder: Path) -> GPT:
    """Return the model in such a folder, whose code is not run; raises BadValue where config and weights disagree."""
    where, config = read_config(folder)
    n_heads, text = config.get("num_attention_heads", 0), config.get("pattern")
    check_shape(n_heads, 0.0, where, dropout_name="dropout", heads_name="num_attention_heads")
    check(isinstance(text, str), f"{where}: pattern is {text!r}, must be a text such as banded(256)")
    check(isinstance(config.get("norm_first"), bool), f"{where} lacks norm_first, which must be true or false")
    activation, weights = activation_of(config, where), read_weights(folder)
    model = GPT(_config_of(config, weights, n_heads=n_heads, activation=activation, pattern=parse(str(text)).text))
    sizes = model.config
    check(plain_layers(sizes) == config.get("layers"), f"{where}: its layers are not those of its pattern, {text}")
    expected = {"hidden_size": sizes.d_model, "num_hidden_layers": sizes.n_layers, "head_dim": sizes.head_width}
    expected |= {"intermediate_size": sizes.ff_width, "max_position_embeddings": sizes.n_ctx}
    check_sizes(config, expected | {"vocab_size": sizes.n_vocab}, where)
    check_tied(config, sizes, {"lm_head.weight": weights["head.weight"]} if "head.weight" in weights else {}, where)
    try:
        model.load_state_dict({name: weights.pop(_renamed(name)) for name in model.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise BadValue(
            f"{folder}: these are not the weights of its config.json: {' '.join(str(error).split())[:300]}"
        ) from None
    check(not weights, f"{folder}: its weights hold more than the model has: {', '.join(sorted(weights)[:4])}")
    return model.eval()


def _config_of(config: dict[str, Any], weights: dict[str, Tensor], *, n_heads: int, **other: Any) -> GPTConfig:
    """Return the shape that the weights have; raises BadValue where they are not of the class."""
    missing = {"wte.weight", "wpe.weight", "h.0.c_attn.weight", "h.0.up.weight"} - weights.keys()
    check(not missing, f"these are not weights of {MODULE}: {', '.join(sorted(missing))} is missing")
    wte, wpe, joint, up = (weights[f"{name}.weight"] for name in ("wte", "wpe", "h.0.c_attn", "h.0.up"))
    check(
        all(tensor.dim() == 2 for tensor in (wte, wpe, joint, up)), f"these are not weights of {MODULE}: not matrices"
    )
    layers = {int(place[1]) for place in map(LAYER.match, weights) if place}
    whole = layers == set(range(len(layers)))
    check(whole, f"these are not weights of {MODULE}: a layer before h.{max(layers, default=0)} is missing")
    return GPTConfig(
        n_layers=len(layers),
        d_model=wte.shape[1],
        n_heads=n_heads,
        n_ctx=wpe.shape[0],
        n_vocab=wte.shape[0],
        d_head=joint.shape[0] // 3 // n_heads,
        d_ff=up.shape[0],
        block="pre-ln" if config["norm_first"] else "post-ln",
        tied="head.weight" not in weights,
        **other,
    )
