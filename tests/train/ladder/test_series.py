"""A ladder's folder: prepared once, whole or not at all, and made of ordinary runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadFile, BadValue
from fewshot.checkpoint.folder import RunFolder
from fewshot.train.ladder import series
from fewshot.train.ladder.series import Ladder, is_ladder, make_ladder, measure, open_ladder
from fewshot.train.run import read_run_config, resume


def quiet(line: str) -> None:
    """What `say` may be."""


def test_runs_share_the_text_and_the_tokenizer_of_the_largest(new_ladder: Ladder) -> None:
    largest = RunFolder(new_ladder.runs[-1])
    shards = sorted(largest.data.iterdir())
    assert shards
    for path in new_ladder.runs[:-1]:
        run = RunFolder(path)
        assert [shard.name for shard in sorted(run.data.iterdir())] == [shard.name for shard in shards]
        assert all((run.data / shard.name).samefile(shard) for shard in shards)
        assert run.tokenizer.read_bytes() == largest.tokenizer.read_bytes()


def test_where_there_are_no_hard_links_the_text_is_copied(
    tmp_path: Path, ladder_given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(source: str, target: str) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(series.os, "link", refuses)
    ladder = make_ladder(ladder_given, tmp_path / "ladder", n_sizes=4, say=quiet)
    first, last = (RunFolder(ladder.runs[i]).data for i in (0, -1))
    for shard in last.iterdir():
        assert (first / shard.name).read_bytes() == shard.read_bytes()
        assert not (first / shard.name).samefile(shard)


def test_a_ladder_is_found_again_by_its_file(new_ladder: Ladder) -> None:
    assert is_ladder(new_ladder.folder)
    assert open_ladder(new_ladder.folder) == new_ladder
    assert new_ladder.names == ("1-of-4", "2-of-4", "3-of-4", "4-of-4")
    assert not is_ladder(new_ladder.runs[0])


def test_sizes_grow_and_nothing_else_of_the_model_or_the_loop_changes(new_ladder: Ladder) -> None:
    configs = [read_run_config(run) for run in new_ladder.runs]
    widths = [config.model.d_model for config in configs]
    assert widths == sorted(set(widths))
    assert {(config.loop.seed, config.loop.precision, str(config.loop.kernel)) for config in configs} == {
        (configs[-1].loop.seed, configs[-1].loop.precision, "sdpa")
    }


def test_what_a_kill_left_while_it_was_prepared_is_made_anew(
    tmp_path: Path, ladder_given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, n = tmp_path / "ladder", 0

    def killed(*args: Any, **kwargs: Any) -> None:
        nonlocal n
        n += 1
        if n == 2:
            raise KeyboardInterrupt
        write_run(*args, **kwargs)

    write_run = series._write_run
    monkeypatch.setattr(series, "_write_run", killed)
    with pytest.raises(KeyboardInterrupt):
        make_ladder(ladder_given, folder, n_sizes=4, say=quiet)
    assert not is_ladder(folder)
    monkeypatch.setattr(series, "_write_run", write_run)
    ladder = make_ladder(ladder_given, folder, n_sizes=4, say=quiet)
    assert [read_run_config(run).preset for run in ladder.runs] == [None] * 4


def test_a_ladder_is_not_made_over_another(new_ladder: Ladder, ladder_given: dict[str, Any]) -> None:
    with pytest.raises(BadValue, match="is not empty"):
        make_ladder(ladder_given, new_ladder.folder, n_sizes=4, say=quiet)


@pytest.mark.parametrize(
    ("sections", "n_sizes", "message"),
    [
        ({}, 3, "--ladder is 3, must be at least 4 sizes"),
        ({"loop": {"validate_every": 7}}, 4, "loop.validate_every is 7, but a ladder validates 20 times"),
        ({"data": {"val_fraction": 0}}, 4, "a ladder compares losses on held-out text"),
    ],
)
def test_what_no_ladder_can_be_made_of_is_refused_before_anything_is_written(
    tmp_path: Path, tiny: Any, sections: dict[str, Any], n_sizes: int, message: str
) -> None:
    with pytest.raises(BadValue, match=message):
        make_ladder(tiny(**sections), tmp_path / "ladder", n_sizes=n_sizes, say=quiet)
    assert not (tmp_path / "ladder").exists()


def test_a_file_that_names_too_few_runs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ladder.json").write_text('["1-of-2", "2-of-2"]')
    with pytest.raises(BadValue, match="names 2 runs"):
        open_ladder(tmp_path)
    (tmp_path / "ladder.json").write_text("[")
    with pytest.raises(BadFile, match="is not JSON"):
        open_ladder(tmp_path)


def test_a_run_is_measured_as_far_as_it_has_come(new_ladder: Ladder) -> None:
    path = new_ladder.runs[0]
    assert measure(path).losses == ()
    reports = resume(path, say=quiet)
    for report in reports:
        if report.step == 4:
            break
    reports.close()  # type: ignore[attr-defined]
    begun = measure(path)
    assert len(begun.losses) == 4  # of 22 steps, each is validated
    assert not begun.is_complete
    for report in resume(path, say=quiet):
        last = report
    whole = measure(path)
    assert whole.is_complete
    assert whole.losses[-1] == last.val_loss
    assert whole.n_tokens == whole.tokens[-1] == last.tokens
    assert whole.loss_at(1.0) == pytest.approx(last.val_loss)
    assert whole.compute(1e6) == 6 * whole.n_block_parameters * 1e6 / 8.64e19
