from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fewshot.train.records.metrics import StepMetrics
from fewshot.train.records.verdict import against_counting, course, ngram_bits, verdicts
from fewshot.train.run import start

RUN = Path("out/my run")


def quiet(_: str) -> None:
    """Say nothing."""


def rows(*losses: float) -> list[dict[str, Any]]:
    return [
        {"step": 100 * (i + 1), "tokens": 1000 * (i + 1), "val_loss": loss, "val_bits_per_byte": loss}
        for i, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((3.0, 2.0, 2.05, 2.0, 2.3), "lowest at step 200 (2.0000) and has risen to 2.3000 since"),
        ((3.0, 2.5, 2.2, 2.0, 1.9), "fell by 5.0% since step 400: a longer run would go lower"),
        ((3.0, 2.5, 2.2, 2.001, 2.0), "has stood still since step 400"),
        ((3.0, 2.5, 2.2, 2.0, 1.99), None),
        ((3.0, 2.5, 2.2, 2.0, 2.03), None),  # rises, not by much
        ((5.0, 2.5), None),  # nothing at about four fifths of the run
        ((3.0,), None),
    ],
)
def test_the_course_of_validation_is_told(losses: tuple[float, ...], said: str | None) -> None:
    lines = course(rows(*losses), RUN)
    assert lines == [] if said is None else said in lines[0]


def test_what_to_do_can_be_typed() -> None:
    assert "--n_tokens 2000)" in course(rows(3.0, 2.0, 2.5), RUN)[0]
    assert "fewshot train --start 'out/my run' --text" in course(rows(3.0, 2.5, 2.0, 1.9, 1.5), RUN)[0]


def test_a_loss_is_held_against_counting() -> None:
    assert "the model knows more than they" in against_counting(2.0, 2.5)[0]
    assert "has not learned yet what counting knows" in against_counting(2.6, 2.5)[0]
    assert against_counting(None, 2.5) == against_counting(2.5, None) == []


@pytest.mark.parametrize("tokenizer", ["bytes", "chars", "bpe"])
def test_a_run_is_held_against_its_own_text(tmp_path: Path, tiny: Any, tokenizer: str) -> None:
    run = tmp_path / "run"
    given = tiny(n_steps=3)
    given["data"] = {**given["data"], "tokenizer": tokenizer}
    list(start(given, run, say=quiet))
    bits = ngram_bits(run)
    assert bits is not None
    assert 0 < bits < 8
    assert f"need {bits:.3f}" in verdicts(run)[0]


def test_without_its_tokens_the_course_is_told_alone(tmp_path: Path, tiny: Any) -> None:
    run = tmp_path / "run"
    list(start(tiny(n_steps=10, loop={"validate_every": 2}), run, say=quiet))
    both = verdicts(run)
    shutil.rmtree(run / "data")
    assert ngram_bits(run) is None
    assert verdicts(run) == [line for line in both if "6-grams" not in line]


def test_without_validation_nothing_is_said(tmp_path: Path, tiny: Any) -> None:
    given = tiny(n_steps=3)
    given["data"] = {**given["data"], "val_fraction": 0}
    list(start(given, tmp_path / "run", say=quiet))
    assert verdicts(tmp_path / "run") == []
    assert set(StepMetrics.__dataclass_fields__) >= {"val_loss", "val_bits_per_byte", "tokens", "step"}
