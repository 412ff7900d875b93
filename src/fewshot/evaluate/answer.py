"""What a model answered to a question, and how its choices are compared. In: log-probabilities or text. Knows no task.

An `Answer` holds all that any metric needs, so that metrics can be taken again later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fewshot.evaluate.example import Example

Normalisation = Literal["sum", "token", "character", "byte", "unconditional"]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A model's answer to one question.

    A choosing task has a log-probability (nats, summed over tokens) for each completion, a perplexity one for the gold
    completion; a completing one has the text that was written.
    """

    example: Example
    text: str = ""  # written; empty where nothing was
    logprobs: tuple[float, ...] = ()
    n_tokens: tuple[int, ...] = ()
    greedy: tuple[bool, ...] = ()  # every token of the completion is the model's first choice
    unconditional: tuple[float, ...] = ()  # nats of the completions after the bare answer context
    shots: int = 0  # demonstrations that the prompt held

    def choice(self, normalisation: Normalisation) -> int:
        """Return the completion that the model takes for the likeliest, the first of equals.

        "sum" of nats, nats a "token", "character" or "byte" (without the leading space), or nats above the
        "unconditional" ones. Source: Brown et al. 2020, section 2.4; the middle two lm_eval 0.4.13.
        """
        values = self.normalised(normalisation)
        return values.index(max(values))

    def normalised(self, normalisation: Normalisation) -> list[float]:
        """Return what a choice compares: a value for each completion."""
        return [self._normalised(index, normalisation) for index in range(len(self.logprobs))]

    def _normalised(self, index: int, normalisation: Normalisation) -> float:
        logprob = self.logprobs[index]
        if normalisation == "token":
            return logprob / self.n_tokens[index]
        if normalisation == "unconditional":
            return logprob - self.unconditional[index]
        text = self.example.completions[index].removeprefix(" ")
        if normalisation in ("character", "byte"):
            length = len(text) if normalisation == "character" else len(text.encode())
            return logprob / length if length else -math.inf  # never chosen, as in the harness
        return logprob
