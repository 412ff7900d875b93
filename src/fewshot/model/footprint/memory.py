"""Bytes of training on one process, by kind, and the most that it holds at a moment. In: a shape and a layout.

Weights, gradients and moments are float32; with bfloat16 the products read copies of the weights. What a step holds
at its worst moment: all that stays, the activations of the micro-batches whose backward pass is still to come, and the
work of that moment, which is the loss or the backward pass of one block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewshot.model.config import GPTConfig
from fewshot.model.footprint.activations import FLOAT32, backward_bytes, end_bytes, gathered_bytes, held_bytes
from fewshot.model.footprint.layout import Layout, stage_layers
from fewshot.model.footprint.parameters import Counts, block_counts, first_counts, last_counts

OPTIMIZERS = ("adamw", "muon", "normuon")
PRODUCT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
CHUNK_BYTES = 2**27  # that the logits of one chunk of the loss take at most
COPIES = 8  # bytes a logit that torch takes beside it, as kernels/cross_entropy.py has it, which needs torch


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Bytes on one process of a stage, at the moment when it holds the most."""

    stage: int  # from 0
    n_layers: int  # of the stage
    n_parameters: int  # of them or of parts of them, held here
    weights: int
    gradients: int
    moments: int
    copies: int  # weights in the type of the products
    communication: int  # gathered weights and gradients on their way
    activations: int  # of all micro-batches whose backward pass is still to come
    work: int  # the loss, or the backward pass of a block
    peak: int  # their sum; less if activations of all of a step's micro-batches wait, as gradients come while they go
    before_loss: int  # what a forward pass leaves when its loss begins: activations, copies, gathered weights

    @property
    def kinds(self) -> dict[str, int]:
        """The kinds by name."""
        names = ("weights", "gradients", "moments", "copies", "communication", "activations", "work")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Work:
    """How a step is computed."""

    micro_rows: int = 1  # rows of one forward pass
    n_micro: int = 2  # forward passes of one step on one process
    recompute: str = "none"  # one of RECOMPUTE
    precision: str = "bfloat16"
    optimizer: str = "adamw"
    native_loss: bool = False  # gradients take the place of logits, without copies: kernels/cross_entropy.py


@dataclass(frozen=True, kw_only=True)
class _Moment:
    """Bytes that come and go within a step, at one moment of it."""

    copies: int
    communication: int
    work: int

    @property
    def total(self) -> int:
        return self.copies + self.communication + self.work


def optimizer_bytes(counts: Counts, optimizer: str) -> int:
    """Return the bytes of moments: Adam has two for a number, Muon one, NorMuon one and one for each row.

    Of an optimizer that is not known here: two.
    """
    if optimizer not in ("muon", "normuon"):
        return 2 * FLOAT32 * counts.total
    rows = counts.matrix_rows if optimizer == "normuon" else 0
    return FLOAT32 * (2 * (counts.total - counts.matrices) + counts.matrices + rows)


def checkpoint_bytes(config: GPTConfig, optimizer: str) -> tuple[int, int]:
    """Return the bytes of a checkpoint: weights, and the moments beside them."""
    ends = first_counts(config) + last_counts(config, own_matrix=not config.tied)
    counts = block_counts(config).times(config.n_layers) + ends
    return FLOAT32 * counts.total, optimizer_bytes(counts, optimizer)


