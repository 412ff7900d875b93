"""A conversation with a base model: one growing text of labelled turns, which the model goes on with.

In: what is said, as text. Out: the answers, piece by piece. As in 2020: no chat template, the labels and the examples
before the first turn are all that tells the model that it is asked. Knows no terminal.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from fewshot.base.errors import BadValue, ContextTooLong, check, look_up
from fewshot.generate.engine import CHUNK, Engine
from fewshot.generate.request import Request
from fewshot.generate.sampling import Sampling
from fewshot.model.packed import PackedGPT
from fewshot.model.paged_cache import PagedCache
from fewshot.tokenizer.vocab import Tokenizer


@dataclass(kw_only=True)
class Turn:
    """What was said, and the answer as far as it was written, without white space around it."""

    asked: str
    answer: str = ""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is written before, between and behind what is said and answered.

    White space that ends `model` is written with the answer: a prompt that ends in it would be cut into other tokens.
    """

    you: str
    model: str
    between: str = "\n"  # what was said, and the label of the answer
    end: str = "\n"  # of a turn
    stops: tuple[str, ...] = ()  # an answer ends before any of these too

    @property
    def stop(self) -> tuple[str, ...]:
        """The texts that an answer ends before: `stops`, or else a line that begins with a label, even an empty one."""
        return self.stops or tuple(f"\n{label.strip()}" for label in (self.you, self.model))

    def question(self, asked: str) -> str:
        """Return what stands before an answer."""
        return f"{self.you}{asked}{self.between}{self.model}".rstrip(" ")

    def turn(self, turn: Turn) -> str:
        """Return a whole turn."""
        question = self.question(turn.asked)
        blanks = self.model[len(self.model.rstrip(" ")) :]
        return f"{question}{blanks}{turn.answer}{self.end}" if turn.answer else f"{question}{self.end}"

    @classmethod
    def of_examples(cls, pairs: Sequence[tuple[str, str]], *, end: str, stops: Sequence[str]) -> Labels:
        """Return the labels that all of these (question, answer) have, as far as they begin or end in all alike.

        A label before the question ends in a colon and white space, that behind it begins with white space: words
        that all questions happen to share are no label.
        """
        contexts = [context for context, _ in pairs]
        before, behind = _common(contexts), _common([text[::-1] for text in contexts])[::-1]
        you, model = re.search(r".*:\s+", before, re.DOTALL), re.search(r"\s.*", behind, re.DOTALL)
        gap = " " if all(answer.startswith(" ") for _, answer in pairs) else ""
        return cls(
            you=you[0] if you else "",
            model=(model[0] if model else "") + gap,
            between="",
            end=end,
            stops=tuple(stops),
        )


