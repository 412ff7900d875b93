"""One Unicode spelling for each text, so that texts that look the same are equal. In: a text. Out: the text to compare.

Unicode spells one text in many ways: letters and their accents together or apart, invisible characters (soft hyphens,
joiners, marks of direction), other forms of the same letter (ligatures, full width).

Invisible characters are dropped and the rest is composed (NFC). NFKC would change too much: it makes 10² the number
102, and the sign in Google™ a word. So compatibility characters are replaced only where they are letters or decimal
digits, and neither superscript nor subscript.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Letters of scripts without spaces between words: Thai, Lao, Myanmar, Khmer, Tai, Kana, Bopomofo, Han, Yi. A word ends
# before each.
SPACELESS = (
    "\u0e01-\u0e30\u0e32\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0ebd-\u0ec6\u0edc-\u0edf"
    "\u1000-\u102a\u103f\u1050-\u1055\u1780-\u17b3\u17d7\u17dc\u1950-\u19ab\u1a20-\u1a54"
    "\u3005-\u3007\u3021-\u3029\u3031-\u3035\u3038-\u303c\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff"
    "\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48c\ua9e0-\ua9ef\uaa60-\uaa7a"
    "\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U000323af"
)
MARKS = (  # of these scripts: vowels and tones that belong to the letter before them
    "\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
    "\u102b-\u103e\u1056-\u1059\u17b4-\u17d3\u17dd\u1a55-\u1a7f\u302a-\u302f\u3099\u309a\uaa7b-\uaa7d"
)
# Invisible like format characters, but in other categories: variation selectors and fillers.
INVISIBLE = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef"
SPACE = 0x20
DROP, REPLACE, WORD, MARK = 1, 2, 4, 8  # what is done with a code point: WORD begins a word, MARK continues it


def canonical(text: str) -> str:
    """Return `text` as it is compared: without invisible characters, composed, with spaces where a script has none.

    Every letter of a script without spaces becomes a word, with its marks. ASCII stays as it is.
    """
    if text.isascii():
        return text
    points = _points(text)
    flags = _flags_of()[points]
    needed = int(np.bitwise_or.reduce(flags))
    if needed & DROP:
        text = _text(points[flags & DROP == 0])
    if needed & REPLACE:
        text = text.translate(_plain_forms())
    text = unicodedata.normalize("NFC", text)
    return _spaced(text) if needed & WORD else text


def _spaced(text: str) -> str:
    """Return `text` with spaces around each letter of a script without spaces and its marks."""
    points = _points(text)
    flags = _flags_of()[points]
    is_mark, is_letter = flags & MARK != 0, flags & WORD != 0
    letter_before = np.maximum.accumulate(np.where(is_mark, 0, np.arange(len(points))))  # or other sign, by its place
    begins = is_letter.copy()
    begins[1:] |= ~is_mark[1:] & is_letter[letter_before[:-1]]
    return _text(np.insert(points, np.flatnonzero(begins), SPACE))


def _points(text: str) -> Array:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def _text(points: Array) -> str:
    return points.tobytes().decode("utf-32-le", "surrogatepass")


@functools.cache
def _flags_of() -> Array:
    """Return, for every code point, what is done with it: a sum of `DROP`, `REPLACE`, `WORD` and `MARK`; uint8."""
    characters, forms = _all_characters(), _plain_forms()
    flags = np.zeros(sys.maxunicode + 1, np.uint8)
    flags[[ord(char) for char in characters if unicodedata.category(char) == "Cf"]] |= DROP
    flags[list(forms)] |= REPLACE
    flags[[point for point, form in forms.items() if re.search(f"[{SPACELESS}]", form)]] |= WORD
    for flag, ranges in ((DROP, INVISIBLE), (WORD, SPACELESS), (MARK, MARKS)):
        flags[list(map(ord, re.findall(f"[{ranges}]", characters)))] |= flag
    return flags


@functools.cache
def _plain_forms() -> dict[int, str]:
    """Return the plain form of each letter and decimal digit that has one, superscripts and subscripts aside."""
    forms = {}
    for char in _all_characters():
        kind = unicodedata.decomposition(char).partition(" ")[0]
        is_form = kind.startswith("<") and kind not in ("<super>", "<sub>")
        if is_form and unicodedata.category(char) in ("Lu", "Ll", "Lt", "Lm", "Lo", "Nd"):
            forms[ord(char)] = unicodedata.normalize("NFKC", char)
    return forms


@functools.cache
def _all_characters() -> str:
    return "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))
