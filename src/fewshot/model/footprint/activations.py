"""What autograd holds of one micro-batch until its backward pass. In: a shape. Out: bytes a token.

The residual stream is float32 always; what goes into a matrix product, or comes out of it, has the products' type.
Attention weights are stored where there is dropout on them, else never. Under tensor parallelism the residual stream
and the norms are on every process.
"""

from __future__ import annotations

from fewshot.model.config import GPTConfig

FLOAT32 = 4  # bytes
# What the backward pass computes again: nothing, the feed-forward half of every block, or blocks whole.
RECOMPUTE = ("none", "selective", "full")
HASH = 3 * 8  # bytes a number while dropout draws: three of its 64-bit hash side by side


def block_bytes(config: GPTConfig, *, size: int = FLOAT32, tp: int = 1) -> int:
    """Return the bytes a token that a whole block holds.

    `size` is that of a number in the products: 4, or 2 for bfloat16 under autocast. In units of numbers a token: two
    inputs of norms, two outputs; q, k, v and the mixed values (4 W) with their log-sum-exp (H); both sides of the
    feed-forward non-linearity (2 F). Narrow queries and keys are also held as they were before they were widened.
    """
    heads = config.n_heads // tp
    narrow = 2 * heads * config.qk_width if config.qk_width < config.head_width else 0
    scores = 3 * config.n_ctx if config.inner_dropout else 1  # attention weights, what is dropped of them, the rest
    attention = size * (config.d_model + 4 * heads * config.head_width + narrow) + FLOAT32 * heads * scores
    norms = FLOAT32 * (2 * config.d_model + 4)  # inputs, and a mean and a deviation each
    return norms + attention + _feed_forward_bytes(config, size=size, tp=tp) + _dropped_bytes(config, size=size)


def _feed_forward_bytes(config: GPTConfig, *, size: int, tp: int) -> int:
    """Return the bytes a token of the feed-forward half's input and of the sides of its non-linearity."""
    # sigmoid(1.702 x) is a third side, but not on a CPU: see kernels/elementwise/gelu.py; ReLU needs its output alone
    sides = {"quick_gelu": 3, "relu": 1}.get(config.activation_name, 2)
    return size * (config.d_model + sides * (config.ff_width // tp))


def _dropped_bytes(config: GPTConfig, *, size: int) -> int:
    """Return the bytes a token of what dropout multiplies the two residual additions by."""
    return size * 2 * config.d_model if config.dropout else 0


def held_bytes(config: GPTConfig, *, recompute: str = "none", size: int = FLOAT32, tp: int = 1) -> int:
    """Return the bytes a token that a block holds from its forward to its backward pass; recomputed, its input.

    Recomputed selectively, it holds all but its feed-forward half, of which the input is the residual stream.
    """
    if recompute == "full":
        return FLOAT32 * config.d_model
    whole = block_bytes(config, size=size, tp=tp)
    return whole - (_feed_forward_bytes(config, size=size, tp=tp) if recompute == "selective" else 0)


def gathered_bytes(config: GPTConfig, *, size: int = FLOAT32, tp: int = 1, cp: int = 1) -> int:
    """Return the bytes a token of keys and values that came from other processes: the most, those of a dense layer."""
    return size * 2 * (cp - 1) * (config.n_heads // tp) * config.head_width


def backward_bytes(config: GPTConfig, *, recompute: str = "none", size: int = FLOAT32, tp: int = 1) -> int:
    """Return the bytes a token that the backward pass of one block takes beside what is held.

    That is what was recomputed, and the gradients on both sides of the feed-forward non-linearity where the outer side
    itself is not needed any more: a feed-forward width, and the stream's gradient.
    """
    again = block_bytes(config, size=size, tp=tp) - held_bytes(config, recompute=recompute, size=size, tp=tp)
    hashed = max(config.d_model, config.n_heads // tp * config.n_ctx if config.inner_dropout else 0)
    drawing = HASH * hashed if config.dropout else 0
    return again + max(drawing, size * (config.ff_width // tp) + FLOAT32 * config.d_model)


def end_bytes(config: GPTConfig) -> int:
    """Return the bytes a token after the blocks: the input of the last norm and the hidden states."""
    return FLOAT32 * 2 * config.d_model


def activation_bytes(config: GPTConfig, *, recompute: str = "none", size: int = FLOAT32) -> int:
    """Return the bytes of one sequence of n_ctx tokens on one process, up to the loss.

    With recomputation one block as a whole is counted too, as the backward pass holds it.
    """
    held = held_bytes(config, recompute=recompute, size=size)
    again = block_bytes(config, size=size) - held
    return config.n_ctx * (config.n_layers * held + again + end_bytes(config))
