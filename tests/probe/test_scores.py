from __future__ import annotations

import itertools
import math

import pytest
import torch
from circuits import T, V, induction_model

from fewshot.base.errors import BadValue
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.patterns.schedule import parse
from fewshot.probe.scores import KINDS, goals, score_heads

TEXTS = [[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2, 3, 8, 4, 6, 2, 6, 4], [7, 7, 0, 7, 10, 0]]


def is_goal(kind: str, text: list[int], q: int, k: int) -> bool:
    if kind == "previous":
        return k == q - 1
    if kind == "same":
        return k < q and text[k] == text[q]
    return 1 <= k <= q and text[k - 1] == text[q]


@pytest.mark.parametrize("kind", KINDS)
def test_goals_are_those_of_the_definition(kind):
    for text in TEXTS:
        marked = goals(torch.tensor([text]))[kind][0]
        for q, k in itertools.product(range(len(text)), repeat=2):
            assert marked[q, k] == is_goal(kind, text, q, k), (q, k)


def test_a_hand_built_induction_head_scores_1_and_its_half_is_at_chance():
    previous, induction = score_heads(induction_model(n_layers=2), TEXTS)
    assert previous.scores["previous"] >= 0.99
    assert induction.scores["induction"] >= 0.99
    assert induction.chance["induction"] < 0.3
    (half,) = score_heads(induction_model(n_layers=1), TEXTS)
    assert half.scores["induction"] == pytest.approx(half.chance["induction"], abs=1e-4)


def test_attention_that_is_split_over_all_earlier_occurrences_counts_as_a_whole():
    text = [0, 1, 0, 2, 0, 3, 0]  # before the last position 0 came three times
    _, induction = score_heads(induction_model(n_layers=2), [text], last_only=True)
    assert induction.scores["induction"] == pytest.approx(1, abs=1e-3)
    assert induction.chance["induction"] == pytest.approx(3 / 7)


@pytest.mark.parametrize("pattern", ["dense", "banded(3)", "strided(2)", "fixed(4, 1)", "banded(2) | strided(3)"])
def test_chance_is_the_share_of_allowed_keys_that_are_goals(pattern):
    text, its_pattern = TEXTS[0], parse(pattern).for_layer(0)
    (head,) = score_heads(induction_model(n_layers=1, pattern=pattern), [text])
    for kind in KINDS:
        shares = []
        for q in range(len(text)):
            if any(is_goal(kind, text, q, k) for k in range(len(text))):
                allowed = [k for k in range(len(text)) if its_pattern.allows(q, k)]
                shares.append(sum(is_goal(kind, text, q, k) for k in allowed) / len(allowed))
        assert head.chance[kind] == pytest.approx(math.fsum(shares) / len(shares), abs=1e-6)
    assert head.pattern == pattern


def test_heads_that_differ_have_patterns_and_chances_of_their_own():
    config = GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=T, n_vocab=V, pattern="perhead(dense, banded(2))")
    dense, banded = score_heads(GPT(config, seed=0), TEXTS)
    assert (dense.pattern, banded.pattern) == ("dense", "banded(2)")
    assert dense.chance["previous"] < banded.chance["previous"] == pytest.approx(0.5)
    assert [str(dense.head), str(banded.head)] == ["L0H0", "L0H1"]


def test_a_text_without_goals_scores_0():
    _, induction = score_heads(induction_model(n_layers=2), [[1, 2, 3]])
    assert induction.scores["induction"] == induction.chance["induction"] == 0


def test_no_text_is_refused():
    with pytest.raises(BadValue, match="no text"):
        score_heads(induction_model(n_layers=1), [[]])
