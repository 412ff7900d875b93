"""One optimizer step in two halves: the gradient of a batch, then the update.

Between them stands one small exchange, so that all processes know the same loss and the same norm before any weight
changes. A step is a function of (seed, step): what it computes does not depend on which process works which rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fewshot.base.rng import seed_of
from fewshot.dataset.loader import Batch, load_batch
from fewshot.model.gpt import GPT
from fewshot.train.build import Setup
from fewshot.train.parallel.context import own_positions
from fewshot.train.parallel.exact import add_up_in_order, squares_by_row
from fewshot.train.parallel.sharded import add_up, micro_batches_of
from fewshot.train.parallel.stages import add_tied_gradients
from fewshot.train.schedule import Step


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What is known of a batch's gradient before the update; the same on all processes."""

    loss: float  # nats a token
    norm: float  # of all gradients together, before clipping
    first_norm: float | None = None  # of that of the first micro-batch's own mean loss; None: not known


def compute_gradient(setup: Setup, step: Step) -> Gradient:
    """Leave the gradient of the step's batch in the parameters; return its loss and norm."""
    setup.model.train()
    n = math.ceil(step.n_rows / setup.micro_rows)
    n_tokens = step.n_rows * setup.config.model.n_ctx
    gradient = gradient_of(setup, lambda number: micro_batch(setup, step, number), n, n_tokens=n_tokens)
    if gradient.first_norm is None:
        return gradient
    return replace(gradient, first_norm=gradient.first_norm * step.n_rows / setup.micro_rows)


def micro_batch(setup: Setup, step: Step, number: int) -> Batch:
    """Return one of the equal parts of a step's batch; rows beyond its last do not count."""
    rows = setup.micro_rows
    return load_batch(
        setup.mixture,
        first_row=step.first_row + number * rows,
        n_rows=max(0, min(rows, step.n_rows - number * rows)),
        padded_to=rows,
        with_documents=setup.config.loop.document_masking,
    )


def gradient_of(setup: Setup, batch_of: Callable[[int], Batch], n: int, *, n_tokens: int) -> Gradient:
    """Leave the gradient of the mean loss over `n` batches, which have `n_tokens` targets together, in the parameters.

    `batch_of` is also asked for some beyond the last, which are to count nothing.
    """
    mine = micro_batches_of(setup.layout, n)
    first_square: list[Tensor] = []

    def look() -> None:
        if len(mine) > 1 and setup.layout.n_processes == 1 and not first_square:
            first_square.append(setup.optimizers.squared_norm())

    losses = losses_of(setup, batch_of, mine, n_tokens=n_tokens, backward=True, after_each=look)
    add_tied_gradients(setup.model, setup.layout)
    exact = setup.layout.exact
    squares = squares_by_row(setup.optimizers.parts) if exact else setup.optimizers.squared_norm()[None]
    loss, square = totals(setup, losses, mine, squares)
    first_norm = math.sqrt(first_square[0]) if first_square else None
    return Gradient(loss=loss, norm=math.sqrt(square), first_norm=first_norm)


def update(setup: Setup, step: Step, gradient: Gradient) -> None:
    """Clip the gradient, change the weights and drop the gradient."""
    setup.optimizers.clip(gradient.norm, setup.config.optimizer.clip)
    setup.optimizers.step(step.lr_fraction)


def losses_of(
    setup: Setup,
    batch_of: Callable[[int], Batch],
    mine: Sequence[int],
    *,
    n_tokens: int,
    backward: bool,
    after_each: Callable[[], None] = lambda: None,
) -> list[Tensor]:
    """Return the losses of the batches with these numbers, each divided by `n_tokens`; `backward` adds gradients.

    Every process calls it with equally many numbers. A model in evaluation mode computes in float32. `after_each` may
    look at the gradients after each batch, where they come one after the other.
    """
    model, seed, layout = setup.model, setup.config.loop.seed, setup.layout
    device = next(model.parameters()).device.type

    def loss_of_batch(number: int) -> Tensor:
        with setup.precision.autocast(device, enabled=model.training):
            return loss_of(model, own_positions(batch_of(number), layout), n_tokens=n_tokens, seed=seed)

    if setup.pipeline is not None:
        batches = [batch_of(number) for number in mine]
        keys = [dropout_keys(model, batch, seed) for batch in batches]
        with setup.precision.autocast(device, enabled=model.training):
            return setup.pipeline.losses(batches, keys, n_tokens=n_tokens, backward=backward)
    if not backward:
        with torch.no_grad():
            return [loss_of_batch(number) for number in mine]
    # Of an outer autocast all micro-batches share the weights in its type, which stay until the step ends: not where
    # memory is to be saved, and not under FSDP, which gathers them anew for each.
    with setup.precision.autocast(device, enabled=not setup.groups and setup.config.loop.recompute == "none"):
        if layout.exact:
            added = add_up_in_order(loss_of_batch, mine, setup.optimizers.parts)
        else:
            added = add_up(loss_of_batch, mine, setup.groups)
        losses = []
        for loss in added:
            losses.append(loss)
            after_each()
        return losses


def loss_of(model: GPT, batch: Batch, *, n_tokens: int, seed: int = 0) -> Tensor:
    """Return a batch's share of the mean loss over `n_tokens` targets, in nats."""
    device = next(model.parameters()).device
    documents = None if batch.documents is None else batch.documents.to(device, non_blocking=True)
    tokens, targets = (part.to(device, non_blocking=True) for part in (batch.tokens, batch.targets))
    keys = dropout_keys(model, batch, seed)
    return model.loss(tokens, targets, documents, n_tokens=n_tokens, dropout_keys=keys)


def dropout_keys(model: GPT, batch: Batch, seed: int) -> Tensor | None:
    """Return what the dropout of each row depends on, its number in the run; None if there is no dropout."""
    if not model.training or model.config.dropout == 0:
        return None
    return torch.tensor([seed_of("dropout", seed, batch.first_row + i) for i in range(len(batch.tokens))])


def totals(
    setup: Setup, losses: Sequence[Tensor], mine: Sequence[int], others: Tensor | None = None
) -> tuple[float, float]:
    """Return the sum of the losses of all processes, and that of `others`, a vector of one length everywhere.

    One exchange. Each loss is counted by one process and all are added in the order of their numbers.
    """
    n = len(mine) * setup.layout.n_data
    by_number = torch.zeros(n, dtype=torch.float64)
    if setup.layout.counts_loss:
        by_number[list(mine)] = torch.stack(list(losses)).double().cpu()
    joined = by_number if others is None else torch.cat([by_number, others.double().cpu()])
    added = setup.layout.total(joined)
    return float(added[:n].sum()), float(added[n:].sum())
