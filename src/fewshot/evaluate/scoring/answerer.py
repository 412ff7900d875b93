"""Answers of a model to questions. In: a language model, a tokenizer, prompts. Out: one `Answer` a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fewshot.evaluate.answer import Answer
from fewshot.evaluate.models.language_model import LanguageModel
from fewshot.evaluate.prompt import Prompt, make_span
from fewshot.evaluate.scoring.logprobs import Score, Scorer
from fewshot.evaluate.task import Task
from fewshot.generate.beam import beam_search
from fewshot.tokenizer.vocab import Tokenizer


class Answerer:
    """A model that answers prompts of any task."""

    def __init__(self, lm: LanguageModel, tokenizer: Tokenizer, *, batch_size: int) -> None:
        self.lm, self.tokenizer, self.batch_size = lm, tokenizer, batch_size
        self.scorer = Scorer(lm, batch_size=batch_size)
        self.unconditional_scorer = Scorer(lm, batch_size=batch_size)  # its own: answer contexts share another prefix

    def answers(self, task: Task, prompts: Sequence[Prompt]) -> list[Answer]:
        """Return an answer to each prompt, in their order."""
        if task.kind == "complete":
            return self._written(task, prompts)
        return self._scored(task, prompts)

    def _scored(self, task: Task, prompts: Sequence[Prompt]) -> list[Answer]:
        """Return answers that hold log-probabilities: of every choice, of the gold completion, or of a whole text."""
        spans_by_prompt = [
            [prompt.spans[prompt.example.gold]] if task.kind == "perplexity" else prompt.spans for prompt in prompts
        ]
        scores = iter(self.scorer.score([span for spans in spans_by_prompt for span in spans]))
        unconditional = iter(self._unconditional(task, prompts))
        answers = []
        for prompt, spans in zip(prompts, spans_by_prompt, strict=True):
            own = [next(scores) for _ in spans]
            if task.kind == "rolling":
                own = [Score(sum(score.logprob for score in own), sum(score.n_tokens for score in own), False)]
            answers.append(
                Answer(
                    example=prompt.example,
                    logprobs=tuple(score.logprob for score in own),
                    n_tokens=tuple(score.n_tokens for score in own),
                    greedy=tuple(score.greedy for score in own),
                    unconditional=(
                        () if task.answer_context is None else tuple(next(unconditional).logprob for _ in own)
                    ),
                    shots=prompt.shots,
                )
            )
        return answers

    def _unconditional(self, task: Task, prompts: Sequence[Prompt]) -> list[Score]:
        """Return the choices' scores after the answer context alone, where the task has one."""
        if task.answer_context is None:
            return []
        texts = [completion for prompt in prompts for completion in prompt.example.completions]
        return self.unconditional_scorer.score(
            [make_span(self.tokenizer, task.protocol, task.answer_context, text) for text in texts]
        )

    def _written(self, task: Task, prompts: Sequence[Prompt]) -> list[Answer]:
        """Return answers that hold the text which the model writes, by beam search."""
        texts = write_all(
            self.lm,
            self.tokenizer,
            [prompt.tokens for prompt in prompts],
            batch_size=self.batch_size,
            max_tokens=task.max_answer_tokens,
            stop=task.stop,
            beams=task.protocol.beams,
            length_penalty=task.protocol.length_penalty,
        )
        return [Answer(example=prompt.example, text=texts[i], shots=prompt.shots) for i, prompt in enumerate(prompts)]


def write_all(
    lm: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    *,
    batch_size: int,
    beams: int,
    **how: Any,
) -> list[str]:
    """Return the text that the model writes after each prompt; see `beam_search`.

    Prompts of about the same length run together, `batch_size` rows at once.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    width = max(1, batch_size // beams)
    texts = [""] * len(prompts)
    for first in range(0, len(order), width):
        group = order[first : first + width]
        batch = [prompts[i] for i in group]
        completions = beam_search(lm.steps(), tokenizer, batch, n_ctx=lm.n_ctx, beams=beams, **how)
        for i, completion in zip(group, completions, strict=True):
            texts[i] = completion.text
    return texts
