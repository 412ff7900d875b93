from __future__ import annotations

import json
from dataclasses import replace

import pytest

from fewshot.base.errors import BadFile
from fewshot.corpus.document import Document
from fewshot.evaluate.contamination import CleanDirtyScores, Contamination, Overlap, SubsetScore
from fewshot.evaluate.store.contamination import Evidence, counted_text, read_main_scores, store_evidence


def evidence(n: int, *, value: float = 0.5, task: str = "drop", **fields) -> Evidence:
    score = SubsetScore(n=n, value=value, low=0.2, high=0.8)
    scores = CleanDirtyScores(
        task=task, metric="f1", share=True, shots=0, n_words=13, all=score, clean=score, dirty=score, clean_share=0.5,
        relative_difference=value - 0.5,
    )  # fmt: skip
    split = Contamination(
        task=task,
        n_words=13,
        clean=tuple(map(str, range(n - 1))),
        dirty=(Overlap(id="d", gram="a b", document="x", n_grams=1),),
    )
    plain = {"questions": f"q{n}", "text": "t", "shots": 0, "seed": 0, "split": split, "scores": (scores,)}
    return Evidence(**{**plain, **fields})


OTHERS = {
    "fewer examples": {"n": 3},
    "more examples": {"n": 9},
    "another K": {"n": 6, "shots": 2},
    "another seed": {"n": 6, "seed": 1},
    "other questions": {"n": 6, "questions": "others"},
    "another training text": {"n": 6, "text": "other"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_evidence_is_replaced_by_the_same_measurement_alone(tmp_path, other):
    first, second = evidence(6), evidence(**other)
    for one in (first, second, first):
        kept = store_evidence(tmp_path / "step-00000001", {"drop": one}, step=1, weights="w")
    stored = json.loads((kept / "drop.json").read_text())["results"]
    plain = [json.loads(json.dumps(one.to_json())) for one in (first, second)]
    assert sorted(stored, key=str) == sorted(plain, key=str)
    with pytest.raises(BadFile, match=r"drop\.json holds results of other weights"):
        store_evidence(tmp_path / "step-00000001", {"drop": first}, step=1, weights="w2")


def test_the_main_score_of_every_stored_task_is_that_on_most_questions(tmp_path):
    own = tmp_path / "step-00000001"
    most = evidence(6, value=0.9)
    store_evidence(own, {"drop": most}, step=1, weights="w")
    kept = store_evidence(own, {"drop": evidence(3, value=0.1)}, step=1, weights="w")
    assert read_main_scores(kept) == list(most.scores)
    other = evidence(4, task="quac")
    store_evidence(own, {"quac": other}, step=1, weights="w")
    assert read_main_scores(kept) == [*most.scores, *other.scores]


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"results": [{"scores": []}]}', '{"results": [{"scores": [{"all": 1}]}]}']
)
def test_a_damaged_file_of_another_task_is_left_out_of_the_main_scores(tmp_path, capsys, text):
    own = tmp_path / "step-00000001"
    drop = evidence(6)
    kept = store_evidence(own, {"drop": drop}, step=1, weights="w")
    (kept / "quac.json").write_text(text)
    capsys.readouterr()
    store_evidence(own, {"drop": drop}, step=1, weights="w")
    assert read_main_scores(kept) == list(drop.scores)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "quac.json cannot be read and is left out: move it away" in said
    with pytest.raises(BadFile, match=r"quac\.json"):
        store_evidence(own, {"quac": evidence(6)}, step=1, weights="w")


def test_the_digest_of_a_text_is_that_of_its_documents_alone():
    documents = [Document(id=f"{i}", text=text, source="s") for i, text in enumerate(("one", "two"))]

    def digest(many) -> str:
        passed, found = counted_text(many)
        assert list(passed) == list(many)
        return found.hexdigest()

    moved = [replace(one, id=f"elsewhere/{one.id}", source="other") for one in documents]
    assert digest(documents) == digest(moved)
    assert digest(documents) != digest(documents[:1]) != digest([replace(documents[0], text="onetwo")])