def _common(texts: Sequence[str]) -> str:
    """Return what all texts begin with."""
    letters = enumerate(zip(*texts, strict=False))
    return texts[0][: next((n for n, same in letters if len(set(same)) > 1), min(map(len, texts)))]


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Labels with what stands before the first turn: a description and demonstrations."""

    labels: Labels
    description: str
    demonstrations: tuple[Turn, ...]

    def prefix(self, labels: Labels, n: int) -> str:
        """Return the description and the first n demonstrations, with these labels."""
        return self.description + labels.end + "".join(labels.turn(turn) for turn in self.demonstrations[:n])

    def prefixes(self, labels: Labels) -> list[str]:
        """Return the prefix with all demonstrations, then with fewer and fewer, in the end no text."""
        return [*(self.prefix(labels, n) for n in range(len(self.demonstrations), -1, -1)), ""]


# Question answering has the form of the paper's closed-book tasks (Brown et al. 2020, appendix G); the words are ours.
PRESETS = {
    "qa": Preset(
        labels=Labels(you="Q: ", model="A: ", between="\n\n", end="\n\n"),
        description="Questions about the world, and short answers to them.",
        demonstrations=(
            Turn(asked="What is the capital of Norway?", answer="Oslo"),
            Turn(asked="How many legs does a spider have?", answer="Eight"),
            Turn(asked="Who wrote the play Hamlet?", answer="William Shakespeare"),
            Turn(asked="What do bees make?", answer="Honey"),
            Turn(asked="Which planet is the nearest to the sun?", answer="Mercury"),
        ),
    ),
    "dialogue": Preset(
        labels=Labels(you="Person: ", model="Machine: "),
        description="A person talks with a machine that has read many books. Its answers are friendly and short.",
        demonstrations=(
            Turn(asked="Good morning. Who are you?", answer="A program that has read a lot. What shall we talk about?"),
            Turn(asked="About the sea. Why is it salty?", answer="Rivers wash salt out of the rocks, and it stays."),
            Turn(
                asked="I did not know that.",
                answer="I read it in a book about rivers. What else would you like to know?",
            ),
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How answers are written."""

    temperature: float = 0.8
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int = 128
    seed: int = 0

    def __post_init__(self) -> None:
        check(self.max_tokens >= 1, f"max_tokens is {self.max_tokens}, must be at least 1")
        self.sampling()  # checks the rest

    def sampling(self) -> Sampling:
        """Return how a token is chosen."""
        return Sampling(temperature=self.temperature, top_p=self.top_p, top_k=self.top_k)

    def changed(self, name: str, text: str) -> Settings:
        """Return the settings with another value, as it was typed; "off" takes a limit away."""
        old = look_up("setting", name, {field.name: getattr(self, field.name) for field in fields(self)})
        if name in ("top_p", "top_k") and text == "off":
            return replace(self, **dict[str, Any]({name: None}))
        kind = float if name in ("temperature", "top_p") else int
        try:
            return replace(self, **dict[str, Any]({name: kind(text)}))
        except ValueError:
            what = "a number" if kind is float else "a whole number"
            raise BadValue(f"{name} is {text!r}, must be {what}; it stays {'off' if old is None else old}") from None

    def __str__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return ", ".join(f"{name} {'off' if value is None else value}" for name, value in values)


def engine_for_one(model: PackedGPT, tokenizer: Tokenizer) -> Engine:
    """Return an engine with room for one whole context, and for as much that was read before."""
    cache = PagedCache(model.config, n_bytes=0, dtype=model.cache_dtype)
    return Engine(model, tokenizer, cache_bytes=2 * cache.bytes_of_text(model.config.n_ctx, n_new=CHUNK), max_rows=1)


