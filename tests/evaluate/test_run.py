from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from small_evaluations import SETTINGS, evaluate, listed, tiny_gpt

from fewshot.base.errors import BadValue
from fewshot.evaluate import run
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.demonstrations import drawn_episodes, harness_episodes, own_episodes
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.metrics.metric import accuracy, greedy_accuracy, judged, perplexity, written_exactly
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.scoring.answerer import Answerer
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task


def test_a_model_that_copies_is_at_chance_without_shots_and_ideal_with_all(small_tokenizer, copier):
    tokenizer = small_tokenizer()
    model = copier(tokenizer.n_vocab, 200, order=2)  # "q " as two characters
    zero, four, all_shown = evaluate(model, tokenizer, make_task("novel_symbols"), shots=(0, 4, 16), **SETTINGS)
    assert (zero.shots_used, four.shots_used, all_shown.shots_used) == (0, 4, 16)
    assert zero.ideal == zero.chance == 1 / 16
    assert zero.value < 0.2
    assert zero.value < four.value < all_shown.value
    assert all_shown.value == all_shown.ideal == 1.0
    assert all_shown.low < 1.0 == all_shown.high
    assert (zero.n, zero.n_skipped, zero.metric) == (40, 0, "accuracy")


def test_results_are_the_same_for_every_batch_size_and_change_with_the_seed(small_tokenizer):
    tokenizer = small_tokenizer()
    model = tiny_gpt(tokenizer.n_vocab, 64)

    def values(batch_size: int, seed: int) -> list[tuple]:
        results = evaluate(
            model, tokenizer, make_task("novel_symbols"), shots=(0, 3), limit=30, seed=seed, batch_size=batch_size
        )
        return [(one.value, [sample.answer for sample in one.samples], one.samples[0].prompt) for one in results]

    assert values(1, 0) == values(7, 0)
    assert values(7, 0) != values(7, 1)


def test_a_question_that_does_not_fit_is_counted_and_the_others_are_answered(small_tokenizer, copier):
    tokenizer = small_tokenizer()
    questions = [Example("short", "ab", ("c", "d")), Example("long", "a" * 50, ("c", "d"))]
    task = listed({"kind": "choose", "metrics": (accuracy(),)}, questions, [Example("shown", "xab", ("c", "d"))])
    (result,) = evaluate(copier(tokenizer.n_vocab, 20, order=2), tokenizer, task, shots=(1,), **SETTINGS)
    assert (result.n, result.n_skipped, result.value) == (1, 1, 1.0)
    (nothing,) = evaluate(copier(tokenizer.n_vocab, 2, order=2), tokenizer, task, shots=(1,), **SETTINGS)
    assert (nothing.n, nothing.n_skipped, nothing.value, nothing.low, nothing.high) == (0, 2, None, None, None)
    json.dumps(nothing.to_json(), allow_nan=False)


def test_unconditional_normalisation_turns_the_choice_of_a_likely_text(small_tokenizer):
    """By hand: after any token " a" has 0.5 and " b" 0.1, but after "?" they have 0.4 and 0.3: b gains more."""
    tokenizer = small_tokenizer(" a", " b")
    a, b = (tokenizer.encode(one)[0] for one in (" a", " b"))
    table = torch.zeros(tokenizer.n_vocab, tokenizer.n_vocab)
    table[:, a], table[:, b] = math.log(50.0), math.log(10.0)
    question = tokenizer.encode("?")[0]
    table[question, a], table[question, b] = math.log(40.0), math.log(30.0)

    bigram = SimpleNamespace(
        n_ctx=20,
        device=torch.device("cpu"),
        branching=False,
        read=lambda tokens: table[tokens],
        logits=lambda hidden: hidden,
    )
    asked = [Example("q", "which?", (" a", " b"), 1)]
    for normalisation, value in (("sum", 0.0), ("token", 0.0), ("unconditional", 1.0)):
        task = listed({"kind": "choose", "metrics": (accuracy(normalisation),), "answer_context": "A:"}, asked, [])
        (result,) = evaluate(bigram, tokenizer, task, shots=(0,), **SETTINGS)
        assert result.value == value, normalisation


