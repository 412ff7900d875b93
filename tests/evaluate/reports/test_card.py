"""The card of an exported model: read by Hugging Face's library, with the stored numbers and no others."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from made_results import make

from fewshot.evaluate.contamination import CleanDirtyScores, SubsetScore
from fewshot.evaluate.reports.card import CARD, CURVE, card_files
from fewshot.evaluate.reports.page import EvaluatedModel

ABOUT: dict[str, Any] = {"library": "transformers", "usage": "`load(it)`", "told": "checked with theirs"}
METRICS = [
    {"step": 10, "tokens": 1000, "seconds": 3.0, "loss": 3.0, "val_loss": 2.5, "val_bits_per_byte": 1.25},
    {"step": 20, "tokens": 2_000_000, "seconds": 75.4, "loss": 2.0, "val_loss": None},
]


CURVE_OF = [make(k, value) for k, value in ((0, 0.07), (1, 0.1125), (8, 0.535))]
OTHERS = [make(0, 31.5, task="lambada", metric="perplexity", share=False, chance=None), make(4, None, task="copa")]


def whole() -> dict[str, str]:
    model = EvaluatedModel(
        name="my run",
        n_parameters=1_000_000,
        summary={"parameters": "1,000,000", "attention": "banded(2) | columns(8, 1)", "machine": "mine"},
        metrics=METRICS,
        results=[*CURVE_OF, *OTHERS],
    )
    part = SubsetScore(n=100, value=0.5, low=0.4, high=0.6)
    scores = CleanDirtyScores(
        task="novel_symbols",
        metric="accuracy",
        share=True,
        shots=8,
        n_words=13,
        all=part,
        clean=SubsetScore(n=90, value=0.45, low=0.4, high=0.6),
        dirty=part,
        clean_share=0.9,
        relative_difference=-0.1,
    )
    return card_files(model, **ABOUT, sources=["english (0.5)", "books (0.5)"], contamination=[scores])


def test_hugging_face_s_library_reads_the_stored_numbers(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    files = whole()
    (tmp_path / CARD).write_text(files[CARD], encoding="utf-8")
    card = hub.ModelCard.load(tmp_path / CARD)
    assert (card.data.library_name, card.data.pipeline_tag, card.data.model_name) == (
        "transformers",
        "text-generation",
        "my run",
    )
    found = [(row.dataset_type, row.metric_name, row.metric_value) for row in card.data.eval_results]
    expected = [(row.task, f"{row.metric}, K = {row.shots}", row.value) for row in [*CURVE_OF, OTHERS[0]]]
    assert found == expected
    assert hub.metadata_load(tmp_path / CARD)["tags"] == ["fewshot", "gpt", "in-context-learning"]


def test_every_number_stands_in_its_table() -> None:
    text = whole()[CARD]
    assert "| novel_symbols | accuracy | 8 | 0.535 | 0.485 to 0.585 | 0.062 | 200 |" in text
    assert "| lambada | perplexity | 0 | 31.500 | 31.450 to 31.550 |  | 200 |" in text
    assert "copa" not in text
    assert r"| attention | banded(2) \| columns(8, 1) |" in text
    assert "mine" not in text  # the machine that writes is not the one that trained
    assert "- 2,000,000 tokens in 20 steps and 75 s" in text
    assert "- about 1.2e+13 FLOPs, 1.4e-07 PF-days" in text  # 6 x 1e6 x 2e6, and over 8.64e19
    assert "held-out loss 2.500 nats a token, 1.250 bits a byte, after step 10" in text
    assert "| novel_symbols | 8 | 0.500 | 0.450 | 90.0% |" in text
    assert "- english (0.5)\n- books (0.5)" in text
    assert "`load(it)`" in text
    assert "The export was checked with theirs." in text


def test_the_curve_is_a_picture() -> None:
    files = whole()
    assert f"]({CURVE})" in files[CARD]
    assert ElementTree.fromstring(files[CURVE]).tag.endswith("svg")
    assert "novel_symbols" in files[CURVE]


def test_of_a_run_that_was_not_evaluated_it_says_so() -> None:
    files = card_files(EvaluatedModel(name="new", n_parameters=10), **ABOUT, sources=[], contamination=[])
    assert list(files) == [CARD]
    assert "model-index" not in files[CARD]
    assert len(re.findall("not measured", files[CARD])) == 4  # text, training, scores, contamination
