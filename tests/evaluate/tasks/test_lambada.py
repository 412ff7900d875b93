from __future__ import annotations

import json

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.data.files import DataFolder
from fewshot.evaluate.prompt import build_prompt
from fewshot.evaluate.tasks.lambada import make_lambada, read_lambada

BOB = "Alice was friends with Bob. Alice went to visit her friend Bob"
GEORGE = "George bought a ball, a glove and a bat"


def write(path, *texts: str) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def test_all_5153_passages_are_read_and_split_before_the_last_word(eval_data):
    file = eval_data.find("lambada_test.jsonl")
    examples = read_lambada(file)
    texts = [row["text"] for row in file.rows("text")]
    assert len(examples) == 5153
    for example, text in zip(examples, texts, strict=True):
        assert example.zero_shot.demonstration == text
        assert example.completions[0].split() == text.split()[-1:]
        assert (
            example.context + example.completions[0] == text[: -len(text.split()[-1])] + "____. -> " + text.split()[-1]
        )


def test_zero_shot_is_plain_and_few_shot_a_cloze(tmp_path, small_tokenizer):
    write(tmp_path / "lambada_test.jsonl", BOB)
    write(tmp_path / "lambada_development.jsonl", GEORGE, BOB)
    task = make_lambada(data=DataFolder(tmp_path))
    (episode,) = task.episodes(9, 5, 0)
    texts = [build_prompt(small_tokenizer(), task, episode, shots=k, n_ctx=999).text for k in (0, 1)]
    assert texts[0] == "Alice was friends with Bob. Alice went to visit her friend"
    assert texts[1] == (
        "Fill in blank:\n\nGeorge bought a ball, a glove and a ____. -> bat\n\n"
        "Alice was friends with Bob. Alice went to visit her friend ____. ->"
    )
    assert len(episode.demonstrations) == 1  # the passage that is evaluated is never shown


def test_a_line_break_before_the_word_stays_with_the_passage(tmp_path):
    write(tmp_path / "x.jsonl", "Some kind of\n\nPower")
    (example,) = read_lambada(DataFolder(tmp_path).find("x.jsonl"))
    assert (example.zero_shot.context, example.zero_shot.completions) == ("Some kind of\n\n", ("Power",))
    assert (example.context, example.completions) == ("Some kind of\n\n____. ->", (" Power",))


def test_without_a_development_file_a_part_is_kept_apart(eval_data):
    task = make_lambada(data=eval_data)
    episodes = task.episodes(9999, 2, 0)
    asked = {one.example.id for one in episodes}
    assert 4000 < len(asked) < 4250
    assert not asked & {one.id for episode in episodes for one in episode.demonstrations}
    assert "kept apart" in task.source


def test_missing_files_are_named(tmp_path):
    with pytest.raises(BadValue, match="lambada needs --data FOLDER"):
        make_lambada()
    with pytest.raises(BadFile, match=r"holds no lambada_test\.jsonl"):
        make_lambada(data=DataFolder(tmp_path))
    write(tmp_path / "lambada_test.jsonl", BOB, "word")
    with pytest.raises(BadFile, match="passage 2 has no last word"):
        make_lambada(data=DataFolder(tmp_path))
