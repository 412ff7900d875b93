"""The hub's rows in the original layouts, on copies in a folder; sets of the harness: tests/evaluate/parity."""

from __future__ import annotations

import json
import sys

import pytest
from race_articles import race_article

from fewshot.base.errors import BadFile, BadValue
from fewshot.bench.harness import write_repositories
from fewshot.cli.main import main
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.data.hub import FILES, FOLDERS, Hub, open_data
from fewshot.evaluate.tasks.table import make_task

datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'fewshot[hub]'")


STORED = {file: stored for file, (stored, _) in (FILES | FOLDERS).items()}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`hub({file: rows})`: the hub with these splits alone."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def make(sets):
        write_repositories(tmp_path / "hub", {STORED[file]: rows for file, rows in sets.items()})
        return Hub(tmp_path / "hub")

    return make


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def quac_dialogue(number):
    """(in the original layout, as the hub has it)"""
    questions, own, others = ["Who?", " And then?"], ["Bob", "CANNOTANSWER"], [["Bob", "he"], ["CANNOTANSWER"]]
    context, names = f"Text {number}. CANNOTANSWER", [f"{number}_q#{turn}" for turn in (0, 1)]
    qas = [
        {"id": name, "question": question, "orig_answer": {"text": one}, "answers": [{"text": text} for text in texts]}
        for name, question, one, texts in zip(names, questions, own, others, strict=True)
    ]
    original = {"title": f"T{number}", "section_title": "S", "paragraphs": [{"context": context, "qas": qas}]}
    starts = {"answer_starts": [[0] * len(texts) for texts in others]}
    row = {
        "dialogue_id": str(number),
        "wikipedia_page_title": f"T{number}",
        "section_title": "S",
        "context": context,
        "turn_ids": names,
        "questions": questions,
        "answers": {"texts": others, **starts},
        "orig_answers": {"texts": own, "answer_starts": [0, 0]},
    }
    return original, row


def test_quacs_dialogues_make_the_episodes_of_the_original_file(hub, tmp_path):
    sets = {}
    for file, numbers in (("val_v0.2.json", (1, 2)), ("train_v0.2.json", (3, 4, 5))):
        pairs = [quac_dialogue(number) for number in numbers]
        write_json(tmp_path / "ours" / file, {"data": [original for original, _ in pairs]})
        sets[file] = [row for _, row in pairs]
    ours, theirs = (
        make_task("quac", data=data).episodes(9, 2, 0) for data in (DataFolder(tmp_path / "ours"), hub(sets))
    )
    assert ours == theirs
    assert len(ours) == 4


def test_races_questions_come_together_as_articles(hub, tmp_path):
    sets = {}
    for part, numbers in (("test", (12, 7)), ("dev", (3, 4)), ("train", (9, 10))):
        pairs = [race_article("middle", number) for number in numbers]
        for original, _ in pairs:
            write_json(tmp_path / "ours/RACE" / part / "middle" / original["id"].removeprefix("middle"), original)
        sets[f"RACE/{part}/middle"] = [row for _, rows in pairs for row in rows]
    ours, theirs = (make_task("race_m", data=data) for data in (DataFolder(tmp_path / "ours"), hub(sets)))
    assert ours.episodes(9, 2, 0) == theirs.episodes(9, 2, 0)
    assert ours.dev(9, 2, 0) == theirs.dev(9, 2, 0)
    assert len(ours.episodes(9, 2, 0)) == 4


def test_penn_treebanks_sentences_are_its_lines(hub):
    data = hub({"ptb.test.txt": [{"sentence": "no it was n't"}, {"sentence": "mr. <unk> said N"}]})
    (episode,) = make_task("ptb", data=data).episodes(1, 0, 0)
    assert episode.example.completions == ("no it was n't\nmr. <unk> said N",)


def test_a_repository_in_another_layout_is_named(hub):
    data = hub({"WSC/val.jsonl": [{"text": "a b", "label": 0}]})
    with pytest.raises(BadFile, match=r"aps/super_glue \(wsc.fixed, validation\) is not laid out as expected: KeyEr"):
        make_task("wsc", data=data)


def test_a_repository_without_the_split_is_named(hub):
    data = hub({"hellaswag_train.jsonl": [{"ind": 1}]})
    with pytest.raises(
        BadFile, match=r"Rowan/hellaswag \(validation\) cannot be loaded: .*--data FOLDER, which holds hella"
    ):
        make_task("hellaswag", data=data)


@pytest.mark.parametrize("name", ["story_cloze", "sat_analogies"])
def test_what_the_hub_has_not_is_said(name):
    with pytest.raises(BadFile, match=f"{name}: the hub holds no "):
        make_task(name, data=Hub())


@pytest.mark.parametrize("command", ["evaluate", "contamination"])
def test_without_a_network_one_line_names_the_repository_and_the_way_out(command, monkeypatch, capsys):
    for place in ("datasets.config", "huggingface_hub.constants"):
        monkeypatch.setattr(f"{place}.HF_HUB_OFFLINE", True)
    assert main([command, "run", "--tasks", "hellaswag", "--data", "hub"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fewshot: ")]
    assert "Rowan/hellaswag (validation) cannot be loaded: " in line
    assert line.endswith("without a network give --data FOLDER, which holds hellaswag_val.jsonl")


def test_without_the_library_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadValue, match=r"--data hub needs the package datasets: pip install 'fewshot\[hub\]'"):
        open_data("hub")


def test_a_folder_of_the_hubs_name_can_be_given(tmp_path, monkeypatch):
    (tmp_path / "hub").mkdir()
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_data("hub"), Hub)
    assert str(open_data("./hub")) == "hub"
    with pytest.raises(BadValue, match=r"--data nowhere does not exist; allowed: a folder, a zip archive, or hub"):
        open_data("nowhere")
