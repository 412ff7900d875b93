from __future__ import annotations

import math

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.tasks.wikitext import make_wikitext, n_words, plain_text, read_wikitext

LINES = ("", " = Lamp =", "", " It 's , in 1 @,@ 204 words , \" old \" .", "", " = = Use = =", "", " So = x .",
         "", " = Two =", "", " B .")  # fmt: skip
RAW = "".join(f"{line} \n" for line in LINES)


def test_an_article_goes_from_its_title_to_the_next_and_is_read_as_running_text(tmp_path):
    (tmp_path / "wiki.test.raw").write_text(RAW)
    first, second = (episode.example for episode in make_wikitext(data=DataFolder(tmp_path)).episodes(9, 0, 0))
    assert first.completions == (' = Lamp =\n\nIt\'s, in 1,204 words, "old".\n\n== Use ==\n\nSo = x.\n',)
    assert first.references.startswith(" = Lamp = \n \n It 's ,")
    assert second.references == " = Two = \n \n B . \n"


def test_perplexities_count_words_and_bytes_of_the_article_as_it_stands(tmp_path):
    (tmp_path / "wiki.test.raw").write_text(RAW)
    task = make_wikitext(data=DataFolder(tmp_path))
    answers = [Answer(example=one.example, logprobs=(-10.0,)) for one in task.episodes(2, 0, 0)]
    # " = Two = \n \n B . \n" is "", "=", "Two", "=", "B", ".", "" between white space, and 18 bytes.
    assert n_words(answers[1].example.references) == 7
    word, byte, bits = (metric.of(answers[1:]) for metric in task.metrics)
    assert word == pytest.approx(math.exp(10 / 7))
    assert byte == pytest.approx(math.exp(10 / 18))
    assert bits == pytest.approx(10 / 18 / math.log(2))


def test_the_validation_articles_are_the_harnesss_in_number_and_text(shared_data):
    peer = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    examples = read_wikitext(DataFile("wiki.valid.raw", DataFolder(shared_data / "text/wikitext2_raw")))
    assert len(examples) == 60  # Merity et al. 2016, table 1
    for example in examples:
        assert example.completions == (peer.wikitext_detokenizer({"page": example.references}),)
        assert plain_text(example.references) != example.references


def test_a_file_without_text_is_refused(tmp_path):
    (tmp_path / "wiki.test.raw").write_text(" \n \n")
    with pytest.raises(BadFile, match="holds no text"):
        make_wikitext(data=DataFolder(tmp_path))
