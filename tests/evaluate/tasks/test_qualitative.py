"""Prompts of the qualitative tasks, against the paper's figures 3.16 and 3.17 and appendix E."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.tasks.qualitative import (
    FARDUDDLE,
    RECIPES,
    WHATPU,
    Article,
    Correction,
    grammar_prompt,
    news_prompt,
    novel_word_prompt,
)

FIGURE_3_16 = (
    'A "whatpu" is a small, furry animal native to Tanzania. An example of a sentence that uses the word whatpu is:\n'
    "We were traveling in Africa and we saw these very cute whatpus.\n"
    'To do a "farduddle" means to jump up and down really fast. '
    "An example of a sentence that uses the word farduddle is:\n"
)


def test_a_new_word_is_asked_for_as_in_figure_3_16() -> None:
    assert novel_word_prompt(FARDUDDLE) == FIGURE_3_16


def test_what_was_written_stays_in_the_context_of_the_next_word() -> None:
    written = replace(FARDUDDLE, sentence="We farduddled.")
    assert novel_word_prompt(replace(FARDUDDLE, word="screeg", definition="To screeg."), (WHATPU, written)) == (
        FIGURE_3_16 + "We farduddled.\nTo screeg. An example of a sentence that uses the word screeg is:\n"
    )
    with pytest.raises(BadValue, match="must have a sentence"):
        novel_word_prompt(WHATPU, (FARDUDDLE,))


def test_english_is_corrected_after_corrections() -> None:
    assert grammar_prompt("I have ate.", [Correction("I eated.", "I ate.")]) == (
        "Poor English input: I eated.\nGood English output: I ate.\n"
        "Poor English input: I have ate.\nGood English output:"
    )


def test_news_is_written_under_a_title_after_whole_articles() -> None:
    earlier, wanted = Article("T1", "S1", "Text one."), Article("T2", "S2")
    assert news_prompt(wanted, [earlier]) == (
        "Title: T1\nSubtitle: S1\nArticle: Text one.\n\nTitle: T2\nSubtitle: S2\nArticle:"
    )
    with pytest.raises(BadValue, match="must have a text"):
        news_prompt(wanted, [wanted])


def test_a_recipe_without_a_text_is_about_the_papers_own_subject() -> None:
    assert RECIPES["novel_words"].prompt() == FIGURE_3_16
    assert (
        RECIPES["grammar"]
        .prompt()
        .endswith("I'd be more than happy to work with you in another project.\nGood English output:")
    )
    assert RECIPES["news"].prompt() == (  # figure 3.14
        "Title: United Methodists Agree to Historic Split\n"
        "Subtitle: Those who oppose gay marriage will form their own denomination\nArticle:"
    )


def test_a_recipe_is_put_about_the_text_that_is_given() -> None:
    assert (
        RECIPES["novel_words"]
        .prompt('A "zorp" is a hat.')
        .endswith('\nA "zorp" is a hat. An example of a sentence that uses the word zorp is:\n')
    )
    assert RECIPES["grammar"].prompt("I has it.").endswith("Poor English input: I has it.\nGood English output:")
    assert RECIPES["news"].prompt("Rain | Much of it") == "Title: Rain\nSubtitle: Much of it\nArticle:"
    with pytest.raises(BadValue, match="quotation marks"):
        RECIPES["novel_words"].prompt("A zorp is a hat.")
