"""One HTML file with a model in it, which any browser runs, without a network: any pattern, any kind of block.

In: a model and its tokenizer. Out: `index.html`: float32 weights, vocabulary, and plain JavaScript that computes the
forward pass, writes text, and draws how probable an answer becomes with the demonstrations before it.
"""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewshot.base.errors import check
from fewshot.base.files import read_text, write_text
from fewshot.checkpoint.formats.folded import folded_state
from fewshot.checkpoint.formats.plain_patterns import plain_layers
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT, count_parameters
from fewshot.tokenizer.bpe import ALPHABET
from fewshot.tokenizer.chars import Chars
from fewshot.tokenizer.vocab import Tokenizer

FILE, STATIC = "index.html", Path(__file__).with_name("static")
MOST_PARAMETERS = 2**26  # in base64 a third of a gigabyte; browsers hold texts of half of one
INSTALL_TO_RUN = "pip install playwright, and Chromium of the system"
EXAMPLE = {
    "PROMPT": "Once upon a time",
    "DEMONSTRATIONS": "cat -> cats\ndog -> dogs\nbird -> birds\nhand -> hands",
    "QUESTION": "tree ->",
    "ANSWER": " trees",
}


def check_is_page(config: GPTConfig) -> None:
    """Raise BadValue for a model that is too large for a page, or has a pattern that the page does not know."""
    plain_layers(config)
    n = count_parameters(config)["total"]
    check(
        n <= MOST_PARAMETERS,
        f"this model cannot be converted: a page holds up to {MOST_PARAMETERS:,} parameters, this model has {n:,}",
    )


def write_page(folder: Path, model: GPT, tokenizer: Tokenizer) -> None:
    """Write `index.html`; what `check_is_page` refuses raises BadValue."""
    config = model.config
    check_is_page(config)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.cpu() for name, tensor in folded_state(model, head_width=config.head_width).items()}
    shape = f"{config.n_layers} layers of {config.d_model}, {config.n_heads} heads, attention {config.pattern}"
    texts = {
        "TITLE": "A language model in one file",
        "ABOUT": f"{shape}, context {config.n_ctx:,} tokens, vocabulary {config.n_vocab:,}. Written by fewshot.",
        **{name: text if tokenizer.knows(text) else "" for name, text in EXAMPLE.items()},
    }
    page = read_text(STATIC / "page.html")
    for name, text in texts.items():
        page = page.replace(name, html.escape(text))
    model_code = read_text(STATIC / "model.js").replace("\nexport ", "\n")  # a page from file:// imports nothing
    page = page.replace("SCRIPT\n", f"{model_code}\n{read_text(STATIC / 'page.js')}", 1)
    data = {
        "config": {
            "d_model": config.d_model,
            "n_heads": config.n_heads,
            "n_ctx": config.n_ctx,
            "d_head": config.head_width,
            "norm_first": config.block != "post-ln",
            "activation": config.activation_name,
        },
        "layers": plain_layers(config),
        "tokenizer": _vocabulary(tokenizer),
        **_packed(weights),
    }
    write_text(folder / FILE, page.replace("DATA", json.dumps(data).replace("<", "\\u003c"), 1))


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    is_chars = isinstance(tokenizer, Chars)
    return {
        "kind": "chars" if is_chars else "bpe",
        "tokens": tokenizer.library_tokens(),
        "merges": [] if is_chars else json.loads(tokenizer.to_library_json())["model"]["merges"],
        "alphabet": "".join(sorted(ALPHABET, key=ALPHABET.__getitem__)),
        "end": tokenizer.eot,
    }


def _packed(weights: dict[str, Tensor]) -> dict[str, Any]:
    """Return the place and size of every tensor in one array of float32, and the array in base64."""
    tensors, first = [], 0
    for name, tensor in weights.items():
        tensors.append([name, first, tensor.numel()])
        first += tensor.numel()
    data = torch.cat([tensor.flatten() for tensor in weights.values()]).numpy().astype("<f4").tobytes()
    return {"tensors": tensors, "weights": base64.b64encode(data).decode()}
