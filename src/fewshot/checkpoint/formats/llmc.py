"""llm.c's model files, read: `gpt2_124M.bin` and what its training writes, with GPT-2's vocabulary beside it.

A header of 256 int32, then all weights in one order, in float32 or bfloat16; layers of a kind lie one after the other.
Source: llm.c's train_gpt2.py, write_model.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewshot.base.errors import BadFile, check
from fewshot.checkpoint.formats.hugging_face.folder import tokenizer_beside
from fewshot.checkpoint.formats.hugging_face.gpt2 import from_gpt2_state
from fewshot.checkpoint.formats.weights import check_weights_finite
from fewshot.model.gpt import GPT
from fewshot.tokenizer.vocab import Tokenizer

MAGIC, HEADER = 20240326, 256  # of int32
TYPES = {3: (torch.float32, 4), 5: (torch.bfloat16, 2)}  # by version: the type and its bytes
SIZES = ("n_ctx", "n_vocab", "n_layers", "n_heads", "d_model", "padded n_vocab")


def is_llmc(path: Path) -> bool:
    """Return whether `path` is a model file of llm.c."""
    if not path.is_file() or path.suffix != ".bin":
        return False
    with path.open("rb") as file:
        return file.read(4) == np.int32(MAGIC).astype("<i4").tobytes()


def read_model_and_tokenizer(path: Path) -> tuple[GPT, Tokenizer]:
    """Return the model in a file, and the tokenizer that lies beside it."""
    return read_llmc(path), tokenizer_beside(path)


def read_llmc(path: Path) -> GPT:
    """Return the model in a file; raises BadFile for one that is not as long as its header says."""
    header = np.fromfile(path, "<i4", HEADER)
    if len(header) < HEADER or header[0] != MAGIC:
        raise BadFile(f"{path} is no model of llm.c: it does not begin with {MAGIC}")
    if int(header[1]) not in TYPES:
        raise BadFile(f"{path} is of version {header[1]}; those with a padded vocabulary are read, 3 and 5")
    sizes = dict(zip(SIZES, map(int, header[2:8]), strict=True))
    for name, size in sizes.items():
        check(size >= 1, f"{path} says {name} {size}, must be at least 1")
    n_padded = sizes.pop("padded n_vocab")
    n_vocab = sizes["n_vocab"]
    check(n_vocab <= n_padded, f"{path} says n_vocab {n_vocab:,}, which is more than {n_padded:,} rows")
    dtype, n_bytes = TYPES[int(header[1])]
    shapes = _shapes(sizes, n_padded)
    expected = 4 * HEADER + n_bytes * sum(math.prod(shape) for shape in shapes.values())
    n_found = path.stat().st_size
    if n_found != expected:
        raise BadFile(f"{path} has {n_found:,} bytes, its header says {expected:,}: it is cut short or damaged")
    numbers = torch.from_numpy(np.fromfile(path, "<f4" if n_bytes == 4 else "<i2", offset=4 * HEADER)).view(dtype)
    state: dict[str, Tensor] = {}
    for name, tensor in zip(shapes, numbers.split([math.prod(shape) for shape in shapes.values()]), strict=True):
        whole = tensor.view(shapes[name]).float()
        if name.startswith("h."):
            state |= {name.replace("h.", f"h.{i}.", 1): part for i, part in enumerate(whole)}
        else:
            state[name] = whole
    state["wte.weight"] = state["wte.weight"][:n_vocab]
    check_weights_finite(state, path)
    return from_gpt2_state(state, n_heads=sizes["n_heads"])


def _shapes(sizes: dict[str, int], n_padded: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of everything in a file, in its order; layers of a kind as one."""
    n, d = sizes["n_layers"], sizes["d_model"]
    layer = {
        "ln_1.weight": (d,),
        "ln_1.bias": (d,),
        "attn.c_attn.weight": (3 * d, d),
        "attn.c_attn.bias": (3 * d,),
        "attn.c_proj.weight": (d, d),
        "attn.c_proj.bias": (d,),
        "ln_2.weight": (d,),
        "ln_2.bias": (d,),
        "mlp.c_fc.weight": (4 * d, d),
        "mlp.c_fc.bias": (4 * d,),
        "mlp.c_proj.weight": (d, 4 * d),
        "mlp.c_proj.bias": (d,),
    }
    begin: dict[str, tuple[int, ...]] = {"wte.weight": (n_padded, d), "wpe.weight": (sizes["n_ctx"], d)}
    layers = {f"h.{name}": (n, *shape) for name, shape in layer.items()}
    return begin | layers | {"ln_f.weight": (d,), "ln_f.bias": (d,)}
