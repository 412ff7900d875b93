"""The choosing tasks and PTB: layouts, partial scoring, and what each takes from the paper's Table H.1."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.tasks.analogies import read_sat_analogies
from fewshot.evaluate.tasks.commonsense import make_piqa, read_pupils
from fewshot.evaluate.tasks.nli import read_anli
from fewshot.evaluate.tasks.ptb import make_ptb
from fewshot.evaluate.tasks.story_cloze import VALIDATION_FILE, read_story_cloze
from fewshot.evaluate.tasks.table import make_task
from fewshot.evaluate.tasks.winograd import WINOGRAD_FORMS, WINOGRANDE_FORMS, in_place

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"

H1 = {  # task: sample, row of Table H.1, K, chance, has a development set beside the evaluated one
    "story_cloze": ("story_cloze", "StoryCloze", 70, 1 / 2, True),
    "nq_open": ("nq_open", "NQs", 64, None, False),
    "web_questions": ("web_questions", "WebQs", 64, None, False),
    "trivia_qa": ("trivia_qa", "TriviaQA", 64, None, False),
    "winograd": ("winograd", "Winograd", 7, 1 / 2, False),
    "winogrande": ("winogrande", "Winogrande", 50, 1 / 2, False),
    "piqa": ("piqa", "PIQA", 50, 1 / 2, False),
    "arc_easy": ("arc", "ARC (Easy)", 50, 1 / 4, True),
    "arc_challenge": ("arc", "ARC (Challenge)", 50, 1 / 4, True),
    "openbookqa": ("openbookqa", "OpenBookQA", 100, 1 / 4, True),
    "anli_r1": ("anli", "ANLI R1", 50, 1 / 3, True),
    "anli_r2": ("anli", "ANLI R2", 50, 1 / 3, True),
    "anli_r3": ("anli", "ANLI R3", 50, 1 / 3, True),
    "ptb": ("ptb", "PTB", 0, None, False),
}
HARNESS_METRICS = {
    **{task: ["acc"] for task in ("story_cloze", "winograd", "winogrande", "anli_r1")},
    **{task: ["acc", "acc_norm"] for task in ("piqa", "arc_easy", "openbookqa")},
}


def sampled(task: str) -> DataFolder:
    return DataFolder(SAMPLES / H1[task][0])


@pytest.mark.parametrize("name", H1)
def test_k_chance_and_development_set_are_the_papers(name: str) -> None:
    task = make_task(name, data=sampled(name))
    assert (task.name, task.paper_name, task.default_shots) == (name, H1[name][1], H1[name][2])
    assert task.chance == (None if H1[name][3] is None else pytest.approx(H1[name][3]))
    assert (task.dev is not None) == H1[name][4]


@pytest.mark.parametrize("name", HARNESS_METRICS)
def test_measures_are_named_as_the_harness_names_them(name: str) -> None:
    task = make_task(name, data=sampled(name), protocol=HARNESS)
    assert [metric.name for metric in task.metrics] == HARNESS_METRICS[name]
    assert task.answer_context is None


@pytest.mark.parametrize("name", ["sat_analogies", "ptb"])
def test_a_task_that_the_harness_has_not_is_refused(name: str) -> None:
    with pytest.raises(BadValue, match=f"{name} is no task of lm-evaluation-harness"):
        make_task(name, data=DataFolder(SAMPLES / name), protocol=HARNESS)


@pytest.mark.parametrize("name", ["arc_easy", "arc_challenge", "openbookqa"])
def test_arc_and_openbookqa_choose_above_the_bare_answer_context(name: str) -> None:
    task = make_task(name, data=sampled(name))
    assert task.answer_context == "Answer:"
    example = task.episodes(1, 0, 0)[0].example
    unlikely_anyway = tuple(-9.0 if index == example.gold else -1.0 for index in range(4))
    answer = Answer(example=example, logprobs=(-2.0,) * 4, n_tokens=(1,) * 4, unconditional=unlikely_anyway)
    assert task.metrics[0].of([answer]) == 1.0


def test_development_episodes_are_drawn_from_the_development_set() -> None:
    task = make_task("arc_easy", data=sampled("arc_easy"))
    assert task.dev is not None
    assert {one.example.id for one in task.dev(9, 2, 0)} == {"MADEUP_e6"}
    assert all(len(one.demonstrations) == 2 for one in task.dev(9, 2, 0))


def test_stories_are_shown_from_the_validation_set() -> None:
    data = sampled("story_cloze")
    validation = {one.id for one in read_story_cloze(data.require("story_cloze", VALIDATION_FILE))}
    shown = {
        one.id for episode in make_task("story_cloze", data=data).episodes(9, 5, 0) for one in episode.demonstrations
    }
    assert shown == validation


def test_a_table_whose_quotation_mark_never_closes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('InputStoryid,InputSentence1\n"' + "a story without an end\n" * 9_999)
    with pytest.raises(BadFile, match=r"a\.csv is not a table of comma-separated values: field larger than"):
        read_story_cloze(DataFile("a.csv", DataFolder(tmp_path)))


def test_the_papers_own_analogy_is_read_as_it_prints_it() -> None:
    first, second, *_ = read_sat_analogies(DataFile("SAT-package-V3.txt", DataFolder(SAMPLES / "sat_analogies")))
    assert first.context == "lull is to trust as"
    assert first.completions[first.gold] == " cajole is to compliance"
    assert len(first.completions) == 5
    assert len(second.completions) == 4  # the fifth is the file's "no choice"
    assert second.demonstration == "puppy is to dog as calf is to cow"


@pytest.mark.parametrize(
    ("option", "pronoun", "begins", "expected"),
    [
        ("The kettle", "it", False, "the kettle"),
        ("The kettle", "it", True, "The kettle"),
        ("Joan", "she", False, "Joan"),
        ("The man", "his", False, "the man's"),
        ("Theodore", "he", False, "Theodore"),
    ],
)
def test_a_candidate_takes_the_pronouns_case_and_capital(option, pronoun, begins, expected) -> None:
    assert in_place(option, pronoun, begins) == expected


def test_the_collection_of_schemas_and_the_rendered_set_agree(shared_data: Path) -> None:
    archive = DataFolder(shared_data / "eval/format_samples/winograd_wsc__wsc273__0.0.0.zip")
    original = WINOGRAD_FORMS[GPT3].read(archive.require("winograd", "WSCollection.xml"))
    rendered = WINOGRAD_FORMS[GPT3].read(DataFile("winograd_wsc.jsonl", DataFolder(shared_data / "eval" / "rendered")))
    assert len(original) == 5
    for one, other in zip(original[:4], rendered, strict=False):
        assert (one.contexts, one.completions, one.gold) == (other.contexts, other.completions, other.gold)


def test_what_follows_the_blank_keeps_its_closing_punctuation(tmp_path: Path) -> None:
    row = {"qID": "q", "sentence": "Ann asked Bea about _'s car.", "option1": "Ann", "option2": "Bea", "answer": "2"}
    (tmp_path / "dev.jsonl").write_text(json.dumps(row))
    (paper,) = WINOGRANDE_FORMS[GPT3].read(DataFile("dev.jsonl", DataFolder(tmp_path)))
    assert paper.contexts == ("Ann asked Bea about Ann", "Ann asked Bea about Bea")
    assert paper.demonstration == "Ann asked Bea about Bea's car."
    (harness,) = WINOGRANDE_FORMS[HARNESS].read(DataFile("dev.jsonl", DataFolder(tmp_path)))
    assert harness.completions == (" 's car.", " 's car.")


def test_piqa_labels_are_those_of_the_same_split(tmp_path: Path) -> None:
    folder = tmp_path / "piqa"
    folder.mkdir()
    for split, n, label in (("train", 3, "1"), ("valid", 2, "0")):
        rows = [json.dumps({"goal": f"{split} {i}", "sol1": "a ", "sol2": "b"}) for i in range(n)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows))
        (folder / f"{split}-labels.lst").write_text(f"{label}\n" * n)
    task = make_piqa(data=DataFolder(folder))
    for episode in task.episodes(9, 3, 0):
        assert episode.example.gold == 0
        assert {one.gold for one in episode.demonstrations} == {1}
    (folder / "valid-labels.lst").write_text("0\n")
    with pytest.raises(BadFile, match="must hold 2 labels"):
        make_piqa(data=DataFolder(folder))


def test_a_question_may_have_numbers_for_letters_and_three_choices(tmp_path: Path) -> None:
    choices = [{"text": text, "label": label} for text, label in (("x", "1"), ("y", "2"), ("z", "3"))]
    row = {"id": "q", "question": {"stem": "What?", "choices": choices}, "answerKey": "2"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    (example,) = read_pupils(DataFile("a.jsonl", DataFolder(tmp_path)), question=True)
    assert example.demonstration == "Question: What?\nAnswer: y"
    (tmp_path / "a.jsonl").write_text(json.dumps({**row, "answerKey": "4"}))
    with pytest.raises(BadFile, match=r"a\.jsonl line 1: answerKey is '4', q has the choices 1, 2, 3"):
        read_pupils(DataFile("a.jsonl", DataFolder(tmp_path)), question=True)


def test_a_label_that_anli_has_not_is_named(tmp_path: Path) -> None:
    row = {"uid": "u", "context": "c", "hypothesis": "h", "label": "x"}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadFile, match=r"test\.jsonl line 1: label is .x., must be one of .e., .n., .c."):
        read_anli(DataFile("test.jsonl", DataFolder(tmp_path)), 1, prompt="{question}")


def test_ptb_is_one_text_and_its_perplexity_is_a_words(tmp_path: Path) -> None:
    (tmp_path / "ptb.test.txt").write_text(" no it was n't \n <unk> N \n")
    task = make_ptb(data=DataFolder(tmp_path))
    (episode,) = task.episodes(9, 0, 0)
    assert (task.kind, episode.example.context, episode.example.completions) == (
        "rolling",
        "",
        ("no it was n't\n<unk> N",),
    )
    answer = Answer(example=episode.example, logprobs=(-12.0,))
    assert task.metrics[0].of([answer]) == pytest.approx(7.389056, rel=1e-6)  # e^(12 nats / 6 words)
