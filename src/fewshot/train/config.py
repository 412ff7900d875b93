"""How a model is trained: frozen values, counted in tokens, not steps. The model's shape is in `GPTConfig`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewshot.base.errors import check, check_counts
from fewshot.model.footprint.activations import RECOMPUTE

PRECISIONS = ("auto", "float32", "bfloat16")
DECAYS = ("cosine", "linear")
SWITCHES = ("auto", "always", "never")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Batch size and learning rate as functions of the tokens seen. Source: Brown et al. 2020, Appendix B."""

    n_tokens: int  # tokens of the whole run
    batch_tokens: int  # tokens per batch once the ramp has ended
    batch_start_tokens: int  # tokens per batch at the start of the ramp; equal to batch_tokens: no ramp
    ramp_tokens: int  # tokens over which the batch size grows linearly
    warmup_tokens: int  # tokens over which the learning rate grows linearly
    decay_tokens: int  # tokens from the start of the run to the end of the decay
    final_fraction: float = 0.1  # the learning rate after decay_tokens, as a fraction of its peak
    decay: str = "cosine"  # "cosine" (the paper's) or "linear"

    def __post_init__(self) -> None:
        check_counts(self, "n_tokens", "batch_tokens", "batch_start_tokens")
        check(
            self.batch_start_tokens <= self.batch_tokens,
            f"batch_start_tokens {self.batch_start_tokens} is above batch_tokens {self.batch_tokens}",
        )
        check(self.decay in DECAYS, f"decay is {self.decay!r}, allowed: {', '.join(DECAYS)}")
        check(0 <= self.final_fraction <= 1, f"final_fraction is {self.final_fraction}, must be in [0, 1]")
        for name in ("ramp_tokens", "warmup_tokens"):
            check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}, must not be negative")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW's defaults are the paper's; `muon` and `normuon` update the blocks' matrices, AdamW everything else."""

    name: str = "adamw"  # "adamw", "muon" or "normuon"; without a published preset a run takes "muon"
    lr: float = 6e-4  # peak learning rate of AdamW; if it is not given, the model's size decides
    # peak learning rate of Muon, on AdamW's scale: an update has the same root mean square
    matrix_lr: float = 0.01
    beta1: float = 0.9  # of AdamW: decay of the mean gradient
    beta2: float = 0.95  # of AdamW and NorMuon: decay of the mean squared gradient
    eps: float = 1e-8  # of AdamW: added to the root of the mean square
    weight_decay: float = 0.1  # decoupled; on matrices only, embeddings included
    momentum: float = 0.95  # of Muon and NorMuon
    clip: float = 1.0  # largest global norm of the gradient

    @property
    def summary(self) -> str:
        """Name and peak learning rates in a few words."""
        matrices = "" if self.name == "adamw" else f", {self.matrix_lr:g} for matrices"
        return f"{self.name}, lr {self.lr:g}{matrices}"

    def __post_init__(self) -> None:
        check(0 <= self.weight_decay < math.inf, f"weight_decay is {self.weight_decay}, must be at least 0 and finite")
        check(0 <= self.momentum < 1, f"momentum is {self.momentum}, must be in [0, 1)")
        check(self.eps > 0, f"eps is {self.eps}, must be > 0")
        check(self.lr > 0 and self.matrix_lr > 0, f"lr is {self.lr} and matrix_lr {self.matrix_lr}, both must be > 0")
        check(self.clip > 0, f"clip is {self.clip}, must be > 0")
        check(
            0 <= self.beta1 < 1 and 0 <= self.beta2 < 1,
            f"beta1 is {self.beta1} and beta2 {self.beta2}, both must be in [0, 1)",
        )


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Over how many processes a run is spread; started by torchrun. The sizes multiply to the number of processes."""

    dp: int = 1  # copies of the model, each with other rows of the batch
    fsdp: int | None = None  # processes that share the weights and have other rows; None: all that are left
    tp: int = 1  # processes that share the heads and the feed-forward units of every block
    pp: int = 1  # stages of consecutive blocks
    cp: int = 1  # processes that share the positions of every row, for long rows
    # add gradients in one order whatever the number of processes: the same bits on 1, 2, 4 ... (dp and fsdp alone)
    exact: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "dp", "tp", "pp", "cp")
        check(self.fsdp is None or self.fsdp >= 1, f"fsdp is {self.fsdp}, must be at least 1")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How the training loop runs: seed, memory, precision, validation, checkpoints, log."""

    seed: int = 0  # seed of the weights, the order of rows and dropout
    # rows in one forward pass, to which every part of a batch is padded; None: equal parts of a batch that fit in a
    # quarter of the free memory, where batches grow no more than the smallest has or 4,096 tokens
    micro_rows: int | None = None
    precision: str = "auto"  # of the matrix products: "auto", "float32" or "bfloat16"
    compile: str = "auto"  # whether the blocks are compiled: "auto", "always" or "never"
    # the attention kernel: "auto", a name from KERNELS in kernels/choose.py, or one name per pattern
    kernel: str | dict[str, str] = "auto"
    # what the backward pass computes again instead of having it stored, with the same gradients: "none", "selective"
    # (the feed-forward half of every block: half of the activations, a ninth more arithmetic) or "full" (a third more)
    recompute: str = "none"
    # hide other documents in the same row from a position; GPT-3 does not hide them
    document_masking: bool = False
    # a batch whose loss is above so many times the mean of the last 128, and 6 standard deviations above it, is not
    # learned from; None: only one whose loss or gradient is not finite
    spike_factor: float | None = 2.0
    validate_every: int = 250  # steps between validations
    validate_rows: int | None = 1024  # rows of validation text to use; None: all
    checkpoint_every: int = 500  # steps between checkpoints
    keep_checkpoints: int = 2  # older checkpoints are deleted
    log_every: int = 10  # steps between lines of metrics.jsonl

    def __post_init__(self) -> None:
        check(self.precision in PRECISIONS, f"precision is {self.precision!r}, allowed: {', '.join(PRECISIONS)}")
        check(self.compile in SWITCHES, f"compile is {self.compile!r}, allowed: {', '.join(SWITCHES)}")
        check_counts(self, "validate_every", "checkpoint_every", "keep_checkpoints", "log_every")
        check(
            self.validate_rows is None or self.validate_rows >= 1,
            f"validate_rows is {self.validate_rows}, must be >= 1",
        )
        check(
            self.spike_factor is None or self.spike_factor > 1,
            f"spike_factor is {self.spike_factor}, must be above 1, or null",
        )
        check(self.recompute in RECOMPUTE, f"recompute is {self.recompute!r}, allowed: {', '.join(RECOMPUTE)}")
        check(self.micro_rows is None or self.micro_rows >= 1, f"micro_rows is {self.micro_rows}, must be at least 1")
