"""How the next token is chosen from logits. Pure functions; randomness comes in as numbers in [0, 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fewshot.base.errors import check

LEAST = torch.finfo(torch.float32).tiny  # a smaller temperature or top_p would be 0 in float32
MOST_TEMPERATURE = 1e6


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Temperature 0 is greedy. `top_k` keeps the k likeliest tokens, `top_p` the smallest set of probability p.

    Before that, a token that was written `count` times loses `count * frequency_penalty + presence_penalty` logits, and
    `logit_bias` is added. The prompt's tokens do not count. As in OpenAI's completions.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)  # by token

    def __post_init__(self) -> None:
        check(self.temperature >= 0, f"temperature is {self.temperature}, must be at least 0 (0 is greedy)")
        check(
            self.temperature <= MOST_TEMPERATURE,
            f"temperature is {self.temperature}, must be at most 1e6 (above it, all tokens are almost equally likely)",
        )
        check(self.top_k is None or self.top_k >= 1, f"top_k is {self.top_k}, must be at least 1")
        check(self.top_p is None or 0 < self.top_p <= 1, f"top_p is {self.top_p}, must be in (0, 1]")
        for name in ("presence_penalty", "frequency_penalty"):
            check(-2 <= getattr(self, name) <= 2, f"{name} is {getattr(self, name)}, must be in -2..2")
        object.__setattr__(self, "logit_bias", dict(self.logit_bias))
        for token, bias in self.logit_bias.items():
            check(-100 <= bias <= 100, f"logit_bias of token {token} is {bias}, must be in -100..100")

    @property
    def adjusts(self) -> bool:
        """Whether `adjusted` may change anything."""
        return bool(self.logit_bias or self.presence_penalty or self.frequency_penalty)

    def adjusted(self, logits: Float[Tensor, " V"], written: Sequence[int]) -> Float[Tensor, " V"]:
        """Return the logits after penalties for what was written, and biases; a bias of -100 bans a token."""
        if not self.adjusts:
            return logits
        logits = logits.clone()
        if self.frequency_penalty or self.presence_penalty:
            given = torch.tensor(list(written), dtype=torch.long, device=logits.device)
            tokens, counts = given.unique(return_counts=True)
            logits[tokens] -= counts * self.frequency_penalty + self.presence_penalty
        for token, bias in self.logit_bias.items():
            logits[token] = -torch.inf if bias == -100 else logits[token] + bias
        return logits


GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True)
class RowSampling:
    """The settings of every row of a batch as tensors, made once for all steps; see `RowSampling.of`."""

    temperatures: Float[Tensor, "B 1"]  # at least LEAST, 1 in greedy rows
    greedy: Int[Tensor, " G"]  # indices of the greedy rows
    limited: Int[Tensor, " L"]  # indices of the rows with a top_k
    top_k: Int[Tensor, "L 1"]
    max_k: int
    nucleus: Int[Tensor, " N"]  # indices of the rows with a top_p
    top_p: Float[Tensor, "N 1"]

    @classmethod
    def of(cls, rows: Sequence[Sampling], device: torch.device | str = "cpu") -> RowSampling:
        """Return the settings of these rows, one `Sampling` a row."""
        drawn = {i: row for i, row in enumerate(rows) if row.temperature > 0}
        ks = {i: row.top_k for i, row in drawn.items() if row.top_k is not None}
        ps = {i: row.top_p for i, row in drawn.items() if row.top_p is not None and row.top_p < 1}

        def indices(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=device)

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

        return cls(
            temperatures=column([max(row.temperature, LEAST) if row.temperature > 0 else 1.0 for row in rows]),
            greedy=indices([i for i in range(len(rows)) if i not in drawn]),
            limited=indices(list(ks)),
            top_k=indices(list(ks.values()))[:, None],
            max_k=max(ks.values(), default=0),
            nucleus=indices(list(ps)),
            top_p=column([max(p, LEAST) for p in ps.values()]),
        )


def probabilities(logits: Float[Tensor, "B V"], rows: RowSampling) -> Float[Tensor, "B V"]:
    """Return the distributions that tokens are drawn from: temperature first, then top-k, then top-p.

    The order is that of OpenAI's code. Every step works row by row and on the rows that ask for it alone, so a row's
    distribution is the same to the bit whatever stands beside it.
    """
    likeliest = logits[rows.greedy].argmax(dim=-1)
    logits = logits.float()
    logits = (logits - logits.amax(dim=-1, keepdim=True)) / rows.temperatures  # the limit of a small one is greedy
    if len(rows.limited):
        logits[rows.limited] = _keep_top_k(logits[rows.limited], rows.top_k, rows.max_k)
    probs = logits.softmax(dim=-1)
    if len(rows.nucleus):
        probs[rows.nucleus] = _keep_top_p(probs[rows.nucleus], rows.top_p)
    if len(rows.greedy):
        probs[rows.greedy] = torch.nn.functional.one_hot(likeliest, logits.shape[-1]).float()
    return probs


def _keep_top_k(logits: Float[Tensor, "L V"], top_k: Int[Tensor, "L 1"], max_k: int) -> Float[Tensor, "L V"]:
    """Return the logits with all but the `top_k` largest of each row at -inf; of equals the first ones are kept.

    `topk` may take any of several equals, and others for another k: so only the values are taken from it.
    """
    n_vocab = logits.shape[-1]
    top_k = top_k.clamp(max=n_vocab)
    least = logits.topk(min(max_k, n_vocab), dim=-1).values.gather(1, top_k - 1)
    kept = logits >= least
    n_kept = kept.sum(dim=-1, keepdim=True)
    if bool((n_kept > top_k).any()):  # too many equals somewhere
        equal = logits == least
        n_equal = top_k - (n_kept - equal.sum(dim=-1, keepdim=True))
        kept &= ~equal | (equal.cumsum(dim=-1) <= n_equal)
    return logits.masked_fill(~kept, -torch.inf)


def _keep_top_p(probs: Float[Tensor, "N V"], top_p: Float[Tensor, "N 1"]) -> Float[Tensor, "N V"]:
    """Return the distribution over the fewest tokens that hold `top_p` of the probability; the likeliest is kept."""
    ordered, where = probs.sort(dim=-1, descending=True, stable=True)
    cumulated = ordered.cumsum(dim=-1)
    kept = cumulated - ordered < top_p  # the probability of the likelier ones, 0 for the first
    total = cumulated.where(kept, 0).amax(dim=-1, keepdim=True)  # a sum could differ in its last bit with the batch
    return torch.zeros_like(probs).scatter(-1, where, ordered.where(kept, 0) / total)


def choose_tokens(logits: Float[Tensor, "B V"], rows: RowSampling, draws: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """Return one token a row; `draws` are uniform numbers in [0, 1), looked up in the cumulated distribution."""
    if len(rows.greedy) == len(logits):
        return logits.argmax(dim=-1)
    cumulated = probabilities(logits, rows).double().cumsum(dim=-1)
    point = draws.to(cumulated)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, point, right=True).squeeze(-1).clamp(max=logits.shape[-1] - 1)
