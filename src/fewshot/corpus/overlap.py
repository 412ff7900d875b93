"""Which texts share n words in a row with training documents. In: few needles, a stream of documents. Out: collisions.

The needles' n-grams are hashed and held in memory; the documents are read in pieces of a fixed size, so memory depends
only on the needles and on the largest document. Equal hashes are only candidates: their words are compared before they
count.
Knows nothing of tasks and models. Source: Brown et al. 2020, section 4 and appendix C.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from fewshot.base.errors import check
from fewshot.corpus.document import Document
from fewshot.corpus.unicode import SPACE, SPACELESS, Array, canonical

K = TypeVar("K", bound=Hashable)

BATCH_CHARS = 1 << 18  # normalised and hashed at once: small enough for the processor's cache
# Where a long text may be cut: a word ends before each of these. There are other places, but these need no table.
GAP = re.compile(rf"[\s!-/:-@\[-`{{-~\u2010-\u2027\u3000-\u3003{SPACELESS}]")
MULTIPLIER = 0x9E3779B97F4A7C15  # odd, so that it has an inverse modulo 2^64
FILTER_BITS = 3  # the filter has more than 2^3 places for each n-gram: of foreign ones fewer than one in 8 passes
CACHED_NEEDLES = 4096  # whose words are in memory for comparison


@dataclass(frozen=True)
class Collision:
    """What a needle shares with the documents."""

    gram: str  # the first n words in a row that both have, in the order of the documents
    document: str  # id of the document that has them
    n_grams: int  # how many of the needle's n-grams stand in some document


def words(text: str) -> list[str]:
    """Return the words of `text`: lower-case runs of letters, digits and marks; everything else separates words.

    So "don't" is two words, as in the 13-grams that were published with the paper ("i m going"). The same text gives
    the same words however Unicode spells it, and in scripts without spaces a character is a word: see
    `unicode.canonical`. Each character is lowered by itself, so that a word never depends on its neighbours.
    """
    return _spelled(_normalised(canonical(text)))


def which_collide(
    needles: Mapping[K, str], documents: Iterable[Document], n: int | Mapping[K, int]
) -> dict[K, Collision]:
    """Return the needles that share n words in a row with a document, in their own order; n may differ by needle.

    A needle of fewer than n words shares nothing. The documents are read once, and not at all where there is nothing
    to look for. It holds some 50 bytes for each word of the needles.
    """
    groups: dict[int, dict[K, str]] = {}
    for key, text in needles.items():
        groups.setdefault(n if isinstance(n, int) else n[key], {})[key] = text
    check(min(groups, default=1) >= 1, f"n is {min(groups, default=1)}: at least 1 word in a row can be looked for")
    searches = [search for size, group in groups.items() if (search := _Search(group, size)).n_grams]
    if searches:
        for batch in _batches(_pieces(documents, max(search.n for search in searches) - 1)):
            for search in searches:
                search.look_through(batch)
    collisions = {key: collision for search in searches for key, collision in search.collisions().items()}
    return {key: collisions[key] for key in needles if key in collisions}


@functools.cache
def _letter_of() -> Array:
    """Return, for every code point, its lower case, or SPACE where it separates words."""
    characters = map(chr, range(sys.maxunicode + 1))
    letters = (ord(char.lower()[0]) if unicodedata.category(char)[0] in "LMN" else SPACE for char in characters)
    return np.fromiter(letters, dtype="<u4")


def _normalised(text: str) -> Array:
    """Return one lower-case letter or SPACE for each character of a text that `canonical` returned; uint32 [C]."""
    letters: Array = _letter_of()[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")]
    return letters


def _spelled(letters: Array) -> list[str]:
    return letters.tobytes().decode("utf-32-le").split()


@dataclass(frozen=True)
class _Batch(Generic[K]):
    """Texts, joined and cut into words: word i is letters[starts[i]:ends[i]], of the text names[owners[i]]."""

    letters: Array  # uint32 [C]
    starts: Array  # int64 [W]
    ends: Array  # int64 [W]
    hashes: Array  # uint64 [W]
    owners: Array  # int64 [W], ascending
    names: list[K]

    def grams(self, n: int) -> tuple[Array, Array]:
        """Return the number of each word with which n words of one text begin, and a hash of those n words."""
        n_grams = max(0, len(self.owners) - n + 1)
        first = np.flatnonzero(self.owners[:n_grams] == self.owners[len(self.owners) - n_grams :])
        return first, _hashes(self.hashes, first, first + n)

    def gram(self, first: int, n: int) -> list[str]:
        """Return the n words from word `first` on."""
        return _spelled(self.letters[self.starts[first] : self.ends[first + n - 1]])


def _batches(texts: Iterable[tuple[K, str]]) -> Iterator[_Batch[K]]:
    """Yield named texts that `canonical` returned, many short ones or a long one in each batch; none is cut."""
    waiting: list[tuple[K, str]] = []
    n_chars = 0
    for named in texts:
        waiting.append(named)
        n_chars += len(named[1])
        if n_chars >= BATCH_CHARS:
            yield _batch(waiting)
            waiting, n_chars = [], 0
    if waiting:
        yield _batch(waiting)


def _batch(texts: list[tuple[K, str]]) -> _Batch[K]:
    letters = _normalised("\n".join(text for _, text in texts))
    edges = np.flatnonzero(np.diff(letters != SPACE, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    hashes = _hashes(letters, starts, ends)
    hashes = (hashes ^ (hashes >> np.uint64(32))) * np.uint64(MULTIPLIER)  # else words would add up like letters
    first_char = np.cumsum([0, *(len(text) + 1 for _, text in texts[:-1])])
    owners = np.searchsorted(first_char, starts, side="right") - 1
    return _Batch(letters, starts, ends, hashes, owners, [name for name, _ in texts])


def _hashes(values: Array, starts: Array, ends: Array) -> Array:
    """Return a hash of each span of `values`, the same wherever the span stands: a polynomial modulo 2^64."""
    powers, inverses = _powers(1 << len(values).bit_length())
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    hashes: Array = (sums[ends] - sums[starts]) * inverses[starts]
    return hashes


@functools.lru_cache(maxsize=4)
def _powers(count: int) -> tuple[Array, Array]:
    """Return the first powers of the multiplier and of its inverse, modulo 2^64."""
    powers, inverses = (
        np.cumprod(np.append(np.uint64(1), np.full(count - 1, base, np.uint64)))
        for base in (MULTIPLIER, pow(MULTIPLIER, -1, 1 << 64))
    )
    return powers, inverses


def _pieces(documents: Iterable[Document], n_shared: int) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of the documents, long ones in pieces that begin with the last words of the piece before."""
    for document in documents:
        text, start, shared = document.text, 0, ""
        while start < len(text):
            gap = GAP.search(text, start + BATCH_CHARS)
            end = gap.start() if gap else len(text)
            piece = shared + canonical(text[start:end])
            yield document.id, piece
            shared = piece[_last_words(piece, n_shared) :] if gap else ""
            start = end


