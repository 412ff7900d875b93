"""One optimizer step in two halves: the gradient of a batch, then the update.

Between them stands one small all-reduce, so that all processes know the same loss and the same norm before any weight
changes. A step is a function of (seed, step): nothing here depends on which process works which rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fewshot.base.rng import seed_of
from fewshot.dataset.loader import Batch, load_batch
from fewshot.model.gpt import GPT
from fewshot.train.build import Setup
from fewshot.train.schedule import Step


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What is known of a batch's gradient before the update."""

    loss: float  # nats a token
    norm: float  # of all gradients together, before clipping
    stop: bool  # whether some process was asked to stop


def compute_gradient(setup: Setup, step: Step, *, stop: bool = False) -> Gradient:
    """Leave the gradient of the step's batch in the parameters, and return its loss and norm over all processes."""
    setup.model.train()
    losses = torch.stack(list(_losses(setup, step)))
    squares = setup.optimizers.squared_norm()
    total, square, votes = torch.stack([losses.sum(), squares, losses.new_tensor(float(stop))]).tolist()
    return Gradient(loss=total, norm=square**0.5, stop=votes > 0)


def update(setup: Setup, step: Step, gradient: Gradient) -> None:
    """Clip the gradient, change the weights and drop the gradient."""
    setup.optimizers.clip(gradient.norm, setup.config.optimizer.clip)
    setup.optimizers.step(step.lr_fraction)


def _losses(setup: Setup, step: Step) -> Iterator[torch.Tensor]:
    """Yield each micro-batch's share of the loss, once its gradient has been added."""
    n_tokens = step.n_rows * setup.config.model.n_ctx
    for batch in micro_batches(setup, step):
        with setup.precision.autocast(setup.model.wpe.weight.device.type):
            loss = loss_of(setup.model, batch, n_tokens=n_tokens, seed=setup.config.loop.seed)
        loss.backward()
        yield loss.detach().double()


def micro_batches(setup: Setup, step: Step) -> Iterator[Batch]:
    """Yield the batch in parts of `micro_rows` rows; the last is padded with rows that count nothing."""
    loop = setup.config.loop
    assert loop.micro_rows is not None, "start has resolved it"
    for first in range(0, step.n_rows, loop.micro_rows):
        yield load_batch(
            setup.mixture,
            first_row=step.first_row + first,
            n_rows=min(loop.micro_rows, step.n_rows - first),
            padded_to=loop.micro_rows,
            with_documents=loop.document_masking,
        )


def loss_of(model: GPT, batch: Batch, *, n_tokens: int, seed: int = 0) -> torch.Tensor:
    """Return a batch's share of the mean loss over `n_tokens` targets, in nats.

    In training, dropout is keyed by (seed, row).
    """
    device = model.wpe.weight.device
    keys = None
    if model.training and model.config.dropout > 0:
        keys = torch.tensor([seed_of("dropout", seed, batch.first_row + i) for i in range(len(batch.tokens))])
    documents = None if batch.documents is None else batch.documents.to(device, non_blocking=True)
    tokens, targets = (part.to(device, non_blocking=True) for part in (batch.tokens, batch.targets))
    return model.loss(tokens, targets, documents, n_tokens=n_tokens, dropout_keys=keys)
