"""What counting alone knows of a text: bits by n-grams of bytes. In: bytes. Out: a number to hold a loss against.

A byte's probability after the `order` - 1 bytes before it is Witten and Bell's: counts of all shorter contexts mixed,
each with the weight of how often it was followed by something new (Bell, Cleary, Witten, Text Compression, 1990).
Nothing is tuned. Knows no tokens and no model.
"""

from __future__ import annotations

import numpy as np

from fewshot.base.errors import check

ORDER = 6  # bytes, the predicted one among them
MAX_ORDER = 7  # as many bytes fit into a key


def bits_of(held_out: bytes, *, counted_in: bytes, order: int = ORDER) -> float:
    """Return the bits that all of `held_out` costs, each byte predicted from the n-grams of `counted_in`."""
    check(1 <= order <= MAX_ORDER, f"order is {order}, allowed: 1 to {MAX_ORDER}")
    probability = np.full(len(held_out), 1 / 256)
    counted, asked = (np.frombuffer(text, np.uint8).astype(np.int64) for text in (counted_in, held_out))
    counted_keys, asked_keys = counted, asked
    for n in range(1, order + 1):
        if n > 1:
            counted_keys, asked_keys = (
                (keys[:-1] << 8) | text[n - 1 :] for keys, text in ((counted_keys, counted), (asked_keys, asked))
            )
        if len(counted_keys) and len(asked_keys):  # the first bytes have shorter contexts
            probability[n - 1 :] = _mixed(probability[n - 1 :], counted_keys, asked_keys)
    return float(-np.log2(probability).sum())


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
