"""Text as it streams by in, a part of bounded size out, spread over all of it: what a BPE is trained on.

Text that fits is kept whole. Of more, each group of some ten thousand characters is kept or not by a draw that belongs
to its number, so that the same text gives the same sample. Knows nothing of tokens.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fewshot.base.rng import seed_of
from fewshot.dataset.split import VERSIONS, By
from fewshot.tokenizer.pieces import PIECE_CHARS, pieces

# Of text: training a BPE on it takes about a minute, and twice as much of it finds the same words.
SAMPLE_BYTES = 1 << 27
# Characters of all different words together: training a BPE takes about 25 bytes for each of them, and 50 MB of books
# have 2.6 million.
WORD_CHARS = 24_000_000
WAYS = tuple(VERSIONS)


@dataclass(slots=True)
class _Group:
    """Neighbouring texts that are kept or dropped together."""

    draw: int
    source: int
    data: bytes  # the texts, one behind the other
    n_chars: array[int]  # of each text
    n_training: dict[By, array[int]]  # how many of these are training text, by each way to split
    start: int | None = None  # in a long text, as long as its end is not known


class TextSample:
    """At most `max_bytes` of all text that was added, of which at most `WORD_CHARS` characters in different words."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._below = 2**63  # groups whose draw is below are kept
        self._groups: list[_Group] = []
        self.n_bytes = 0  # of what is kept
        self._n_added: dict[int, int] = {}  # groups of each source
        self._waiting: list[tuple[str, dict[By, int]]] = []  # short texts, with their characters of training text
        self._n_waiting = 0
        self._source = 0

    def add(self, text: str, n_training: Mapping[By, int], *, source: int) -> None:
        """Add a whole text; so many of its characters are training text."""
        if source != self._source:
            self._close()
            self._source = source
        start = 0
        for piece in pieces(text):
            inside = {way: min(max(n_training[way] - start, 0), len(piece)) for way in WAYS}
            self._waiting.append((piece, inside))
            self._n_waiting += len(piece)
            start += len(piece)
            if self._n_waiting >= PIECE_CHARS:
                self._close()

    def add_stretch(self, text: str, start: int, *, source: int) -> None:
        """Add a stretch of a long text, in which it begins at the character `start`; `end_long` must follow."""
        self._close()
        self._source = source
        for piece in pieces(text):
            self._waiting.append((piece, dict.fromkeys(WAYS, 0)))
            self._close(start)
            start += len(piece)

    def end_long(self, n_training: Mapping[By, int]) -> None:
        """Say how many characters of the long text that was added last are training text."""
        for group in reversed(self._groups):
            if group.start is None:
                return
            for way in WAYS:
                group.n_training[way][0] = min(max(n_training[way] - group.start, 0), group.n_chars[0])
            group.start = None

    def _close(self, start: int | None = None) -> None:
        """Make a group of the texts that wait, and keep it if its draw says so."""
        if not self._waiting:
            return
        number = self._n_added[self._source] = self._n_added.get(self._source, -1) + 1
        draw = seed_of("text for the tokenizer", self._source, number)
        if draw < self._below:
            data = "".join(text for text, _ in self._waiting).encode()
            n_training = {way: array("q", (inside[way] for _, inside in self._waiting)) for way in WAYS}
            n_chars = array("q", (len(text) for text, _ in self._waiting))
            self._groups.append(_Group(draw, self._source, data, n_chars, n_training, start))
            self.n_bytes += len(data)
        self._waiting, self._n_waiting = [], 0
        while self.n_bytes > self._max_bytes and len(self._groups) > 1:
            self._thin(7 / 8)

    def _thin(self, share: float) -> None:
        """Keep about this share of what is kept."""
        self._below = int(self._below * share)
        self._groups = [group for group in self._groups if group.draw < self._below]
        self.n_bytes = sum(len(group.data) for group in self._groups)

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return self._below == 2**63

    def training_texts(self, ways: Sequence[By]) -> Iterator[str]:
        """Yield the training text that was kept, in order; `ways` says how each source is split."""
        self._close()
        for group in self._groups:
            way, text, start = ways[group.source], group.data.decode(), 0
            for n_chars, n_training in zip(group.n_chars, group.n_training[way], strict=True):
                if n_training:
                    yield text[start : start + n_training]
                start += n_chars

    def clear(self) -> None:
        """Let go of all text, once it was used."""
        self._groups, self._waiting, self.n_bytes = [], [], 0

    def limit_words(self, ways: Sequence[By]) -> None:
        """Leave more out if there are so many different words that training on them takes too much memory."""
        self._close()
        while len(self._groups) > 1 and self._too_many_words(ways):
            self._thin(3 / 4)

    def _too_many_words(self, ways: Sequence[By]) -> bool:
        seen: set[str] = set()
        n_chars = 0
        for text in self.training_texts(ways):
            new = set(text.split()) - seen
            seen |= new
            n_chars += sum(map(len, new))
            if n_chars > WORD_CHARS:
                return True
        return False
