from __future__ import annotations

from pathlib import Path

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.evaluate.data.file_names import DIRECTIONS
from fewshot.evaluate.data.files import DataFile, DataFolder
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.tasks.translation import MAX_TRAINING, make_translation, read_sentences, read_sentences_as_harness

SAMPLE = Path(__file__).resolve().parents[1] / "golden" / "samples" / "wmt"


def write(folder: Path, **files: list[str]) -> DataFolder:
    for name, lines in files.items():
        (folder / name.replace("__", ".").replace("_", "-")).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return DataFolder(folder)


def test_sgml_segments_lose_their_marks_and_in_the_papers_form_their_entities(tmp_path: Path) -> None:
    (tmp_path / "x.sgm").write_text('<doc>\n<seg id="1"> a &amp;\n b </seg><SEG id="2">c&apos;s</SEG>\n</doc>')
    assert read_sentences(DataFile("x.sgm", DataFolder(tmp_path))) == ["a & b", "c's"]
    assert read_sentences_as_harness(DataFile("x.sgm", DataFolder(tmp_path))) == [" a &amp;\n b ", "c&apos;s"]


@pytest.mark.parametrize("name", DIRECTIONS)
def test_a_direction_and_its_reverse_read_the_same_pairs(name: str) -> None:
    reverse = "_".join([name[:5], name[9:], name[6:8]])
    ours, theirs = (make_translation(one, data=DataFolder(SAMPLE)) for one in (name, reverse))
    pairs = {(one.example.context.removesuffix(" ="), one.example.completions[0][1:]) for one in ours.episodes(9, 0, 0)}
    backwards = {
        (one.example.completions[0][1:], one.example.context.removesuffix(" =")) for one in theirs.episodes(9, 0, 0)
    }
    assert pairs == backwards
    assert len(pairs) == 2


def test_zero_shot_asks_for_the_target_language_by_name() -> None:
    episode = make_translation("wmt16_en_de", data=DataFolder(SAMPLE)).episodes(1, 0, 0)[0]
    assert episode.example.zero_shot is not None
    source = episode.example.context.removesuffix(" =")
    assert episode.example.zero_shot.context == f"Q: What is the German translation of {source} A:"


def test_demonstrations_come_from_training_in_the_paper_and_from_development_in_the_harness() -> None:
    paper, harness = (make_translation("wmt14_fr_en", data=DataFolder(SAMPLE), protocol=p) for p in (GPT3, HARNESS))
    assert "europarl-v7.fr-en.fr" in paper.source
    assert "newstest2013.fr" in harness.source
    assert [one.name for one in paper.metrics] == ["bleu_mb", "bleu_sb"]
    assert [one.name for one in harness.metrics] == ["bleu", "ter", "chrf"]
    assert paper.dev is not None
    shown = {one.example.context for one in paper.dev(9, 1, 0)}
    assert shown == {"Il pleut depuis lundi. =", "Le maire a dit non. =", "Le phare est vieux. ="}


def test_without_a_test_set_the_development_set_is_evaluated(tmp_path: Path) -> None:
    lines = [str(number) for number in range(100)]
    task = make_translation("wmt16_ro_en", data=write(tmp_path, newsdev2016__ro=lines, newsdev2016__en=lines))
    assert task.source.startswith("newsdev2016.ro and newsdev2016.en, demonstrations from a fifth")
    assert task.dev is None


def test_a_large_corpus_is_thinned_evenly(tmp_path: Path) -> None:
    lines = [str(number) for number in range(2 * MAX_TRAINING + 1)]
    data = write(tmp_path, newstest2016__de=["x"], newstest2016__en=["x"], europarl_v7__de_en__de=lines)
    (tmp_path / "europarl-v7.de-en.de").write_text("\n".join(lines))
    (tmp_path / "europarl-v7.de-en.en").write_text("\n".join(lines))
    episode = make_translation("wmt16_de_en", data=DataFolder(data.path)).episodes(1, 99_999, 0)[0]
    shown = sorted(int(one.completions[0]) for one in episode.demonstrations)
    assert shown == list(range(0, 2 * MAX_TRAINING + 1, 3))


def test_sides_of_unequal_length_and_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="wmt14_fr_en needs --data FOLDER"):
        make_translation("wmt14_fr_en")
    data = write(tmp_path, newstest2014__fr=["a", "b"], newstest2014__en=["a"])
    with pytest.raises(BadFile, match=r"has 2 sentences and .* 1: they must be pairs"):
        make_translation("wmt14_fr_en", data=data)
    with pytest.raises(BadFile, match=r"holds no newstest2016-roen-src\.ro\.sgm and newstest2016-roen-ref\.en\.sgm"):
        make_translation("wmt16_ro_en", data=data)
