"""Which examples are evaluated, and which ones demonstrations come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.data.splits import Split, Splits, find_split, join_splits, require_split
from fewshot.evaluate.example import DrawEpisodes, Example
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.tasks.table import make_task

SAMPLES = Path(__file__).resolve().parents[1] / "golden" / "samples"


def split(name: str, n: int) -> Split:
    return Split(name, [Example(f"{name}:{i}", f"{name} {i}", ("a",)) for i in range(n)])


def origins(episodes: DrawEpisodes, shots: int = 3) -> tuple[set[str], set[str]]:
    """The splits that the questions and the demonstrations come from."""
    drawn = episodes(999, shots, 0)
    demonstrations = {example.id.partition(":")[0] for episode in drawn for example in episode.demonstrations}
    return {episode.example.id.partition(":")[0] for episode in drawn}, demonstrations


@pytest.mark.parametrize("protocol", [GPT3, HARNESS], ids=lambda protocol: protocol.name)
def test_demonstrations_come_from_training_else_from_development(protocol) -> None:
    test, training, dev = split("test", 9), split("training", 9), split("dev", 9)
    for splits, expected in ((Splits(test, training, dev), "training"), (Splits(test, None, dev), "dev")):
        assert origins(splits.episodes("t", protocol)) == ({"test"}, {expected})
        assert splits.source(protocol) == f"test, demonstrations from {expected}"


def test_a_single_split_keeps_a_fifth_for_demonstrations_in_the_papers_form_alone() -> None:
    splits = Splits(split("test", 100))
    paper, harness = (splits.episodes("t", protocol)(999, 5, 0) for protocol in (GPT3, HARNESS))
    evaluated = {episode.example.id for episode in paper}
    assert 70 <= len(evaluated) <= 90
    assert not evaluated & {example.id for episode in paper for example in episode.demonstrations}
    assert len(harness) == 100
    assert splits.source(GPT3) == "test, demonstrations from a fifth of it, kept apart"
    assert splits.source(HARNESS) == "test, demonstrations from the same set"


def test_fixed_demonstrations_are_the_same_for_all_questions() -> None:
    splits = Splits(split("test", 9), split("training", 99))
    for fixed, n_sets in ((True, 1), (False, 9)):
        episodes = splits.episodes("t", GPT3, fixed=fixed)(9, 5, 0)
        assert len({episode.demonstrations for episode in episodes}) == n_sets


def test_the_best_number_of_shots_is_chosen_on_the_development_split_in_the_papers_form_alone() -> None:
    splits = Splits(split("test", 9), split("training", 9), split("dev", 9))
    dev = splits.dev_episodes("t", GPT3)
    assert dev is not None
    assert origins(dev) == ({"dev"}, {"training"})
    assert splits.dev_episodes("t", HARNESS) is None
    assert Splits(split("test", 9)).dev_episodes("t", GPT3) is None


def test_development_episodes_are_drawn_from_the_development_set() -> None:
    task = make_task("arc_easy", data=DataFolder(SAMPLES / "arc"))
    assert task.dev is not None
    episodes = task.dev(9, 2, 0)
    assert {episode.example.id for episode in episodes} == {"MADEUP_e6"}
    assert all(len(episode.demonstrations) == 2 for episode in episodes)


def test_splits_are_joined_in_order_and_missing_ones_left_out() -> None:
    joined = join_splits([split("b", 2), None, split("a", 1)])
    assert joined is not None
    assert (joined.name, [example.id for example in joined.examples]) == ("b, a", ["b:0", "b:1", "a:0"])
    assert join_splits([None, None]) is None


def test_a_split_is_looked_up_by_the_end_of_its_path(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/test.txt").write_text("a b", encoding="utf-8")
    data = DataFolder(tmp_path)

    def read(file: DataFile) -> list[Example]:
        return [Example(word, word, ("x",)) for word in file.text().split()]

    found = find_split(data, read, "absent.txt", "set/test.txt")
    assert found is not None
    assert (found.name, [example.id for example in found.examples]) == ("test.txt", ["a", "b"])
    assert find_split(data, read, "absent.txt") is None
    with pytest.raises(BadFile, match=r"t: .* holds no absent\.txt or missing\.txt"):
        require_split("t", data, read, "absent.txt", "missing.txt")


def test_what_a_reader_fails_at_is_told_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("", encoding="utf-8")

    def read(file: DataFile) -> list[Example]:
        raise KeyError("answer")

    with pytest.raises(BadFile, match=r"test\.txt is not laid out as the original: KeyError 'answer'"):
        require_split("t", DataFolder(tmp_path), read, "test.txt")
