"""Prompts as tokens. In: a task, an episode, a number of shots. Out: a `Prompt`, or None where nothing fits.

A prompt is the description, K demonstrations and the question, joined by the task's delimiter and tokenised as one
running text behind `<|endoftext|>`, as a document of the training data would be. The harness's prompts differ where
`EvalProtocol` says so. Knows no model but its n_ctx.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, replace

from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.protocol import EvalProtocol
from fewshot.evaluate.scoring.logprobs import Span
from fewshot.evaluate.task import Task
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """One question as the model reads it."""

    text: str  # up to the answer, without <|endoftext|>
    tokens: tuple[int, ...]  # of `text`
    spans: tuple[Span, ...]  # the text with each completion behind it; empty where the model writes the answer
    shots: int  # whole demonstrations in it
    example: Example

    @property
    def n_tokens(self) -> int:
        """Tokens of the longest sequence that the model reads."""
        return max([len(self.tokens), *(len(span.tokens) for span in self.spans)])


def build_prompt(tokenizer: Tokenizer, task: Task, episode: Episode, *, shots: int, n_ctx: int) -> Prompt | None:
    """Return the prompt with `shots` demonstrations, or with as many whole ones as n_ctx holds beside the answer.

    With room for k of them it is exactly the k-shot prompt: the last drawn are left out, none is cut. The answer's
    room is its longest completion, or `max_answer_tokens`. None if the question does not fit even by itself.
    Under the harness's protocol a prompt that is too long loses its beginning instead; None if the answer alone fills
    the context (the harness stops there).
    """
    if task.kind == "rolling":
        return _rolling(tokenizer, episode.example, n_ctx)
    room = n_ctx - (task.max_answer_tokens if task.kind == "complete" else 0)

    def with_shots(k: int) -> Prompt:
        return _prompt(tokenizer, task, episode, k)

    most = min(shots, len(episode.demonstrations))
    prompt = with_shots(most)
    if not task.protocol.whole_demonstrations:
        return _cut(tokenizer, task, episode, prompt, room) if room > 0 else None
    if prompt.n_tokens <= room:
        return prompt
    too_many = bisect_left(range(most), True, key=lambda k: with_shots(k).n_tokens > room)
    return with_shots(too_many - 1) if too_many > 0 else None


def _prompt(tokenizer: Tokenizer, task: Task, episode: Episode, shots: int) -> Prompt:
    example = episode.example
    pieces = [task.description] if task.description else []
    pieces += [demonstration.demonstration for demonstration in episode.demonstrations[:shots]]
    if shots == 0 and example.zero_shot is not None:
        example, pieces = replace(example.zero_shot, group=example.group, references=example.references), []
    before = task.delimiter.join([*pieces, ""]) if pieces else ""
    text = before + example.pairs[example.gold][0]
    spans: tuple[Span, ...] = ()
    if task.kind != "complete":
        spans = tuple(
            make_span(tokenizer, task.protocol, before + context, answer) for context, answer in example.pairs
        )
    first = _first(tokenizer, task.protocol, text)
    return Prompt(text, (*first, *tokenizer.encode(text)), spans, shots, example)


def make_span(tokenizer: Tokenizer, protocol: EvalProtocol, context: str, completion: str) -> Span:
    """Return the context and the completion, encoded as one text, with the completion as the scored part.

    Where the two merge at the border (a context that ends in a space, which the next word takes), the scored part
    begins at the first token in which the joint text differs from the context alone. Under the harness's protocol it is
    what `harness_pair` gives; where that is nothing, the last token.
    """
    if protocol.joined_at_space:
        before, scored = harness_pair(tokenizer, protocol, context, completion)
        return Span((*before, *scored), min(len(before), len(before) + len(scored) - 1))
    alone, joint = tokenizer.encode(context), tokenizer.encode(context + completion)
    first = _first(tokenizer, protocol, context)
    begin = next((i for i, (a, b) in enumerate(zip(alone, joint, strict=False)) if a != b), len(alone))
    return Span((*first, *joint), len(first) + min(begin, len(joint) - 1))


def harness_pair(
    tokenizer: Tokenizer, protocol: EvalProtocol, context: str, completion: str
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the tokens of the context, and those of the completion, perhaps none, as the harness's models take them.

    The context's closing white space moves to the completion; then the context's own tokens stand first, and behind
    them what the joint text has beyond so many. Source: lm_eval 0.4.13, api/model.py (_encode_pair).
    """
    bare = context.rstrip()
    context, completion = bare, context[len(bare) :] + completion
    alone, joint = tokenizer.encode(context), tokenizer.encode(context + completion)
    return (*_first(tokenizer, protocol, context), *alone), tuple(joint[len(alone) :])


def _first(tokenizer: Tokenizer, protocol: EvalProtocol, text: str) -> tuple[int, ...]:
    """Return the tokens that stand before a prompt: <|endoftext|>, or nothing."""
    return (tokenizer.start,) if protocol.always_eot or tokenizer.adds_start or not text else ()


def _cut(tokenizer: Tokenizer, task: Task, episode: Episode, prompt: Prompt, room: int) -> Prompt:
    """Return the prompt without so much of its beginning that the rest fits, as the harness does.

    Its text is what the model reads before the right answer, its shots are the demonstrations that are whole in it.
    """
    spans = tuple(cut_span(span, room) for span in prompt.spans)
    tokens, gold = prompt.tokens[-room:], prompt.example.gold
    n_left, n_whole = (spans[gold].start, prompt.spans[gold].start) if spans else (len(tokens), len(prompt.tokens))
    if n_left == n_whole:
        return replace(prompt, tokens=tokens, spans=spans)
    moved = prompt.text[len(prompt.text.rstrip()) :] if spans else ""  # white space that the completions begin with
    text = tokenizer.decode(list(spans[gold].tokens[:n_left] if spans else tokens)) + moved
    left, shots = len(text) - len(prompt.example.pairs[gold][0]), 0
    for example in reversed(episode.demonstrations[: prompt.shots]):
        left -= len(example.demonstration) + len(task.delimiter)
        if left < 0:
            break
        shots += 1
    return Prompt(text, tokens, spans, shots, prompt.example)


def cut_span(span: Span, n_ctx: int) -> Span:
    """Return the span without so much of its beginning that a model of n_ctx can read the rest.

    The last token need not be read.
    """
    extra = max(0, len(span.tokens) - (n_ctx + 1))
    return Span(span.tokens[extra:], max(1, span.start - extra))


def _rolling(tokenizer: Tokenizer, example: Example, n_ctx: int) -> Prompt:
    spans = rolling_spans(tokenizer, example.completions[example.gold], n_ctx)
    return Prompt("", (tokenizer.start,), tuple(spans), 0, example)


def rolling_spans(tokenizer: Tokenizer, text: str, n_ctx: int) -> list[Span]:
    """Return a whole text as windows of n_ctx tokens, each token scored once; the last window reaches back to be full.

    Source: the harness's rolling log-likelihood; the paper says nothing of its windows.
    """
    tokens = (tokenizer.start, *tokenizer.encode(text))
    spans = []
    for begin in range(1, len(tokens), n_ctx):
        end = min(begin + n_ctx, len(tokens))
        first = max(0, end - n_ctx - 1)
        spans.append(Span(tokens[first:end], begin - first))
    return spans
