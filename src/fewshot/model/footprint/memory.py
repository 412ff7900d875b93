"""Bytes of training on one process, by kind, and the most that it holds at a moment. In: a shape and a layout.

Weights, gradients and moments are float32; with bfloat16 the products read copies of the weights. What a step holds
at its worst moment: all that stays, the activations of the micro-batches whose backward pass is still to come, and the
work of that moment, which is the loss or the backward pass of one block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewshot.base.errors import check
from fewshot.model.config import GPTConfig
from fewshot.model.footprint.activations import FLOAT32, backward_bytes, end_bytes, held_bytes
from fewshot.model.footprint.layout import Layout, stage_layers
from fewshot.model.footprint.parameters import Counts, block_counts, first_counts, last_counts

OPTIMIZERS = ("adamw", "muon", "normuon")
PRODUCT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CHUNK_LOGITS = 2**24  # as model/loss.py has it, which needs torch; a test compares them


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes on one process, the fullest stage of a pipeline."""

    stage: int  # from 0
    n_layers: int  # of the stage
    n_parameters: int  # of them or of parts of them, held here
    weights: int
    gradients: int
    optimizer: int  # moments
    copies: int  # weights in the type of the products
    communication: int  # gathered weights and gradients on their way
    activations: int  # of all micro-batches whose backward pass is still to come
    work: int  # logits of the loss, or the backward pass of a block
    peak: int  # the most at one moment; gradients count only where an earlier micro-batch has left some

    @property
    def kinds(self) -> dict[str, int]:
        """The kinds by name."""
        names = ("weights", "gradients", "optimizer", "copies", "communication", "activations", "work")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Work:
    """How a step is computed."""

    micro_rows: int = 1  # rows of one forward pass
    n_micro: int = 2  # forward passes of one step on one process
    recompute: str = "none"
    precision: str = "bfloat16"
    optimizer: str = "adamw"


def optimizer_bytes(counts: Counts, optimizer: str) -> int:
    """Return the bytes of moments: Adam has two for a number, Muon one, NorMuon one and one for each row."""
    check(optimizer in OPTIMIZERS, f"optimizer is {optimizer!r}, allowed: {', '.join(OPTIMIZERS)}")
    if optimizer == "adamw":
        return 2 * FLOAT32 * counts.total
    rows = counts.matrix_rows if optimizer == "normuon" else 0
    return FLOAT32 * (2 * (counts.total - counts.matrices) + counts.matrices + rows)


def state_bytes(config: GPTConfig, optimizer: str) -> int:
    """Return the bytes of weights, gradients and moments on one process that holds the whole model."""
    counts = _whole_counts(config)
    return 2 * FLOAT32 * counts.total + optimizer_bytes(counts, optimizer)


def checkpoint_bytes(config: GPTConfig, optimizer: str) -> tuple[int, int]:
    """Return the bytes of a checkpoint: weights, and the moments beside them."""
    counts = _whole_counts(config)
    return FLOAT32 * counts.total, optimizer_bytes(counts, optimizer)


def _whole_counts(config: GPTConfig) -> Counts:
    ends = first_counts(config) + last_counts(config, own_matrix=not config.tied)
    return block_counts(config).times(config.n_layers) + ends


