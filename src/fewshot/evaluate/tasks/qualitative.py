"""The paper's tasks that people judge: using a new word, correcting English, writing news. Out: prompts to complete.

Nothing is scored here. Source: Brown et al. 2020, sections 3.9.4 to 3.9.6, figures 3.14, 3.16, 3.17, appendix E.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewshot.base.errors import check


@dataclass(frozen=True)
class NewWord:
    """A word that does not exist, its definition as a whole clause, and a sentence that uses it, once there is one."""

    word: str
    definition: str
    sentence: str = ""


@dataclass(frozen=True)
class Correction:
    """An English sentence with its faults, and without them."""

    poor: str
    good: str


@dataclass(frozen=True)
class Article:
    """A news article; one to be written has no text yet."""

    title: str
    subtitle: str
    text: str = ""


# Figure 3.16 begins with this one, of which a person gave the sentence; the model wrote those of the other words.
WHATPU = NewWord(
    "whatpu",
    'A "whatpu" is a small, furry animal native to Tanzania.',
    "We were traveling in Africa and we saw these very cute whatpus.",
)
FARDUDDLE = NewWord("farduddle", 'To do a "farduddle" means to jump up and down really fast.')
NEW_WORDS = ("whatpu", "farduddle", "yalubalu", "Burringo", "Gigamuru", "screeg")  # in the paper's order

N_EARLIER_ARTICLES = 3  # that stand before the title of the one to be written
N_NEWS_WORDS = 200  # about as long as the paper's articles


def novel_word_prompt(wanted: NewWord, earlier: Sequence[NewWord] = (WHATPU,)) -> str:
    """Return a prompt for a sentence that uses `wanted`, after words that were used before; what was written stays in
    it.
    """
    check(all(word.sentence for word in earlier), "every earlier word must have a sentence that uses it")
    shown = "".join(f"{_introduced(word)}{word.sentence}\n" for word in earlier)
    return shown + _introduced(wanted)


def _introduced(word: NewWord) -> str:
    return f"{word.definition} An example of a sentence that uses the word {word.word} is:\n"


def grammar_prompt(poor: str, shown: Sequence[Correction]) -> str:
    """Return a prompt for `poor` in good English, after sentences that are corrected."""
    lines = [f"Poor English input: {one.poor}\nGood English output: {one.good}\n" for one in shown]
    return "".join(lines) + f"Poor English input: {poor}\nGood English output:"


def news_prompt(wanted: Article, earlier: Sequence[Article]) -> str:
    """Return a prompt for the text of `wanted`, after whole articles: the paper has three."""
    check(all(article.text for article in earlier), "every earlier article must have a text")
    return "".join(f"{_headed(article)} {article.text}\n\n" for article in earlier) + _headed(wanted)


def _headed(article: Article) -> str:
    return f"Title: {article.title}\nSubtitle: {article.subtitle}\nArticle:"