def _last_words(text: str, count: int) -> int:
    """Return the place where the last `count` words of `text` begin; 0 where that is not sure."""
    width = 16 * count
    while 0 < width < len(text):
        inside = _normalised(text[-width:]) != SPACE
        begins = np.flatnonzero(inside[1:] & ~inside[:-1]) + 1
        if len(begins) >= count:
            return len(text) - width + int(begins[-count])
        width *= 2
    return 0 if count else len(text)


class _Search(Generic[K]):
    """All n-grams of some needles, for one n, and which of them a document had so far."""

    def __init__(self, needles: Mapping[K, str], n: int) -> None:
        self.n = n
        self._keys, texts = list(needles), list(needles.values())
        self._words_of = functools.lru_cache(maxsize=CACHED_NEEDLES)(lambda needle: words(texts[needle]))
        hashes, needle, first = _gram_table(needles, n)
        order = np.argsort(hashes, kind="stable")  # gram by gram, in each the needles in their order
        self._needle, self._first = needle[order], first[order]
        self._hashes, begins = np.unique(hashes[order], return_index=True)
        self._begins = np.append(begins, len(order))  # rows of a hash: begins[i] to begins[i + 1]
        bits = len(order).bit_length() + FILTER_BITS
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, np.bool_)
        self._filter[self._hashes >> self._shift] = True
        self._is_matched = np.zeros(len(order), np.bool_)
        self._is_open = np.ones(len(self._hashes), np.bool_)  # some row of that hash is not matched yet
        self._where: dict[int, tuple[str, str]] = {}  # by needle: its first matched gram, and the document

    @property
    def n_grams(self) -> int:
        """How many n-grams there are to look for."""
        return len(self._needle)

    def look_through(self, batch: _Batch[str]) -> None:
        """Mark the n-grams that these documents have."""
        first, hashes = batch.grams(self.n)
        passed = np.flatnonzero(self._filter[hashes >> self._shift])
        hashes = hashes[passed]
        rows = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
        hit = (self._hashes[rows] == hashes) & self._is_open[rows]
        for at, row in zip(first[passed[hit]].tolist(), rows[hit].tolist(), strict=True):
            if self._is_open[row]:  # may have been closed by an earlier one of these
                self._compare(batch, at, row)

    def _compare(self, batch: _Batch[str], at: int, row: int) -> None:
        gram = batch.gram(at, self.n)
        rows = slice(*self._begins[row : row + 2].tolist())
        for index in range(rows.start, rows.stop):
            needle, first = int(self._needle[index]), int(self._first[index])
            if not self._is_matched[index] and self._words_of(needle)[first : first + self.n] == gram:
                self._is_matched[index] = True
                self._where.setdefault(needle, (" ".join(gram), batch.names[batch.owners[at]]))
        self._is_open[row] = not self._is_matched[rows].all()

    def collisions(self) -> dict[K, Collision]:
        """Return, by needle, what the documents have of it."""
        counts = np.bincount(self._needle[self._is_matched], minlength=len(self._keys)).tolist()
        return {self._keys[needle]: Collision(*where, counts[needle]) for needle, where in self._where.items()}


def _gram_table(needles: Mapping[K, str], n: int) -> tuple[Array, Array, Array]:
    """Return the hash of each n-gram, the number of its needle, and the number of its first word in that needle."""
    parts = []
    n_before = 0
    for batch in _batches((key, canonical(text)) for key, text in needles.items()):
        first, hashes = batch.grams(n)
        owners = batch.owners[first]
        first_of_owner = np.searchsorted(batch.owners, owners)
        parts.append((hashes, (n_before + owners).astype(np.int32), (first - first_of_owner).astype(np.int32)))
        n_before += len(batch.names)
    hashes, needle, first = (np.concatenate(column) for column in zip(*parts, strict=True))
    return hashes, needle, first
