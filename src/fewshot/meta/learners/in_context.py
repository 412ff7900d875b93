"""Learning in context: a GPT reads the examples of a task and answers, and no weight changes.

In: pairs (x, y) of numbers, or of numbers and a label; tokens need no model of their own, a GPT reads them as it is.
Out: a prediction of every y, or of the last label.
The outer loop trains the model on fresh tasks, one a sequence; the inner loop is its forward pass (Brown et al. 2020,
Figure 1.1). Knows neither tasks nor the outer loop. Source: Garg et al. 2022, section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fewshot.meta.curves import Point, point
from fewshot.meta.episodes import Episodes
from fewshot.meta.flops import flops_of
from fewshot.meta.nn.networks import check_trainable
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

X_TYPE, Y_TYPE = 0, 1  # the vocabulary of a pair model: what a position holds


@dataclass(frozen=True, kw_only=True)
class ContextModelConfig:
    """The shape of a model that learns in context; the task gives its vocabulary and its length."""

    n_layers: int = 4
    d_model: int = 32
    n_heads: int = 4
    init_std: float = 0.12  # with GPT's 0.02, which is for wide models, a narrow one learns slowly
    pattern: str = "dense"  # of attention in the layers, such as "alternate(banded(2), dense)"

    @property
    def shape(self) -> str:
        """Its layers and its width, such as "4x48", as learners of several sizes are named."""
        return f"{self.n_layers}x{self.d_model}"

    def gpt(self, *, n_vocab: int, n_ctx: int, positions: str = "learned") -> GPTConfig:
        """Return the config of the GPT; raises BadValue if it is impossible, or does not fit into memory."""
        n_parameters = 12 * self.n_layers * self.d_model**2 + (n_vocab + n_ctx) * self.d_model
        check_trainable(
            n_parameters, f"a model of d_model {self.d_model:,} and {self.n_layers:,} layers", "lower reader"
        )
        return GPTConfig(
            n_layers=self.n_layers,
            d_model=self.d_model,
            n_heads=self.n_heads,
            init_std=self.init_std,
            pattern=self.pattern,
            n_vocab=n_vocab,
            n_ctx=n_ctx,
            positions=positions,
        )


class PairModel(nn.Module):
    """A GPT that reads x1, y1, x2, y2, ... and predicts each y at its x, for at most `n_pairs` pairs.

    An input is a linear map of its numbers, plus the embedding of its type, x or y, plus that of its position: the
    number of the pair, which its x and y share, and the place in the pair.
    """

    def __init__(self, config: ContextModelConfig, *, d_x: int, d_y: int = 1, n_pairs: int) -> None:
        super().__init__()
        self.gpt = GPT(config.gpt(n_vocab=2, n_ctx=2 * n_pairs, positions="rows(2)"))
        self.x_in = nn.Linear(d_x, config.d_model, bias=False)
        self.y_in = nn.Linear(d_y, config.d_model, bias=False)
        self.y_out = nn.Linear(config.d_model, d_y)

    def forward(self, x: Float[Tensor, "B K X"], y: Float[Tensor, "B K Y"]) -> Float[Tensor, "B K Y"]:
        """Return a prediction of every y from its own x and the pairs before it; the last y is not read."""
        types = self.gpt.wte.weight
        inputs = torch.stack([self.x_in(x) + types[X_TYPE], self.y_in(y) + types[Y_TYPE]], dim=2)
        return self.y_out(self.gpt.read(inputs.flatten(1, 2)[:, :-1])[:, ::2])


class LabelModel(nn.Module):
    """A GPT that reads item, label, ..., item, label, item and gives logits of the last item's label.

    Its vocabulary is the labels; an item comes in through a linear map of its numbers.
    """

    def __init__(self, config: ContextModelConfig, *, n_dims: int, n_labels: int, n_pairs: int, positions: str) -> None:
        super().__init__()
        self.gpt = GPT(config.gpt(n_vocab=n_labels, n_ctx=2 * n_pairs + 1, positions=positions))
        self.item_in = nn.Linear(n_dims, config.d_model)

    def forward(self, items: Float[Tensor, "N K+1 D"], labels: Int[Tensor, "N K"]) -> Float[Tensor, "N V"]:
        """Return the logits of the last item's label, from the pairs before it."""
        read = self.item_in(items)
        pairs = torch.stack([read[:, :-1], self.gpt.wte(labels)], dim=2).flatten(1, 2)
        return self.gpt.logits(self.gpt.read(torch.cat([pairs, read[:, -1:]], 1))[:, -1])


def as_sequences(episodes: Episodes) -> tuple[Float[Tensor, "N K X"], Float[Tensor, "N K Y"]]:
    """Return all examples of each task as one sequence, support examples first."""
    whole = episodes.all_as_query()
    return whole.query_x, whole.query_y


def squared_errors(predicted: Float[Tensor, "N K Y"], y: Float[Tensor, "N K Y"]) -> Float[Tensor, "N K"]:
    """Return the squared error of every prediction, summed over the numbers that a y has."""
    return (predicted - y).square().sum(-1)


def points_by_examples(
    values: Float[Tensor, "N K"],
    counts: Sequence[int],
    answer: Callable[[int], object] | None = None,
    *,
    is_share: bool = False,
) -> tuple[Point, ...]:
    """Return a curve's points: means over N tasks of the columns in `counts`, where column k is after k examples.

    `answer(k)`, if given, reads k examples of one task and answers one query; its FLOPs are counted.
    """
    flops = {k: None if answer is None else flops_of(partial(answer, k)) for k in counts}
    return tuple(point(values[:, k].tolist(), n_examples=k, flops=flops[k], is_share=is_share) for k in counts)
