"""Log-probabilities of completions. In: a model and token spans. Out: one `Score` a span. Knows no text.

What spans share at their beginnings (demonstrations, questions, the first tokens of choices) is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewshot.base.errors import ContextTooLong, check
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.evaluate.scoring.prefix_tree import PrefixTree, TreeRow, build_prefix_tree
from fewshot.model.logprobs import checked_logprobs

LOGIT_ROWS = 1024  # positions whose logits are held at once: 200 MB of float32 with GPT-3's vocabulary
BATCH_TOKENS = 8192  # a batch has no more tokens, whatever batch_size allows


@dataclass(frozen=True)
class Span:
    """A token sequence of which `tokens[start:]` is to be scored; something must stand before it (start >= 1)."""

    tokens: tuple[int, ...]
    start: int

    def __post_init__(self) -> None:
        check(
            1 <= self.start < len(self.tokens),
            f"tokens from {self.start} of {len(self.tokens)} cannot be scored: at least one must stand before them",
        )


@dataclass(frozen=True)
class Score:
    """A completion's log-probability."""

    logprob: float  # nats, summed over the completion's tokens
    n_tokens: int
    greedy: bool  # every token of the completion is the model's first choice


class Scorer:
    """Scores spans; keeps the last prefix, so that all calls of one evaluation read shared demonstrations once."""

    def __init__(self, lm: LanguageModel, *, batch_size: int) -> None:
        check(batch_size >= 1, f"batch_size is {batch_size}, must be at least 1")
        self.lm, self.batch_size = lm, batch_size
        self.known: tuple[int, ...] = ()
        self._prefix: Any = None

    @torch.inference_mode()
    def score(self, spans: Sequence[Span]) -> list[Score]:
        """Return the spans' scores in their order; they do not depend on the batch size.

        Rows are sorted by length and padded on the right, which a causal model cannot see. Logits are computed for
        completion positions only. Raises ContextTooLong for a span longer than n_ctx + 1 (its last token is not read).
        """
        if not spans:
            return []
        longest = max(len(span.tokens) for span in spans) - 1
        if longest > self.lm.n_ctx:  # before anything is computed
            raise ContextTooLong(longest, self.lm.n_ctx)
        tree = build_prefix_tree(
            [span.tokens[:-1] for span in spans],
            longest_prefix=min(span.start for span in spans) - 1,
            known=self.known,
            branching=self.lm.branching,
        )
        members: list[list[int]] = [[] for _ in tree.rows]  # the spans of each row
        for index, (row, _) in enumerate(tree.places):
            members[row].append(index)
        order = sorted(range(len(tree.rows)), key=lambda row: -len(tree.rows[row]))
        scores: dict[int, Score] = {}
        while order:
            n = max(1, min(self.batch_size, BATCH_TOKENS // len(tree.rows[order[0]])))
            batch, order = order[:n], order[n:]
            hidden = self._read(tree.prefix, [tree.rows[row] for row in batch])
            for at, row in enumerate(batch):
                scores.update(self._scores(hidden[at], spans, tree, members[row]))
        return [scores[index] for index in range(len(spans))]

    def _read(self, prefix: tuple[int, ...], rows: Sequence[TreeRow]) -> Tensor:
        """Return hidden states of rows behind the prefix."""
        width, device = len(rows[0]), self.lm.device
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        for at, row in enumerate(rows):
            tokens[at, : len(row)] = torch.tensor(row.tokens)
        if not prefix and all(row.is_line for row in rows):
            return self.lm.read(tokens.to(device))
        if prefix and prefix != self.known:
            self.known, self._prefix = prefix, self.lm.read_prefix(prefix)
        depths = torch.zeros(len(rows), width, dtype=torch.long)
        sees = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)  # padding reads itself: no row is empty
        for at, row in enumerate(rows):
            depths[at, : len(row)] = torch.tensor(row.depths())
            sees[at, : len(row), : len(row)] = torch.from_numpy(row.sees())
        return self.lm.read_trees(
            self._prefix if prefix else None, tokens.to(device), depths.to(device), sees.to(device)
        )

    def _scores(
        self, hidden: Tensor, spans: Sequence[Span], tree: PrefixTree, members: Sequence[int]
    ) -> dict[int, Score]:
        """Return the scores of a row's spans by their index; `members` are the indices."""
        places: list[int] = []
        targets: list[int] = []
        for index in members:
            span, path = spans[index], tree.places[index][1]
            places += path[span.start - 1 - len(tree.prefix) :]
            targets += span.tokens[span.start :]
        logprobs: list[float] = []
        greedy: list[bool] = []
        goals = torch.tensor(targets, device=hidden.device)
        for states, part in zip(hidden[places].split(LOGIT_ROWS), goals.split(LOGIT_ROWS), strict=True):
            logits = self.lm.logits(states).float()
            logprobs += checked_logprobs(logits.gather(1, part[:, None])[:, 0] - logits.logsumexp(1)).tolist()
            greedy += (logits.argmax(1) == part).tolist()
        scores: dict[int, Score] = {}
        end = 0
        for index in members:
            begin, end = end, end + len(spans[index].tokens) - spans[index].start
            scores[index] = Score(sum(logprobs[begin:end]), end - begin, all(greedy[begin:end]))
        return scores


def score(lm: LanguageModel, spans: Sequence[Span], *, batch_size: int) -> list[Score]:
    """Return the spans' scores; see `Scorer`."""
    return Scorer(lm, batch_size=batch_size).score(spans)
