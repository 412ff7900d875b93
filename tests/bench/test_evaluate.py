from __future__ import annotations

import pytest

from fewshot.bench.evaluate import Case, measure
from fewshot.bench.harness import random_gpt2, write_rows
from fewshot.tokenizer.bpe import train_bpe

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'fewshot[harness]'")


def scene(number: int) -> dict:
    endings = [f"walks {number} steps.", "sits down there.", "sings a song.", "is a stone."]
    return {"ind": number, "activity_label": "Walking", "ctx_a": f"A cat sees {number} dogs.", "ctx_b": "it",
            "label": number % 4, "endings": endings}  # fmt: skip


def test_both_sides_say_the_same_of_the_same_questions_and_ours_answers_all(tmp_path, set_in_module):
    write_rows(tmp_path / "hellaswag_val.jsonl", [scene(number) for number in range(20)])
    tokenizer = train_bpe([" ".join(map(str, scene(number).values())) for number in range(20)], n_vocab=300)
    set_in_module(measure, "load_gpt2", lambda folder: tokenizer)
    set_in_module(measure, "POOL", 8)
    small = {"n_embd": 32, "n_layer": 2, "n_head": 2}
    set_in_module(measure, "random_gpt2", lambda *given, **how: random_gpt2(*given, **{**how, **small}))
    messages = []
    cases = (Case("hellaswag", 3, True), Case("hellaswag", 3, False))
    result = measure(tmp_path, tmp_path, items=12, peer_items=4, cases=cases, say=messages.append)
    fixed, redrawn = result["rows"]
    assert (fixed["questions"], redrawn["questions"]) == (12, 4)
    assert fixed["peer_questions"] == redrawn["peer_questions"] == 4
    for row in result["rows"]:
        assert 0 < row["largest_difference"] < 1e-4
        assert row["ratio"] == pytest.approx(row["ours_per_second"] / row["peer_per_second"])
    assert [line.partition(":")[0] for line in messages] == [case.name for case in cases]