class Conversation:
    """The turns so far, behind a prefix; the engine keeps what was read of them.

    Where the context cannot hold all turns beside an answer of `max_tokens`, the model reads those from `first` on.
    """

    def __init__(self, engine: Engine, labels: Labels, *, prefix: str = "", settings: Settings = Settings()) -> None:
        self.engine, self.labels, self.prefix, self.settings = engine, labels, prefix, settings
        self.turns: list[Turn] = []
        self.first = 0  # the oldest turn that the model reads
        self.n_prompt = self.n_cached = 0  # tokens of the last prompt, and those of them that had been read before

    @property
    def n_ctx(self) -> int:
        """Tokens in the context."""
        return self.engine.model.config.n_ctx

    @property
    def room(self) -> int:
        """Tokens that a prompt may have."""
        return self.n_ctx - self.settings.max_tokens

    @property
    def text(self) -> str:
        """The text as the model reads it, all but `<|endoftext|>` before it."""
        return self._text(self.turns[self.first :])

    @property
    def whole_text(self) -> str:
        """The text with the turns too that the model does not read any more."""
        return self._text(self.turns)

    def _text(self, turns: Sequence[Turn]) -> str:
        return self.prefix + "".join(map(self.labels.turn, turns))

    def tokens(self, text: str) -> list[int]:
        """Return a text as the model reads it, as a document of its own."""
        tokenizer = self.engine.tokenizer
        return [tokenizer.start, *tokenizer.encode(text)]

    def take_prefix(self, prefixes: Sequence[str]) -> int:
        """Take the first of the prefixes that fits with an empty turn into half of the room; return its place.

        The last is taken without a look.
        """
        question = self.labels.question("")
        fits = (2 * len(self.tokens(prefix + question)) <= self.room for prefix in prefixes[:-1])
        place = next((place for place, does in enumerate(fits) if does), len(prefixes) - 1)
        self.prefix = prefixes[place]
        return place

    def check(self) -> None:
        """Raise what the first turn would raise however short it is."""
        self._prompt([], "")

    def change(self, name: str, text: str) -> None:
        """Change a setting, as it was typed; one that leaves no room for any turn raises ContextTooLong."""
        old, self.settings = self.settings, self.settings.changed(name, text)
        try:
            self.check()
        except ContextTooLong:
            self.settings = old
            raise

    def ask(self, asked: str) -> Generator[str, None, None]:
        """Return the answer to a new turn, piece by piece; one that is too long raises ContextTooLong and is no turn.

        A piece comes after each step and may be empty. Once it is closed, the answer is what came.
        """
        return self._begin(self.turns, asked, self.settings.seed)

    def retry(self) -> Generator[str, None, None]:
        """Return another answer to the last turn, with the next seed; the old one is forgotten."""
        last = self._last()
        return self._begin(self.turns[:-1], last.asked, last.seed + 1)

    def undo(self) -> Turn:
        """Take the last turn back and return it."""
        last = self._last()
        self.turns.pop()
        self.first = min(self.first, len(self.turns))
        return last

    def reset(self) -> None:
        """Start again from the prefix."""
        self.turns, self.first = [], 0

    def _last(self) -> Turn:
        check(bool(self.turns), "there is no turn yet")
        return self.turns[-1]

    def _begin(self, earlier: Sequence[Turn], asked: str, seed: int) -> Generator[str, None, None]:
        first, prompt = self._prompt(earlier, asked)
        how = self.settings
        request = Request(
            prompt=prompt, max_tokens=how.max_tokens, sampling=how.sampling(), stop=self.labels.stop, seed=seed
        )
        turn = Turn(asked=asked, seed=seed)
        self.turns, self.first, self.n_prompt, self.n_cached = [*earlier, turn], first, len(prompt), 0
        return self._answer(request, turn)

    def _prompt(self, earlier: Sequence[Turn], asked: str) -> tuple[int, list[int]]:
        """Return how many of the oldest turns are left out, as few as possible, and the tokens of the rest."""

        def tokens(first: int) -> list[int]:
            return self.tokens(self._text(earlier[first:]) + self.labels.question(asked))

        first = bisect_left(range(len(earlier)), True, key=lambda first: len(tokens(first)) <= self.room)
        prompt, n_answer = tokens(first), self.settings.max_tokens
        if len(prompt) > self.room:
            what = f"the prefix and the turn ({len(prompt):,} tokens) with an answer of max_tokens ({n_answer:,})"
            raise ContextTooLong(len(prompt) + n_answer, self.n_ctx, what, way_out="shorten it, or lower max_tokens")
        return first, prompt

    def _answer(self, request: Request, turn: Turn) -> Generator[str, None, None]:
        """Yield what can be shown after each step, and add it to the turn."""
        number, blanks = self.engine.submit(request), ""
        try:
            while self.engine.busy:
                piece = blanks
                for _, state in self.engine.step():
                    if state.error is not None:
                        raise state.error
                    self.n_cached = state.n_cached
                    piece += state.next_text()
                shown = piece.rstrip()  # white space waits until something follows
                blanks = piece[len(shown) :]
                shown = shown if turn.answer else shown.lstrip()
                turn.answer += shown
                yield shown
        finally:
            self.engine.cancel(number)
