from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.tasks.closed_book import (
    any_greedy,
    harness_exact_match,
    make_nq_open,
    make_trivia_qa,
    make_web_questions,
    read_trivia_qa,
    read_web_questions,
    without_continuations,
    written_answer,
)


def write_nq(folder: Path, part: str, *rows: tuple[str, list[str]]) -> None:
    lines = [json.dumps({"question": question, "answer": answers}) for question, answers in rows]
    (folder / f"NQ-open.{part}.jsonl").write_text("\n".join(lines))


@pytest.fixture
def nq(tmp_path: Path) -> DataFolder:
    write_nq(tmp_path, "dev", ("who sings it", ["The Band", "Band, The"]))
    write_nq(tmp_path, "train", ("who sang it", ["Nobody"]))
    return DataFolder(tmp_path)


@pytest.mark.parametrize(
    ("text", "paper", "harness"),
    [
        (" the band", 1.0, 1.0),
        (" The Band!\nQ: next", 1.0, 0.0),  # under the harness's stops nothing follows a line break
        (" band the", 1.0, 1.0),  # as the second answer, whose comma goes
        (" a  band", 1.0, 0.0),  # only the paper's form joins spaces
        (" bands", 0.0, 0.0),
    ],
)
def test_an_answer_is_right_by_either_forms_normalisation(nq, text: str, paper: float, harness: float) -> None:
    example = make_nq_open(data=nq).episodes(1, 0, 0)[0].example
    assert written_answer().of([Answer(example=example, text=text)]) == paper
    assert harness_exact_match(without_articles=True).of([Answer(example=example, text=text)]) == harness


def test_the_harness_keeps_articles_where_its_task_does(nq) -> None:
    example = make_nq_open(data=nq, protocol=HARNESS).episodes(1, 0, 0)[0].example
    (kept, left) = (harness_exact_match(without_articles=without) for without in (False, True))
    answer = Answer(example=example, text="a the band")
    assert (kept.of([answer]), left.of([answer])) == (0.0, 1.0)


def test_the_harness_stops_at_a_full_stop_or_comma(nq) -> None:
    paper, harness = make_nq_open(data=nq), make_nq_open(data=nq, protocol=HARNESS)
    assert (paper.stop, paper.delimiter, paper.description) == (("\n",), "\n\n", "")
    assert (harness.stop, harness.delimiter) == (("\n", ".", ","), "\n")
    assert harness.max_answer_tokens == 256
    assert [metric.name for metric in harness.metrics] == ["exact_match"]


def test_answers_of_freebase_are_read_out_of_their_list(tmp_path: Path) -> None:
    target = '(list (description "Glass harmonica") (description Bifocals) (description "A \\"b\\" (c)"))'
    (tmp_path / "x.json").write_text(json.dumps([{"utterance": "what?", "targetValue": target}]))
    (question,) = read_web_questions(DataFile("x.json", DataFolder(tmp_path)))
    assert question.answers == ("Glass harmonica", "Bifocals", 'A \\"b\\" (c)')


def test_both_layouts_of_web_questions_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"utterance": "where?", "targetValue": "(list (description Rome))"}]))
    (tmp_path / "b.json").write_text(json.dumps([{"qId": "1", "qText": "where?", "answers": ["Rome"]}]))
    (a,), (b,) = (read_web_questions(DataFile(name, DataFolder(tmp_path))) for name in ("a.json", "b.json"))
    assert (a.text, a.answers) == (b.text, b.answers) == ("where?", ("Rome",))


def test_an_answer_that_continues_another_is_no_choice_of_its_own() -> None:
    assert without_continuations(["Rome", "Romeo", "Paris", "Rom"]) == ["Paris", "Rom"]


def test_web_questions_is_right_in_the_harness_if_any_answer_is_greedy(tmp_path: Path) -> None:
    rows = [{"qId": "1", "qText": "where?", "answers": ["Rome", "Paris"]}]
    (tmp_path / "webquestions.examples.test.json").write_text(json.dumps(rows))
    example = make_web_questions(data=DataFolder(tmp_path), protocol=HARNESS).episodes(1, 0, 0)[0].example
    assert example.completions == (" Paris", " Rome")
    answers = [Answer(example=example, greedy=greedy) for greedy in [(False, True), (False, False)]]
    assert any_greedy().of(answers) == 0.5


def write_trivia(folder: Path, name: str, question: str, value: str, *aliases: str) -> None:
    answer = {"Value": value, "Aliases": list(aliases), "HumanAnswers": ["Mum"]}
    row = {"QuestionId": f"q_{question}", "Question": question, "Answer": answer}
    (folder / name).write_text(json.dumps({"Data": [row]}))


def test_any_alias_of_a_trivia_answer_will_do_and_its_value_is_shown(tmp_path: Path) -> None:
    write_trivia(tmp_path, "wikipedia-dev.json", "Who?", "Mother", "Mama", "Mother")
    (question,) = read_trivia_qa(DataFile("wikipedia-dev.json", DataFolder(tmp_path)))
    assert question.answers == ("Mother", "Mama", "Mum")
    (harness,) = read_trivia_qa(DataFile("wikipedia-dev.json", DataFolder(tmp_path)), value_first=False)
    assert harness.answers == ("Mama", "Mother")


def test_trivia_is_wikipedias_part_in_the_paper_and_both_parts_in_the_harness(tmp_path: Path) -> None:
    write_trivia(tmp_path, "web-dev.json", "web?", "a", "a")
    write_trivia(tmp_path, "wikipedia-dev.json", "wiki?", "b", "b")
    write_trivia(tmp_path, "web-train.json", "shown?", "c", "c")
    asked = {
        protocol.name: [
            one.example.context
            for one in make_trivia_qa(data=DataFolder(tmp_path), protocol=protocol).episodes(9, 0, 0)
        ]
        for protocol in (GPT3, HARNESS)
    }
    assert asked["gpt3"] == ["Q: wiki?\n\nA:"]
    assert asked["lm-eval"] == ["Question: web??\nAnswer:", "Question: wiki??\nAnswer:"]


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="nq_open needs --data FOLDER"):
        make_nq_open()
    write_nq(tmp_path, "dev", ("who?", [" "]))
    with pytest.raises(BadFile, match=r"NQ-open\.dev\.jsonl question 1 has no answer"):
        make_nq_open(data=DataFolder(tmp_path))
    (tmp_path / "wikipedia-dev.json").write_text('{"Data": [{"Question": "who?"}]}')
    with pytest.raises(BadFile, match=r"laid out as TriviaQA's wikipedia-dev\.json: Data\[0\] lacks 'QuestionId'"):
        make_trivia_qa(data=DataFolder(tmp_path))
    (tmp_path / "webquestions.examples.test.json").write_text('[{"qText": "who?"}]')
    with pytest.raises(BadFile, match=r"laid out as WebQuestions' list: \[0\] lacks 'answers'"):
        make_web_questions(data=DataFolder(tmp_path))