def test_per_token_and_sum_choose_differently_between_a_short_and_a_long_text(small_tokenizer):
    """By hand: a token costs log V nats, but within the alphabet one: "xy" 9.1, 4.6 a token; the long one 13.6, 1.4."""
    tokenizer = small_tokenizer()
    table = torch.zeros(tokenizer.n_vocab, tokenizer.n_vocab)
    for one, other in pairwise(tokenizer.encode("abcdefghij")):
        table[one, other] = math.log((tokenizer.n_vocab - 1) / (math.e - 1))
    lm = SimpleNamespace(
        n_ctx=64,
        device=torch.device("cpu"),
        branching=False,
        read=lambda tokens: table[tokens],
        logits=lambda hidden: hidden,
    )
    asked = [Example(str(i), f"{i}:", ("xy", "abcdefghij")) for i in range(20)]
    for metric, value, chosen in ((accuracy("sum"), 1.0, "xy"), (accuracy("token"), 0.0, "abcdefghij")):
        task = listed({"kind": "choose", "metrics": (metric,)}, asked, [])
        (result,) = evaluate(lm, tokenizer, task, shots=(0,), **SETTINGS)
        assert (result.value, result.samples[0].answer) == (value, chosen)


def test_of_choices_that_read_alike_each_is_right(small_tokenizer):
    tokenizer = small_tokenizer()
    lm = tiny_gpt(tokenizer.n_vocab, 64)
    asked = [
        Example(str(i), f"{i}:", (" the same", " the same", " a quite different and longer one"), 1) for i in range(9)
    ]
    metrics = (accuracy("sum"),)
    for episodes in (drawn_episodes("t", asked, []), own_episodes("t", asked)):
        task = Task(name="t", source="test", kind="choose", metrics=metrics, episodes=episodes)
        (result,) = evaluate(lm, tokenizer, task, shots=(0,), **SETTINGS)
        assert result.value == 1.0
    harness = replace(task, episodes=harness_episodes("t", asked, asked), protocol=HARNESS)
    (result,) = evaluate(lm, tokenizer, harness, shots=(0,), **SETTINGS)
    assert result.value == 0.0  # as in the harness, which takes the first of equals and compares its number


def test_perplexity_gives_accuracy_of_whole_words_and_perplexity_per_word(small_tokenizer, copier):
    tokenizer = small_tokenizer()
    model = copier(tokenizer.n_vocab, 99, order=2)
    seen = Example("seen", "my dog, my", (" dog",))  # each two characters of "my dog" were followed by the next one
    unseen = Example("unseen", "my dog, the", (" cat",))
    task = listed({"kind": "perplexity", "metrics": (greedy_accuracy(), perplexity())}, [seen, unseen], [])
    right, surprise = evaluate(model, tokenizer, task, shots=(0,), **SETTINGS)
    assert (right.metric, surprise.metric) == ("accuracy", "perplexity")
    said, unsaid = 9 - math.log(math.exp(9) + tokenizer.n_vocab - 1), -math.log(tokenizer.n_vocab)
    assert surprise.low <= surprise.value <= surprise.high
    assert right.value == 0.5
    assert surprise.value == pytest.approx(math.exp(-(4 * said + 4 * unsaid) / 2), rel=0.05)


def test_completing_judges_what_the_model_wrote_and_metrics_are_named(small_tokenizer, set_in_module):
    tokenizer = small_tokenizer()
    asked = {}

    def search(steps, tokenizer, prompts, **settings):
        asked.update(settings, prompts=[tokenizer.decode(list(prompt[1:])) for prompt in prompts])
        return [SimpleNamespace(text=" 4" if "2 plus 2" in prompt else " 9") for prompt in asked["prompts"]]

    set_in_module(Answerer, "beam_search", search)
    questions = [Example("a", "2 plus 2 is", (" 4", " four")), Example("b", "2 plus 3 is", (" 5",))]
    metrics = (written_exactly(), judged("closeness", lambda answer, example: 0.25))
    task = listed({"kind": "complete", "metrics": metrics, "max_answer_tokens": 3}, questions, [])
    first, second = evaluate(tiny_gpt(tokenizer.n_vocab, 64), tokenizer, task, shots=(0,), **SETTINGS)
    assert (first.value, first.metric) == (0.5, "accuracy")
    assert (asked["max_tokens"], asked["stop"], asked["beams"], asked["length_penalty"]) == (3, ("\n",), 4, 0.6)
    assert {(one.prompt, one.answer, one.expected, one.value) for one in first.samples} == {
        ("2 plus 2 is", " 4", " 4", 1.0),
        ("2 plus 3 is", " 9", " 5", 0.0),
    }
    assert (second.metric, second.value, second.low, second.high) == ("closeness", 0.25, 0.25, 0.25)
    assert second.samples == ()