def chunk_rows(n_rows: int, n_vocab: int, per_logit: int) -> int:
    """Return how many rows of logits the loss makes at once: as few equal chunks as `CHUNK_BYTES` allow."""
    most = max(1, CHUNK_BYTES // (n_vocab * per_logit))
    return max(1, math.ceil(n_rows / max(1, math.ceil(n_rows / most))))


def loss_bytes(n_tokens: int, n_vocab: int, d_model: int, *, size: int, native: bool) -> int:
    """Return the most bytes that the chunked loss takes beside its input.

    The gradients of hidden states and output matrix; in a narrower type copies of that matrix and of a chunk's hidden
    states; and a chunk's logits with what becomes of them, or its error with its own gradient of the matrix.
    """
    per_logit = size if native else size + COPIES
    rows = chunk_rows(n_tokens, n_vocab, per_logit)
    matrix, several, narrow = n_vocab * d_model, n_tokens > rows, size < FLOAT32
    copies = size * (matrix + rows * d_model) if narrow else 0
    softmax = rows * n_vocab * per_logit + (FLOAT32 * matrix if several else 0)
    of_chunk = size * matrix if narrow or several else 0
    return copies + FLOAT32 * n_tokens * d_model + max(softmax, rows * n_vocab * size + FLOAT32 * matrix + of_chunk)


def footprint(config: GPTConfig, layout: Layout, work: Work) -> Footprint:
    """Return the bytes on a process of the fullest stage; the layout must fit the model (`why_not`)."""
    return max(stage_footprints(config, layout, work), key=lambda stage: stage.peak)


def stage_footprints(config: GPTConfig, layout: Layout, work: Work) -> list[Footprint]:
    """Return the bytes on a process of each stage of a pipeline; of a layout without one there is a single stage."""
    return [_stage(config, layout, work, i, n) for i, n in enumerate(stage_layers(config.n_layers, layout.pp))]


def _stage(config: GPTConfig, layout: Layout, work: Work, stage: int, n_layers: int) -> Footprint:
    """Return the bytes on a process of one stage."""
    size, n_tokens = PRODUCT_BYTES[work.precision], work.micro_rows * config.n_ctx // layout.cp
    first, last = stage == 0, stage == layout.pp - 1
    block = block_counts(config, tp=layout.tp)
    counts = block.times(n_layers)
    counts += first_counts(config) if first else Counts()
    counts += last_counts(config, own_matrix=not (config.tied and first)) if last else Counts()
    share = _share(counts, layout.fsdp)
    held = held_bytes(config, recompute=work.recompute, size=size, tp=layout.tp)
    if work.recompute != "full":
        held += gathered_bytes(config, size=size, tp=layout.tp, cp=layout.cp)
    waiting = min(layout.pp - stage, work.n_micro)
    arrived = 0 if first else FLOAT32 * config.d_model  # what came from the stage before is already counted with it
    activations = n_tokens * (waiting * (n_layers * held - arrived) + (end_bytes(config) if last else 0))
    moments = _moments_of_step(config, layout, work, counts, first=first, last=last)
    fullest = max(moments, key=lambda moment: moment.total)
    # Gradients are added over processes once a step, with its last micro-batch, and until then lie here whole.
    gradients = FLOAT32 * (counts if work.n_micro > 1 else share).total
    kept = FLOAT32 * share.total + optimizer_bytes(share, work.optimizer)
    at_once = gradients + activations + fullest.work
    if waiting == work.n_micro:  # no gradients at the first backward pass, and one micro-batch less at the second
        later = (activations // waiting * (waiting - 1) + fullest.work) if waiting > 1 else 0
        at_once = max(activations + fullest.work, gradients + later)
    return Footprint(
        stage=stage,
        n_layers=n_layers,
        n_parameters=counts.total,
        weights=FLOAT32 * share.total,
        gradients=gradients,
        moments=optimizer_bytes(share, work.optimizer),
        copies=fullest.copies,
        communication=fullest.communication,
        activations=activations,
        work=fullest.work,
        peak=kept + fullest.copies + fullest.communication + at_once,
        before_loss=activations + moments[-1].copies + _gathered(layout, counts, block, n_blocks=1) if last else 0,
    )


def _moments_of_step(
    config: GPTConfig, layout: Layout, work: Work, counts: Counts, *, first: bool, last: bool
) -> list[_Moment]:
    """Return the moments of which one is the fullest: a block's backward pass and last, if any, the loss."""
    size, n_tokens = PRODUCT_BYTES[work.precision], work.micro_rows * config.n_ctx // layout.cp
    block = block_counts(config, tp=layout.tp)
    backward = n_tokens * backward_bytes(config, recompute=work.recompute, size=size, tp=layout.tp)
    # the gradient of a feed-forward matrix, in a narrower type there too before it is added
    backward += config.d_model * (config.ff_width // layout.tp) * (FLOAT32 if size == FLOAT32 else FLOAT32 + size)
    passed_on = _passed_on(config, layout, work, first=first, last=last)
    narrow = size if size < FLOAT32 else 0
    copies = narrow * counts.matrices  # autocast keeps them until the forward pass ends, autograd until they are used
    # Of what is recomputed there are those of one block at a time.
    anew = {"none": 0, "selective": 2 * config.d_model * (config.ff_width // layout.tp), "full": block.matrices}
    n_others = 0 if layout.pp > 1 else counts.matrices // block.matrices - 1
    again = copies - narrow * n_others * anew[work.recompute]
    tied_gradient = 0
    if last:
        backward -= n_tokens * end_bytes(config)
        tied_gradient = FLOAT32 * config.n_vocab * config.d_model if config.tied and first else 0
    in_backward = _Moment(
        copies=again,
        communication=passed_on + _gathered(layout, counts, block, n_blocks=2),
        work=backward + tied_gradient,  # of the output matrix: it waits for the embedding's
    )
    if not last:
        return [in_backward]
    matrix = config.n_vocab * config.d_model
    in_loss = _Moment(
        copies=copies,
        communication=passed_on + _gathered(layout, counts, block, n_blocks=1),
        # Off a CPU its backward pass multiplies both gradients by one number.
        work=max(
            loss_bytes(n_tokens, config.n_vocab, config.d_model, size=size, native=work.native_loss),
            0 if work.native_loss else FLOAT32 * (2 * matrix + n_tokens * config.d_model),
        ),
    )
    return [in_backward, in_loss]


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


def _gathered(layout: Layout, counts: Counts, block: Counts, *, n_blocks: int) -> int:
    """Return the bytes of weights gathered in float32, where several processes have a share or a copy of them.

    What is outside the blocks stays gathered, of the blocks the last one and in the backward pass the next one too. A
    stage of a pipeline stays gathered from its first backward pass on, and a gradient is laid out to be added.
    """
    if layout.n_data * layout.cp == 1:
        return 0
    if layout.pp > 1:
        return FLOAT32 * (counts.total + block.total)
    return FLOAT32 * (counts.tables + n_blocks * block.total)


def _passed_on(config: GPTConfig, layout: Layout, work: Work, *, first: bool, last: bool) -> int:
    """Return the bytes of what a stage gets and sends: hidden states and their gradients.

    There is a place for each micro-batch of a step, for what comes from either side, from the first step on; what goes
    to the stage before is there too until it has arrived.
    """
    n_sides = (not first) + (not last)
    return (n_sides * work.n_micro + (not first)) * work.micro_rows * config.n_ctx * config.d_model * FLOAT32
