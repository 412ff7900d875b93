"""SuperGLUE's sets, read from their original layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.protocol import GPT3, HARNESS, PROTOCOLS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task
from fewshot.evaluate.tasks.wsc import marked_pronoun, noun_in_text, same_noun

PAPER = {"boolq": 3270, "cb": 56, "copa": 100, "rte": 277, "wsc": 104, "multirc": 953}  # Table C.1
SAMPLE = "eval/format_samples/super_glue__boolq__1.0.2.zip"  # WiC and ReCoRD are here in samples alone
MADE_UP = DataFolder(Path(__file__).resolve().parents[1] / "golden" / "samples" / "superglue")


def full(task: str, shared_data: Path, protocol: EvalProtocol = GPT3) -> Task:
    return make_task(task, data=DataFolder(shared_data / "eval/superglue"), protocol=protocol)


def sample(task: str, shared_data: Path) -> Task:
    return make_task(task, data=DataFolder(shared_data / SAMPLE))


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
@pytest.mark.parametrize("task", PAPER)
def test_validation_files_hold_as_many_questions_as_the_paper_counts(
    task: str, protocol: EvalProtocol, shared_data: Path
) -> None:
    episodes = full(task, shared_data, protocol).episodes(99_999, 31, 0)
    ids = {one.example.id for one in episodes}
    assert len(ids) == len(episodes) == (4848 if task == "multirc" else PAPER[task])  # MultiRC's answers
    assert len({one.split(":")[0] for one in ids}) == PAPER[task]
    assert {len(one.demonstrations) for one in episodes} == {
        31
    }  # the files here hold 32, of which the harness draws one more than it shows


@pytest.mark.parametrize(("task", "n"), [("wic", 2), ("record", 2)])
def test_samples_are_read_whole(task: str, n: int, shared_data: Path) -> None:
    assert len(sample(task, shared_data).episodes(99, 1, 0)) == n


@pytest.mark.parametrize(("task", "n_sets"), [("wsc", 1), ("multirc", 1), ("rte", 277)])
def test_wsc_and_multirc_have_one_set_of_demonstrations_others_one_for_each_question(
    task: str, n_sets: int, shared_data: Path
) -> None:
    sets = {one.demonstrations for one in full(task, shared_data).episodes(99_999, 8, 0)}
    assert len(sets) == n_sets


@pytest.mark.parametrize(
    ("task", "idx", "label", "text"),
    [
        ("BoolQ", 0, True, " yes"),
        ("BoolQ", 1, False, " no"),
        ("CB", 0, "contradiction", " false"),
        ("CB", 1, "neutral", " neither"),
        ("RTE", 0, "entailment", " True"),
        ("RTE", 1, "not_entailment", " False"),
        ("WiC", 1, False, " no"),
        ("COPA", 1, 1, " the keeper lit it again."),
    ],
)
def test_the_right_completion_is_that_of_the_label(task: str, idx: int, label: object, text: str) -> None:
    rows = MADE_UP.require(task, f"{task}/val.jsonl").rows("label")
    assert [row["label"] for row in rows if row["idx"] == idx] == [label]
    episodes = make_task(task.lower(), data=MADE_UP).episodes(99, 0, 0)
    (example,) = (one.example for one in episodes if one.example.id == str(idx))
    assert example.completions[example.gold] == text


def test_boolqs_own_files_give_what_superglues_do(shared_data: Path) -> None:
    own = make_task("boolq", data=DataFolder(shared_data / "eval/format_samples/boolq__0.1.0.zip"))
    theirs = {one.example.context: one.example for one in full("boolq", shared_data).episodes(9999, 0, 0)}
    episodes = own.episodes(99, 1, 0)
    assert len(episodes) == 1
    for one in episodes:
        assert theirs[one.example.context].completions == one.example.completions
        assert theirs[one.example.context].gold == one.example.gold
    assert own.source == "BoolQ/dev.jsonl, demonstrations from train.jsonl"


def test_demonstrations_come_from_the_same_folder_or_from_the_file_itself(tmp_path: Path) -> None:
    rows = [{"premise": f"P{n}.", "hypothesis": "H", "label": "neutral", "idx": n} for n in range(20)]
    for name in ("CB/val.jsonl", "elsewhere/train.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    task = make_task("cb", data=DataFolder(tmp_path))
    assert task.source == "CB/val.jsonl, demonstrations from a fifth of it, kept apart"
    assert 10 < len(task.episodes(99, 1, 0)) < 20


def test_an_unknown_label_is_named(tmp_path: Path) -> None:
    (tmp_path / "RTE").mkdir()
    row = {"premise": "P", "hypothesis": "H", "label": "perhaps", "idx": 0}
    (tmp_path / "RTE/val.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(
        BadFile, match=r"RTE/val\.jsonl line 1: label is 'perhaps', must be one of 'entailment', 'not_entailment'"
    ):
        make_task("rte", data=DataFolder(tmp_path))


# ---- WSC


def test_the_pronoun_is_marked_where_the_row_points_even_within_a_word(shared_data: Path) -> None:
    rows = DataFolder(shared_data / "eval/superglue").require("wsc", "WSC/val.jsonl").rows("text")
    assert all(marked_pronoun(row).count("*") == 2 for row in rows)
    assert "use *it* ," in marked_pronoun(rows[42])  # the row points at "use", a word too early
    text = 'Rosa smiled. "Not by them," Kim added.'
    assert marked_pronoun({"text": text, "target": {"span2_index": 4, "span2_text": "them"}}) == (
        'Rosa smiled. "Not by *them*," Kim added.'
    )


def test_a_noun_takes_the_texts_own_case() -> None:
    row = {"text": "The road to the mill is closed.", "target": {"span1_text": "The mill", "span1_index": 3}}
    assert noun_in_text(row) == "the mill"
    assert noun_in_text({**row, "target": {"span1_text": "the road.", "span1_index": 0}}) == "The road"


@pytest.mark.parametrize(
    ("written", "noun", "same"),
    [
        ("mr. moncrieff", "Mr. Moncrieff", True),
        ("The fuzzy bunny.", "bunny", True),
        ("bunny", "a fuzzy bunny", True),
        ("Bob's hat", "Bob", False),
        ("Edward", "Mr. Moncrieff", False),
        ("the", "the lake", False),
        ("", "the lake", False),
    ],
)
def test_nouns_are_the_same_where_one_holds_the_others_words(written: str, noun: str, same: bool) -> None:
    assert same_noun(written, noun) is same


def test_a_written_noun_is_right_if_it_is_the_rows_own_exactly_where_that_is_right(shared_data: Path) -> None:
    task = full("wsc", shared_data)
    examples = [one.example for one in task.episodes(104, 0, 0)]
    n_right = sum(bool(one.references) for one in examples)
    assert n_right == 38
    named = [Answer(example=one, text=one.completions[0]) for one in examples]
    assert task.metrics[0].of(named) == pytest.approx(38 / 104)
    silent = [Answer(example=one) for one in examples]
    assert task.metrics[0].of(silent) == pytest.approx(66 / 104)


def test_only_right_nouns_are_shown(shared_data: Path, tmp_path: Path) -> None:
    # without a training file a fifth of the validation file's 104 rows, of which 38 are right, is kept
    (tmp_path / "WSC").mkdir()
    (tmp_path / "WSC/val.jsonl").write_bytes((shared_data / "eval/superglue/WSC/val.jsonl").read_bytes())
    task = make_task("wsc", data=DataFolder(tmp_path))
    shown = task.episodes(1, 99, 0)[0].demonstrations
    assert 0 < len(shown) < 15
    assert all(one.references for one in shown)


# ---- MultiRC and ReCoRD


def test_multircs_answers_of_a_question_are_one_group_with_both_judgements(shared_data: Path) -> None:
    task = full("multirc", shared_data)
    examples = [one.example for one in task.episodes(99_999, 0, 0)]
    for one in examples:
        true, false = one.completions
        assert true.removeprefix("- [True] ") == false.removeprefix("- [False] ") != true
        assert one.id.startswith(f"{one.group}:")
    file = DataFolder(shared_data / "eval/superglue").require("multirc", "MultiRC/val.jsonl")
    assert sum(one.gold == 0 for one in examples) == file.text().count('"label": 1') == 2075


def test_a_demonstration_of_multirc_is_a_question_with_all_its_answers_judged() -> None:
    shown = make_task("multirc", data=MADE_UP).episodes(1, 3, 0)[0].demonstrations
    assert {one.id: one.demonstration for one in shown}["4"] == (
        "Anna whistles and Ben sings.\n\nWho makes music?\n- [True] Anna\n- [True] Ben\n- [False] Dan\n"
    )


def test_multircs_guess_is_right_in_as_many_questions_as_coins_would_be(shared_data: Path) -> None:
    task = full("multirc", shared_data)
    n_answers: dict[str, int] = {}
    for one in task.episodes(99_999, 0, 0):
        n_answers[one.example.group] = n_answers.get(one.example.group, 0) + 1
    assert len(n_answers) == 953
    assert task.chance == pytest.approx(sum(2.0**-n for n in n_answers.values()) / 953)


def test_multircs_harness_form_takes_the_labels_as_the_harness_does() -> None:
    first = make_task("multirc", data=MADE_UP, protocol=HARNESS).episodes(1, 0, 0)[0].example
    answer = MADE_UP.require("multirc", "MultiRC/val.jsonl").rows("passage")[0]["passage"]["questions"][0]["answers"][0]
    assert answer["label"] == 1
    assert first.completions[1] == f" {answer['text']}\nIs the answer correct? no"
    assert first.gold == 1  # lm-eval 0.4.13 pairs label 1, which means right, with its second choice


def test_records_choices_are_the_query_with_each_entity_once() -> None:
    task = make_task("record", data=MADE_UP)
    example = next(one.example for one in task.episodes(9, 0, 0) if one.example.id == "1")
    assert example.references == ("Tern", "Agnes Brown", "Brown", "Erik")  # the file has Tern twice
    assert len(set(example.completions)) == 4
    assert example.completions[example.gold] == "- The new keeper, Erik, is her son"
    assert example.context.endswith("- Keeper goes after 40 years.\n- Her son keeps the lamp of Tern.\n")
    answers = [Answer(example=example, logprobs=(0.0, -1, -1, -1), n_tokens=(9,) * 4)]
    assert [metric.of(answers) for metric in task.metrics] == [0.0, 0.0]


def test_what_else_an_entity_of_record_holds_has_no_effect(tmp_path: Path) -> None:
    expected = [one.example for one in make_task("record", data=MADE_UP).episodes(9, 0, 0)]
    (tmp_path / "ReCoRD").mkdir()
    text = MADE_UP.require("record", "ReCoRD/val.jsonl").text()
    lines = [json.loads(line) for line in text.splitlines() if line.strip()]
    for row in lines:
        for entity in row["passage"]["entities"]:
            entity |= {"text": "another", "type": "person", "1": None}
    (tmp_path / "ReCoRD" / "val.jsonl").write_text("\n".join(map(json.dumps, lines)))
    task = make_task("record", data=DataFolder(tmp_path))
    assert [one.example for one in task.episodes(9, 0, 0)] == expected


def test_every_right_entity_of_record_is_right(shared_data: Path) -> None:
    task = sample("record", shared_data)
    n_right = {one.example.id: 1 + len(one.example.also_right) for one in task.episodes(9, 0, 0)}
    n_choices = {one.example.id: len(one.example.completions) for one in task.episodes(9, 0, 0)}
    assert n_right == {"0": 2, "1": 1}
    assert task.chance == pytest.approx((2 / n_choices["0"] + 1 / 6) / 2)
