from __future__ import annotations

import json

import pytest
from small_evaluations import SETTINGS, evaluate, listed, tiny_gpt

from fewshot.base.errors import BadValue
from fewshot.evaluate import run
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.metric import accuracy, perplexity
from fewshot.evaluate.result import Result, too_long
from fewshot.evaluate.tasks.table import make_task


def test_a_result_comes_back_from_json_as_it_was(small_tokenizer, copier):
    tokenizer = small_tokenizer()
    (result,) = evaluate(copier(97, 99, order=4), tokenizer, make_task("novel_symbols"), shots=(2,), **SETTINGS)
    assert len(result.samples) == 3
    assert Result.from_json(json.loads(json.dumps(result.to_json())), where="x.json") == result
    with pytest.raises(BadValue, match=r"key in x\.json"):
        Result.from_json({**result.to_json(), "value_": 1}, where="x.json")


def test_a_perplexity_beyond_every_number_is_none_and_said(small_tokenizer, capsys):
    tokenizer = small_tokenizer()
    texts = [Example("long", "", ("x" * 300,)), Example("short", "", ("x" * 200 + " " + "y" * 40,))]
    metrics = (perplexity("word"), perplexity("byte", name="a byte"))
    task = listed({"kind": "rolling", "metrics": metrics}, texts, [])
    word, byte = evaluate(tiny_gpt(tokenizer.n_vocab, 64), tokenizer, task, shots=(0,), **SETTINGS)
    assert (word.value, word.low, word.high, word.samples[0].value) == (None, None, None, None)
    assert byte.low < byte.value < byte.high
    assert "t: perplexity is too large for a number" in capsys.readouterr().err
    json.dumps(word.to_json(), allow_nan=False)


def test_what_does_not_fit_is_told_by_task_with_its_numbers(small_tokenizer, copier):
    tokenizer = small_tokenizer()
    questions = [Example("short", "ab", ("c", "d")), Example("long", "a" * 50, ("c", "d"))]
    pool = [Example("first", "xab", ("c", "d")), Example("second", "yab", ("c", "d"))]
    task = listed({"kind": "choose", "metrics": (accuracy(),)}, questions, pool)
    answered = run.evaluate(copier(tokenizer.n_vocab, 10, order=2), tokenizer, task, shots=(0, 1, 2), **SETTINGS)
    assert too_long(answered, 10) == [
        "t: 1 of 2 questions are not measured: they are too long for the model's context of 10 tokens",
        "t: not all demonstrations of K = 2 fit into 10 tokens; 'K used' is the mean number that fits",
    ]
    assert too_long(run.evaluate(copier(97, 99, order=2), tokenizer, task, shots=(0, 2), **SETTINGS), 99) == []