def test_a_rolling_text_is_one_answer_with_the_logprob_of_all_its_windows(small_tokenizer):
    tokenizer = small_tokenizer()
    text = "some words of a longer text"
    task = listed({"kind": "rolling", "metrics": (perplexity("byte"),)}, [Example("t", "", (text,))], [])
    (answered,) = run.evaluate(tiny_gpt(tokenizer.n_vocab, 8), tokenizer, task, shots=(0,), **SETTINGS)
    (answer,) = answered.answers
    assert answer.n_tokens == (len(text),)
    assert answered.results()[0].value == pytest.approx(math.exp(-answer.logprobs[0] / len(text)))


@pytest.mark.parametrize("name", ["novel_letters", "novel_offset", "arithmetic_2d_add", "scramble_rw"])
def test_every_kind_runs_on_a_real_model(small_tokenizer, name):
    tokenizer = small_tokenizer()
    model = tiny_gpt(tokenizer.n_vocab, 160)
    done = []
    results = evaluate(
        model,
        tokenizer,
        make_task(name),
        shots=(0, 2),
        limit=5,
        seed=0,
        batch_size=2,
        on_progress=lambda *counts: done.append(counts),
    )
    assert [(one.task, one.shots, one.n, one.value) for one in results] == [(name, 0, 5, 0.0), (name, 2, 5, 0.0)]
    assert done[-1] == (10, 10)
    assert json.loads(json.dumps(results[1].to_json()))["shots_used"] == 2.0


@pytest.mark.parametrize("shots", [(), (0, -1)])
def test_shots_that_are_none_or_negative_are_refused(small_tokenizer, shots):
    with pytest.raises(BadValue, match="shots are"):
        evaluate(tiny_gpt(97, 8), small_tokenizer(), make_task("novel_offset"), shots=shots, **SETTINGS)


def test_ideal_is_that_of_the_demonstrations_that_fitted(small_tokenizer, copier):
    tokenizer = small_tokenizer()
    episode = Episode(Example("q", "q", ("a", "b")), (Example("d", "d", ("a", "b")),) * 3, (0.1, 0.2, 0.3, 0.4))
    task = Task(
        name="t", kind="choose", metrics=(accuracy(),), source="test", episodes=lambda n, shots, seed: [episode]
    )
    (result,) = evaluate(copier(tokenizer.n_vocab, 9, order=2), tokenizer, task, shots=(3,), **SETTINGS)
    assert (result.shots_used, result.ideal) == (2, 0.3)  # <eot> da\nda\nqa is nine tokens


class MemoryStore:
    """A store in memory that counts what it was given."""

    def __init__(self) -> None:
        self.answers: dict = {}

    def add(self, task, answers) -> None:
        self.answers.update({(prompt.tokens, prompt.spans): answer for prompt, answer in answers})

    def get(self, task, prompt) -> Answer | None:
        return self.answers.get((prompt.tokens, prompt.spans))


def test_answers_that_are_stored_are_not_asked_again(small_tokenizer, monkeypatch):
    tokenizer, store, asked = small_tokenizer(), MemoryStore(), []
    model, task = tiny_gpt(tokenizer.n_vocab, 160), make_task("novel_letters")  # no question comes twice
    answer = Answerer.answers
    monkeypatch.setattr(
        Answerer,
        "answers",
        lambda self, task, prompts: asked.append(len(prompts)) or answer(self, task, prompts),
    )
    half = run.evaluate(model, tokenizer, task, shots=(0, 2), limit=10, seed=0, batch_size=2, store=store)
    assert sum(asked) == 20
    asked.clear()
    whole = run.evaluate(model, tokenizer, task, shots=(0, 2, 3), limit=15, seed=0, batch_size=2, store=store)
    assert sum(asked) == 10 + 15  # five more questions at two K, all at the third
    assert [one.answers for one in half] == [one.answers[:10] for one in whole[:2]]
    assert whole == run.evaluate(model, tokenizer, task, shots=(0, 2, 3), limit=15, seed=0, batch_size=2)
