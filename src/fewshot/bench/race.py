"""Our training against a plain GPT-2 loop of transformers, of the same shape and on the same rows, in turns."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch.nn.functional import cross_entropy

from fewshot.base.errors import BadValue, check
from fewshot.checkpoint.folder import RunFolder
from fewshot.dataset.loader import IGNORED, ValidationBatches, load_batch
from fewshot.dataset.mixture import Mixture
from fewshot.dataset.pack import Packed
from fewshot.dataset.prepare import load_tokens, training_mixture
from fewshot.train.records.metrics import StepMetrics
from fewshot.train.resolving.resolve import RunConfig
from fewshot.train.run import read_run_config, start

TURN_STEPS = 20  # steps of one before it is the other's turn
PEER_LR = 1e-3


def race(
    given: Mapping[str, Any], run: Path, *, until_loss: float, peer_steps: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Return seconds until our run's validation loss is at most `until_loss`, against the peer's `peer_steps` steps.

    The peer is `GPT2LMHeadModel`, float32, eager, AdamW at 1e-3, no schedule, no dropout. Both read the same rows;
    they take turns of 20 steps, so that a noisy machine disturbs both alike. Only training is timed (compilation and
    data loading included), validation is not.
    """
    reached, trail = None, []
    # Left open, our training would take the first Ctrl-C for itself while only the peer is still at work.
    with contextlib.closing(cast("Generator[StepMetrics, None, None]", start(given, run, say=say))) as reports:
        ours = next(reports)
        folder = RunFolder(run)
        config = read_run_config(run)
        tokens = load_tokens(config.data, folder.data)
        check(bool(tokens.validation), "a race needs validation text: data.val_fraction must be above 0")
        peer = _Peer(config, training_mixture(config.data, tokens, n_ctx=config.model.n_ctx, seed=config.loop.seed))
        while True:
            n_taken = 0
            for n_taken, ours in enumerate(itertools.islice(reports, TURN_STEPS), start=1):  # noqa: B007
                if ours.val_loss is None:
                    continue
                trail.append(
                    {"step": ours.step, "seconds": round(ours.seconds, 2), "val_loss": round(ours.val_loss, 4)}
                )
                say(f"ours: step {ours.step}, {ours.seconds:.1f} s, validation {ours.val_loss:.4f}")
                if ours.val_loss <= until_loss:
                    reached = ours
                    break
            if reached is not None:
                break
            if ours.step == ours.n_steps:
                raise BadValue(f"our run ended at {ours.val_loss:.4f}, above {until_loss}: nothing to compare")
            if n_taken < TURN_STEPS:
                raise KeyboardInterrupt  # our training was asked to stop, and did
            peer.take_turn(peer_steps)
    while peer.step < peer_steps:
        peer.take_turn(peer_steps)
    peer_loss = peer.validation_loss(Packed(tokens.validation, config.model.n_ctx))
    return {
        "until_loss": until_loss,
        "ours": {"steps": reached.step, "seconds": reached.seconds, "val_loss": reached.val_loss, "trail": trail},
        "peer": {"steps": peer.step, "seconds": peer.seconds, "val_loss": peer_loss},
        "ratio": reached.seconds / peer.seconds,
    }


class _Peer:
    """transformers' GPT-2 in the loop that its users write."""

    def __init__(self, config: RunConfig, mixture: Mixture) -> None:
        try:
            from transformers import GPT2Config, GPT2LMHeadModel
        except ModuleNotFoundError:
            raise BadValue("the race needs transformers: pip install -e '.[bench]'") from None
        shape = config.model
        torch.manual_seed(config.loop.seed)
        self.model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=shape.n_vocab,
                n_positions=shape.n_ctx,
                n_embd=shape.d_model,
                n_layer=shape.n_layers,
                n_head=shape.n_heads,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                bos_token_id=None,
                eos_token_id=None,
            )
        ).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=PEER_LR)
        self.mixture, self.n_rows = mixture, config.schedule.batch_tokens // shape.n_ctx
        self.step, self.seconds = 0, 0.0

    def take_turn(self, most_steps: int) -> None:
        """Train as many steps as ours has in a turn, or as are left of `most_steps` in all."""
        for _ in range(min(TURN_STEPS, most_steps - self.step)):
            self.train_step()

    def train_step(self) -> None:
        """Train one step and add its time."""
        began = time.perf_counter()
        batch = load_batch(self.mixture, first_row=self.step * self.n_rows, n_rows=self.n_rows)
        logits = self.model(batch.tokens).logits
        loss = cross_entropy(logits.flatten(0, 1), batch.targets.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        loss.item()
        self.step += 1
        self.seconds += time.perf_counter() - began

    @torch.no_grad()
    def validation_loss(self, validation: Packed) -> float:
        """Return nats a token over all validation rows."""
        self.model.eval()
        total, batches = 0.0, ValidationBatches(validation, n_rows=64)
        for batch in batches:
            logits, targets = self.model(batch.tokens).logits.flatten(0, 1), batch.targets.flatten()
            total += cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum").item()
        return total / batches.n_targets
