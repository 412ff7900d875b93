"""Prompts as tokens. In: a task, an episode, a number of shots. Out: a `Prompt`, or None where nothing fits.

A prompt is `<|endoftext|>`, then the description, K demonstrations and the question, joined by the task's delimiter
and tokenised as one running text, as a document of the training data would be. Knows no model but its n_ctx.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from fewshot.evaluate.score import Span
from fewshot.evaluate.task import Episode, Example, Task
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """One question as the model reads it."""

    text: str  # up to the answer, without <|endoftext|>
    tokens: tuple[int, ...]  # of `text`
    spans: tuple[Span, ...]  # the text with each completion behind it; empty where the model writes the answer
    shots: int  # demonstrations in it
    example: Example

    @property
    def n_tokens(self) -> int:
        """Tokens of the longest sequence that the model reads."""
        return max([len(self.tokens), *(len(span.tokens) for span in self.spans)])


def build_prompt(
    tokenizer: Tokenizer, task: Task, episode: Episode, *, shots: int, n_ctx: int, start_with_eot: bool = True
) -> Prompt | None:
    """The prompt with `shots` demonstrations, or with as many whole ones as n_ctx holds beside the answer.

    With room for k of them it is exactly the k-shot prompt: the last drawn are left out, none is cut. The answer's
    room is its longest completion, or `max_answer_tokens`. None if the question does not fit even by itself.
    """
    room = n_ctx - (task.max_answer_tokens if task.kind == "complete" else 0)

    def with_shots(k: int) -> Prompt:
        return _prompt(tokenizer, task, episode, k, start_with_eot)

    most = min(shots, len(episode.demonstrations))
    prompt = with_shots(most)
    if prompt.n_tokens <= room:
        return prompt
    too_many = bisect_left(range(most), True, key=lambda k: with_shots(k).n_tokens > room)
    return with_shots(too_many - 1) if too_many > 0 else None


def _prompt(tokenizer: Tokenizer, task: Task, episode: Episode, shots: int, start_with_eot: bool) -> Prompt:
    example = episode.example
    pieces = [task.description] if task.description else []
    pieces += [shown.demonstration for shown in episode.demonstrations[:shots]]
    if shots == 0 and example.zero_shot is not None:
        example, pieces = example.zero_shot, []
    before = task.delimiter.join([*pieces, ""]) if pieces else ""
    first = (tokenizer.eot,) if start_with_eot else ()
    spans = () if task.kind == "complete" else tuple(span(tokenizer, before + c, a, first) for c, a in example.pairs)
    text = before + example.pairs[example.gold][0]
    return Prompt(text, (*first, *tokenizer.encode(text)), spans, shots, example)


def span(tokenizer: Tokenizer, context: str, completion: str, first: tuple[int, ...]) -> Span:
    """`first`, the context and the completion, encoded as one text, with the completion as the scored part.

    Where the two merge at the border (a context that ends in a space, which the next word takes), the scored part
    begins at the first token in which the joint text differs from the context alone.
    """
    alone, joint = tokenizer.encode(context), tokenizer.encode(context + completion)
    common = next((i for i, (a, b) in enumerate(zip(alone, joint, strict=False)) if a != b), len(alone))
    return Span((*first, *joint), len(first) + min(common, len(joint) - 1))
