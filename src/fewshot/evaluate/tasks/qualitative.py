"""The paper's tasks that people judge: using a new word, correcting English, writing news. Out: prompts to complete.

Nothing is scored here. `RECIPES[name].prompt(text)` returns the prompt about `text`, or about the paper's own subject
where the text is empty; what the model writes ends before `RECIPES[name].stop`. `fewshot generate --recipe` uses it.
Source: Brown et al. 2020, sections 3.9.4 to 3.9.6, figures 3.14, 3.16, 3.17, appendix E.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
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

# Figure 3.17 begins with these, which people wrote.
CORRECTIONS = (
    Correction("I eated the purple berries.", "I ate the purple berries."),
    Correction(
        "Thank you for picking me as your designer. I'd appreciate it.",
        "Thank you for choosing me as your designer. I appreciate it.",
    ),
    Correction(
        "The mentioned changes have done. or I did the alteration that you requested. or I changed things you wanted "
        "and did the modifications.",
        "The requested changes have been made. or I made the alteration that you requested. or I changed things you "
        "wanted and made the modifications.",
    ),
)


def novel_word_prompt(wanted: NewWord, earlier: Sequence[NewWord] = (WHATPU,)) -> str:
    """Return a prompt for a sentence that uses `wanted`, after earlier words and the sentences that use them."""
    check(all(word.sentence for word in earlier), "every earlier word must have a sentence that uses it")
    before = "".join(f"{_introduced(word)}{word.sentence}\n" for word in earlier)
    return before + _introduced(wanted)


def _introduced(word: NewWord) -> str:
    return f"{word.definition} An example of a sentence that uses the word {word.word} is:\n"


def grammar_prompt(poor: str, corrections: Sequence[Correction] = CORRECTIONS) -> str:
    """Return a prompt for `poor` in good English, after sentences that are corrected."""
    lines = [f"Poor English input: {pair.poor}\nGood English output: {pair.good}\n" for pair in corrections]
    return "".join(lines) + f"Poor English input: {poor}\nGood English output:"


def news_prompt(wanted: Article, earlier: Sequence[Article] = ()) -> str:
    """Return a prompt for the text of `wanted`, after whole articles: the paper has three, which it does not print."""
    check(all(article.text for article in earlier), "every earlier article must have a text")
    return "".join(f"{_headed(article)} {article.text}\n\n" for article in earlier) + _headed(wanted)


def _headed(article: Article) -> str:
    return f"Title: {article.title}\nSubtitle: {article.subtitle}\nArticle:"


def _for_definition(definition: str) -> str:
    word = re.search(r'"([^"]+)"', definition)
    check(word is not None, f"the definition must have its word in quotation marks, as in {WHATPU.definition}")
    return novel_word_prompt(NewWord(word[1] if word else "", definition))


def _for_headline(headline: str) -> str:
    title, _, subtitle = headline.partition(" | ")
    return news_prompt(Article(title, subtitle))


@dataclass(frozen=True)
class PromptRecipe:
    """A prompt of the paper that can be put about any subject."""

    about: str  # what the text to be given is
    subject: str  # the paper's own, taken where no text is given
    make_prompt: Callable[[str], str]
    stop: str  # what the model writes ends before this

    def prompt(self, text: str = "") -> str:
        """Return the prompt about that text, or about the paper's subject."""
        return self.make_prompt(text or self.subject)


RECIPES: Mapping[str, PromptRecipe] = {
    "novel_words": PromptRecipe(
        'the definition of a new word, which stands in "quotation marks"', FARDUDDLE.definition, _for_definition, "\n"
    ),
    "grammar": PromptRecipe(
        "a sentence in poor English",
        "I'd be more than happy to work with you in another project.",
        grammar_prompt,
        "\n",
    ),
    "news": PromptRecipe(
        "a title, and behind ' | ' a subtitle",
        "United Methodists Agree to Historic Split | Those who oppose gay marriage will form their own denomination",
        _for_headline,
        "\n\nTitle:",
    ),
}
