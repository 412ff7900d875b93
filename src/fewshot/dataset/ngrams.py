"""What counting alone knows of a text: bits by n-grams of bytes. In: bytes. Out: a number to hold a loss against.

A byte's probability after the `order` - 1 bytes before it is Witten and Bell's: counts of all shorter contexts mixed,
each with the weight of how often it was followed by something new (Bell, Cleary, Witten, Text Compression, 1990).
Nothing is tuned. Knows no tokens and no model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewshot.base.errors import check

ORDER = 6  # bytes, the predicted one among them
MAX_ORDER = 7  # as many bytes fit into a key


def bits_of(held_out: Sequence[bytes], *, counted_in: Sequence[bytes], order: int = ORDER) -> float:
    """Return the bits that all pieces of `held_out` cost, each byte predicted from the n-grams of `counted_in`.

    No n-gram reaches over the end of a piece.
    """
    check(1 <= order <= MAX_ORDER, f"order is {order}, allowed: 1 to {MAX_ORDER}")
    (counted, counted_places), (asked, asked_places) = _joined(counted_in), _joined(held_out)
    probability = np.full(len(asked), 1 / 256)
    counted_keys, asked_keys = counted, asked
    for n in range(1, order + 1):
        if n > 1:
            counted_keys, asked_keys = (
                (keys[:-1] << 8) | text[n - 1 :] for keys, text in ((counted_keys, counted), (asked_keys, asked))
            )
        counts_here, asks_here = (places[n - 1 :] >= n - 1 for places in (counted_places, asked_places))
        if counts_here.any() and asks_here.any():  # the first bytes of a piece have shorter contexts
            at = np.flatnonzero(asks_here) + n - 1
            probability[at] = _mixed(probability[at], counted_keys[counts_here], asked_keys[asks_here])
    return float(-np.log2(probability).sum())


def _joined(pieces: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of all pieces, and of each its place in its piece."""
    text = np.frombuffer(b"".join(pieces), np.uint8).astype(np.int64)
    places = [np.arange(len(piece)) for piece in pieces]
    return text, np.concatenate(places) if places else text


def _mixed(shorter: np.ndarray, counted: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the probabilities of the last bytes of `asked`, mixed from counts and from those after shorter contexts.

    `counted` and `asked` are n-grams as numbers, the predicted byte the lowest.
    """
    ngrams, counts = np.unique(counted, return_counts=True)
    contexts, firsts, n_different = np.unique(ngrams >> 8, return_index=True, return_counts=True)
    n_seen = np.add.reduceat(counts, firsts)
    place = np.minimum(np.searchsorted(ngrams, asked), len(ngrams) - 1)
    count = np.where(ngrams[place] == asked, counts[place], 0)
    context = np.minimum(np.searchsorted(contexts, asked >> 8), len(contexts) - 1)
    is_known = contexts[context] == asked >> 8
    mixed = (count + n_different[context] * shorter) / (n_seen[context] + n_different[context])
    return np.where(is_known, mixed, shorter)