def loss_bytes(n_tokens: int, n_vocab: int, d_model: int, *, size: int) -> int:
    """Return the most bytes that the chunked loss takes beside its input.

    The gradients of hidden states and output matrix, and of a chunk the logits and their log-softmax in float32, or
    later the error in the products' type with the chunk's gradient of the matrix.
    """
    rows = max(1, CHUNK_LOGITS // n_vocab)
    chunk, matrix = min(n_tokens, rows) * n_vocab, n_vocab * d_model
    error = chunk * (FLOAT32 if size == FLOAT32 else FLOAT32 + size)
    before = error if n_tokens > rows else 0  # the last chunk's is kept while the next one's logits are made
    return FLOAT32 * (n_tokens * d_model + matrix) + max(2 * FLOAT32 * chunk + before, error + size * matrix)


def footprint(config: GPTConfig, layout: Layout, work: Work) -> Footprint:
    """Return the bytes on a process of the fullest stage; the layout must fit the model (`why_not`)."""
    size = PRODUCT_BYTES[work.precision]
    n_tokens = work.micro_rows * config.n_ctx
    block = block_counts(config, tp=layout.tp)
    held = held_bytes(config, recompute=work.recompute, size=size, tp=layout.tp)
    backward = n_tokens * backward_bytes(config, recompute=work.recompute, size=size, tp=layout.tp)
    backward += config.d_model * (config.ff_width // layout.tp) * (FLOAT32 if size == FLOAT32 else FLOAT32 + size)
    matrix = config.n_vocab * config.d_model
    stages = []
    for stage, n_layers in enumerate(stage_layers(config.n_layers, layout.pp)):
        first, last = stage == 0, stage == layout.pp - 1
        counts = block.times(n_layers)
        counts += first_counts(config) if first else Counts()
        counts += last_counts(config, own_matrix=not (config.tied and first)) if last else Counts()
        share = _share(counts, layout.fsdp)
        waiting = min(layout.pp - stage, work.n_micro)
        activations = n_tokens * (waiting * n_layers * held + (end_bytes(config) if last else 0))
        at_once = backward  # the work of a moment
        if last:
            tied_gradient = FLOAT32 * matrix if config.tied and first else 0  # waits for the embedding's
            at_once += tied_gradient - n_tokens * end_bytes(config)
            loss = loss_bytes(n_tokens, config.n_vocab, config.d_model, size=size)
            at_once = max(at_once, loss, 2 * FLOAT32 * matrix)
        whole = work.n_micro > 1  # gradients are added over processes once a step, and until then lie here whole
        gradients = FLOAT32 * (counts if whole else share).total
        copies = (size * (counts.matrices + (matrix if last else 0))) if size < FLOAT32 else 0
        communication = _gathered(layout, counts, block) + _passed_on(config, layout, work, first=first, last=last)
        moments = optimizer_bytes(share, work.optimizer)
        stays = FLOAT32 * share.total + moments + copies + communication
        moving = activations + at_once
        stages.append(
            Footprint(
                stage=stage,
                n_layers=n_layers,
                n_parameters=counts.total,
                weights=FLOAT32 * share.total,
                gradients=gradients,
                optimizer=moments,
                copies=copies,
                communication=communication,
                activations=activations,
                work=at_once,
                peak=stays + (gradients + moving if work.n_micro > 1 else max(gradients, moving)),
            )
        )
    return max(stages, key=lambda stage: stage.peak)


def _share(counts: Counts, n: int) -> Counts:
    """Return what one of `n` processes keeps of a stage."""
    if n == 1:
        return counts
    return Counts(
        matrices=math.ceil(counts.matrices / n),
        matrix_rows=math.ceil(counts.matrix_rows / n),
        tables=math.ceil(counts.tables / n),
        vectors=math.ceil(counts.vectors / n),
    )


def _gathered(layout: Layout, counts: Counts, block: Counts) -> int:
    """Return the bytes of weights gathered in float32, where several processes have a share or a copy of them.

    What is outside the blocks stays gathered, of the blocks one and the next; a block's gradient is laid out once more
    to be added over the processes. A stage of a pipeline stays gathered from its first backward pass on.
    """
    if layout.n_readers == 1:
        return 0
    if layout.pp > 1:
        return FLOAT32 * (counts.total + block.total)
    return FLOAT32 * (counts.tables + 3 * block.total)


def _passed_on(config: GPTConfig, layout: Layout, work: Work, *, first: bool, last: bool) -> int:
    """Return the bytes that a stage sets aside for what it gets: of every micro-batch of a step, at its beginning.

    These are hidden states from the stage before, and their gradients from the stage after.
    """
    n_sides = (not first) + (not last)
    return n_sides * work.n_micro * work.micro_rows * config.n_ctx * config.d_model * FLOAT32
