"""Learning in context: a GPT reads the examples of a task and answers, and no weight moves.

In: pairs (x, y) of numbers; for tokens a GPT does as it is. Out: at every x what the model makes of all that came
before it. The outer loop trains it on fresh tasks, one a sequence; the inner loop is its forward pass (Brown et al.
2020, Figure 1.1). Knows neither tasks nor the outer loop. Source: Garg et al. 2022, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fewshot.meta.curves import Point, flops_of, point
from fewshot.meta.episodes import Episodes
from fewshot.meta.nn.networks import check_trainable
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

X_KIND, Y_KIND = 0, 1  # the words of a pair reader: what stands at a position


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """The shape of a model that learns in context; the task gives its vocabulary and its length."""

    n_layers: int = 4
    d_model: int = 32
    n_heads: int = 4
    init_std: float = 0.12  # with GPT's 0.02, which is for wide models, a narrow one is long in finding anything

    def gpt(self, *, n_vocab: int, n_ctx: int, positions: str = "learned") -> GPTConfig:
        """Return the whole shape; raises BadValue where it is none, or fits into no memory here."""
        n_least = 12 * self.n_layers * self.d_model**2 + (n_vocab + n_ctx) * self.d_model
        check_trainable(n_least, f"a reader of d_model {self.d_model:,} and {self.n_layers:,} layers", "lower reader")
        return GPTConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            init_std=self.init_std,
            n_vocab=n_vocab,
            n_ctx=n_ctx,
            positions=positions,
        )


class PairReader(nn.Module):
    """A GPT that reads x1, y1, x2, y2, ... and says each y when it has read its x, for at most `n_pairs` pairs.

    An input is a linear map of its numbers, plus the embedding of what it is, x or y, plus that of its position: the
    number of the pair, which its x and y share, and the place in it.
    """

    def __init__(self, config: ReaderConfig, *, d_x: int, d_y: int = 1, n_pairs: int) -> None:
        super().__init__()
        self.gpt = GPT(config.gpt(n_vocab=2, n_ctx=2 * n_pairs, positions="rows(2)"))
        self.x_in = nn.Linear(d_x, config.d_model, bias=False)
        self.y_in = nn.Linear(d_y, config.d_model, bias=False)
        self.y_out = nn.Linear(config.d_model, d_y)

    def forward(self, x: Float[Tensor, "B K X"], y: Float[Tensor, "B K Y"]) -> Float[Tensor, "B K Y"]:
        """Return a prediction of every y from its own x and the pairs before it; the last y is not looked at."""
        kinds = self.gpt.wte.weight
        inputs = torch.stack([self.x_in(x) + kinds[X_KIND], self.y_in(y) + kinds[Y_KIND]], dim=2)
        return self.y_out(self.gpt.read(inputs.flatten(1, 2)[:, :-1])[:, ::2])


def in_a_row(episodes: Episodes) -> tuple[Float[Tensor, "N K X"], Float[Tensor, "N K Y"]]:
    """Return the examples of each task one after the other, those to learn from first."""
    everything = episodes.all_as_query()
    return everything.query_x, everything.query_y


def squared_errors(said: Float[Tensor, "N K Y"], y: Float[Tensor, "N K Y"]) -> Float[Tensor, "N K"]:
    """Of every prediction, summed over the numbers that a y has."""
    return (said - y).square().sum(-1)


def points_by_examples(
    values: Float[Tensor, "N K"], counts: Sequence[int], answer: Callable[[int], object] | None = None
) -> tuple[Point, ...]:
    """Return a curve's points: the mean over N tasks of those columns that `counts` names; column k is after k
    examples.

    `answer(k)`, where given, reads k examples of one task and answers one query; its FLOPs are counted.
    """
    flops = {k: None if answer is None else flops_of(partial(answer, k)) for k in counts}
    return tuple(point(values[:, k].tolist(), n_examples=k, flops=flops[k]) for k in counts)
