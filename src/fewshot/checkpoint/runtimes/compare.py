"""Whether another program computes from an export what the model computes: logits, greedy text, ids.

In: the model and what the other program answers. Out: the largest difference; `ExportDiffers` where it is too large.
Does not know the other program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fewshot.base.errors import ExportDiffers
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.patterns.pattern import Banded
from fewshot.tokenizer.vocab import EOT, Tokenizer

LOGITS = 2e-5  # of the largest one: what sums of float32 in another order may differ by
LARGEST_BATCH = 2**26  # logits: 256 MiB
PROMPT, GREEDY, CHUNKS = 4, 64, 24  # tokens, tokens, parts of a sequence that goes through a cache
TEXTS = (
    "",
    " ",
    "Hello, world! It's 2 x 3.14 = 6.28; we'll see.",
    f"a text that spells {EOT} is text",
    "line\r\n\n\tand\ttabs   and   blanks   ",
    "na\u00efve caf\u00e9 \u00df \u4f60\u597d \u3053\u3093\u306b\u3061\u306f",
    "\U0001f600\U0001f468\u200d\U0001f469 e\u0301",
    "def f(x):\n    return {x: [1, 22, 333]}  # 50%\n",
    "\u00a0\u2028\u200b\ufeff\x00\x7f",
)


class NotChecked(Exception):
    """The other program cannot be asked; its message says why."""


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What was compared, and the largest difference."""

    by: str  # the other program and its version
    lengths: list[int]  # of sequences, in tokens
    largest_logit: float
    largest_difference: float
    of: str = "logits"  # what differs by so much
    greedy_tokens: int  # that it wrote and that are the model's own
    texts: int  # whose ids are equal


def lengths_to_check(config: GPTConfig) -> list[int]:
    """Return lengths below, at and beyond every window of a model, and the whole context."""
    lengths = {1, 2, config.n_ctx // 2, config.n_ctx}
    for pattern in config.patterns:
        for part in pattern.parts:
            if isinstance(part, Banded):
                lengths |= {part.window - 1, part.window, part.window + 1, 2 * part.window}
    return sorted(length for length in lengths if 1 <= length <= config.n_ctx)


def sequences(model: GPT, n_tokens: int) -> list[Tensor]:
    """Return random token ids [B, T] for every length, three rows where their logits fit; the same at every call."""
    generator = torch.Generator().manual_seed(0)
    rows_by_length = []
    for length in lengths_to_check(model.config):
        rows = 3 if 3 * length * model.config.n_vocab <= LARGEST_BATCH else 1
        rows_by_length.append(torch.randint(n_tokens, (rows, length), generator=generator))
    return rows_by_length


def largest_difference(ours: Tensor, theirs: Tensor, *, by: str, limit: float = LOGITS) -> tuple[float, float]:
    """Return the largest logit of `ours` and the largest difference; more than `limit` of it raises ExportDiffers."""
    if ours.shape != theirs.shape:
        raise ExportDiffers(f"{by} gives logits of shape {tuple(theirs.shape)}, the model {tuple(ours.shape)}")
    scale = ours.abs().max().item()
    apart = (ours - theirs.float()).abs()
    worst = apart.max().item()
    if not worst <= limit * scale:  # a NaN too
        place = int(apart.nan_to_num(float("inf")).flatten(end_dim=-2).amax(-1).argmax()) % ours.shape[-2]
        raise ExportDiffers(
            f"{by} computes something else: at position {place} of {ours.shape[-2]:,} a logit differs by {worst:.2g}, "
            f"allowed are {limit:g} of the largest, which is {scale:.3g}"
        )
    return scale, worst


@torch.no_grad()
def compare_logits(
    model: GPT, theirs: Callable[[Tensor], Tensor], *, n_tokens: int, by: str
) -> tuple[list[int], float, float]:
    """Return the lengths that were compared, the largest logit, and the largest difference."""
    lengths, scales, worst = [], [], []
    for tokens in sequences(model, n_tokens):
        scale, difference = largest_difference(model(tokens), theirs(tokens), by=by)
        lengths.append(tokens.shape[1])
        scales.append(scale)
        worst.append(difference)
    return lengths, max(scales), max(worst)


@torch.no_grad()
def compare_cached(model: GPT, theirs: Callable[[Sequence[Tensor]], Tensor], *, n_tokens: int, by: str) -> float:
    """Return the largest difference where the other program reads a sequence in chunks, through its cache."""
    tokens = sequences(model, n_tokens)[-1][:1]
    return largest_difference(model(tokens), theirs(tokens.split(max(5, tokens.shape[1] // CHUNKS), dim=1)), by=by)[1]


@torch.no_grad()
def compare_greedy(
    model: GPT, theirs: Callable[[list[int], int], list[int]], *, n_tokens: int, by: str, limit: float = LOGITS
) -> int:
    """Return how many tokens the other program wrote after a prompt; one that is not the model's raises ExportDiffers.

    A token is the model's if its logit is the largest, up to `limit` of it.
    """
    prompt = sequences(model, n_tokens)[-1][0, :PROMPT].tolist()
    count = min(GREEDY, model.config.n_ctx - len(prompt))
    if count < 1:
        return 0
    written = theirs(prompt, count)
    if len(written) != count:
        raise ExportDiffers(f"{by} writes {len(written):,} tokens where {count:,} are asked for")
    logits = model(torch.tensor([prompt + written]))[0, len(prompt) - 1 : -1]
    chosen = logits.gather(1, torch.tensor(written)[:, None])[:, 0]
    short = logits.amax(1) - chosen > 2 * limit * logits.abs().amax(1)
    if short.any():
        place = int(short.int().argmax())
        raise ExportDiffers(
            f"{by} writes another text: token {place + 1} after a prompt is {written[place]}, "
            f"the model's is {int(logits[place].argmax())}"
        )
    return count


def compare_ids(tokenizer: Tokenizer, theirs: Callable[[str], list[int]], *, by: str) -> int:
    """Return how many texts were compared; one that has other ids raises ExportDiffers."""
    texts = texts_for(tokenizer)
    for text in texts:
        our_ids, their_ids = tokenizer.encode(text), list(theirs(text))
        if their_ids != our_ids:
            raise ExportDiffers(
                f"{by} gives other ids for the text {text!r:.200}: {their_ids[:12]}, not {our_ids[:12]}"
            )
    return len(texts)


def texts_for(tokenizer: Tokenizer) -> list[str]:
    """Return hard texts, without those that the tokenizer cannot encode, and one of its own tokens; always the same."""
    ids = np.random.default_rng(0).permutation(tokenizer.n_vocab)[:4000]
    own = "".join(tokenizer.decode([i]) for i in ids.tolist() if i != tokenizer.eot)
    return [text for text in [*TEXTS, own.replace("\ufffd", "")] if tokenizer.knows(text)]
