"""Words and punctuation apart, as Moses' tokenizer.perl has them. In: a sentence. Out: its tokens.

What is compared by multi-bleu is tokenised so. The lists of abbreviations are short here: Moses' own are long.
Source: Koehn et al. 2007; the order of steps is that of XLM's preparation (Lample & Conneau 2019).
"""

from __future__ import annotations

import re

_PLAIN = str.maketrans(
    {
        **dict.fromkeys("„“”«»″", '"'),
        **dict.fromkeys("‘’‚´′", "'"),
        **dict.fromkeys("–‐‑−", "-"),
        "—": " - ",
        "…": "...",
        "\u00a0": " ",
        "\u202f": " ",
    }
)
_UNSEEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b-\u200f\ufeff]")
_LONE = re.compile(r"([^\w\s.'`,-]|_)")  # every mark but those that words may hold
_DOTS = re.compile(r"\.{2,}")
_COMMAS = (re.compile(r"(?<!\d),|,(?!\d)"), r" , ")
_LETTER = r"[^\W\d_]"

# English closes a quotation after a comma or full stop, German and French before it.
_QUOTED = {
    "en": (re.compile(r'"([,.]+)'), r'\1"'),
    **dict.fromkeys(("de", "fr"), (re.compile(r'(,|\.+)"(?=\s*[^<\s])'), r'"\1')),
}

# An apostrophe between letters belongs to what follows in English, to what precedes in French, to neither elsewhere.
_BETWEEN = {"en": r" '", "fr": r"' "}
_APOSTROPHE = re.compile(rf"(?P<between>(?<={_LETTER})'(?={_LETTER}))|(?P<year>(?<=\d)'(?=s))|'")

_ABBREVIATIONS = {
    "en": "Mr Mrs Ms Dr Prof St Sr Gov Sen Rep Gen Col Lt Corp v vs Jan Feb Mar Apr Aug Sep Oct Nov Dec",
    "fr": "art cf dir etc fig MM pp sect suiv vol",
    "de": "Mio Mrd Dr Prof St bzw usw etc ggf vgl Nr Jan Feb Aug Okt Nov Dez",
    "ro": "dl dvs etc pt",
}
ABBREVIATIONS = {language: frozenset(words.split()) for language, words in _ABBREVIATIONS.items()}


def moses_tokens(text: str, language: str) -> list[str]:
    """Return the tokens of a sentence in "en", "fr", "de" or "ro"; any other language has no abbreviations."""
    text = _UNSEEN.sub("", text.translate(_PLAIN))
    if language in _QUOTED:
        pattern, ordered = _QUOTED[language]
        text = pattern.sub(ordered, text)
    text = _DOTS.sub(lambda dots: f" {dots.group()} ", _LONE.sub(r" \1 ", text))
    text = _COMMAS[0].sub(_COMMAS[1], text)
    text = _APOSTROPHE.sub(lambda mark: _apostrophe(mark, language), text)
    words = text.split()
    return [token for at, word in enumerate(words) for token in _without_full_stop(word, words[at + 1 :][:1], language)]


def _apostrophe(mark: re.Match[str], language: str) -> str:
    if language in _BETWEEN:
        if mark["between"]:
            return _BETWEEN[language]
        if mark["year"] and language == "en":
            return " '"
    return " ' "


def _without_full_stop(word: str, after: list[str], language: str) -> list[str]:
    """Return the word, parted from a full stop that ends it unless it is an abbreviation or within a sentence."""
    stem = word[:-1]
    if not word.endswith(".") or not stem or stem.endswith("."):
        return [word]
    abbreviation = ("." in stem and any(map(str.isalpha, stem))) or stem in ABBREVIATIONS.get(language, ())
    initial = len(stem) == 1 and stem.isalpha() and stem.isupper()
    within = bool(after) and after[0][0].islower()
    numbered = language == "de" and stem.isdigit() and bool(after)
    return [word] if abbreviation or initial or within or numbered else [stem, "."]
