from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from fewshot.base.errors import BadFile
from fewshot.train.records.metrics import MetricsFile, StepMetrics, read_metrics


def line(step: int, /, **changed: Any) -> bytes:
    report = StepMetrics(
        step=step,
        n_steps=9,
        tokens=64 * step,
        loss=2.5,
        lr_fraction=1.0,
        grad_norm=0.5,
        seconds=0.1 * step,
        tokens_per_second=640.0,
    )
    row = {name: value for name, value in (asdict(report) | changed).items() if value != "absent"}
    return json.dumps(row).encode() + b"\n"


@pytest.mark.parametrize(
    ("cut", "steps"),
    [
        (b"", [1, 2]),
        (line(3)[:-1], [1, 2, 3]),  # whole, but for the end of the line
        (line(3)[:-9], [1, 2]),
        (b"{", [1, 2]),
        (b"\0\0\0\0", [1, 2]),  # what a power cut may leave
        ('{"step": 3, "é'.encode()[:-1], [1, 2]),
        (b"\n\n", [1, 2]),
    ],
)
def test_a_last_line_that_was_cut_is_left_out_and_dropped_by_whoever_goes_on(
    tmp_path: Path, cut: bytes, steps: list[int]
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1) + line(2) + cut)
    assert [row["step"] for row in read_metrics(path)] == steps
    MetricsFile(path).keep_until(9)
    assert path.read_bytes() == b"".join(line(step) for step in steps)


def test_later_steps_are_dropped_and_the_others_keep_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    spelled = line(2).replace(b": ", b" :  ")
    path.write_bytes(line(1) + spelled + line(3) + line(4))
    MetricsFile(path).keep_until(2)
    assert path.read_bytes() == line(1) + spelled
    MetricsFile(tmp_path / "none.jsonl").keep_until(0)
    assert (tmp_path / "none.jsonl").read_bytes() == b""
    assert read_metrics(tmp_path / "nothing.jsonl") == []


FOREIGN = {
    "no tokens": (line(2, tokens="absent"), "line 2 lacks tokens"),
    "another program's": (b'{"epoch": 3}\n', "unknown key in .* line 2 'epoch'"),
    "a word for a number": (line(2, loss="low"), "loss is 'low', a number is needed"),
    "null for a number": (line(2, step=None), "line 2.step is null"),
    "true for a number": (line(2, step=True), "line 2.step is true"),
    "half a step": (line(2, step=1.5), "a whole number is needed"),
    "a bad byte": (line(2).replace(b"loss", b"l\xffss"), "line 2 is not UTF-8"),
    "a zero byte": (line(2).replace(b"loss", b"l\0ss"), "line 2 is a binary file"),
    "a list": (b"[1, 2]\n", "must hold keys and values"),
    "a number": (b"7\n", "must hold keys and values"),
    "no JSON": (b"step 2: loss 2.5\n", "line 2 is not JSON"),
    "brackets without end": (b"[" * 100_000 + b"\n", "nested too deeply"),
    "a cut line in the middle": (line(2)[:20] + b"\n", "line 2 is not JSON"),
    "an unknown field": (line(2, epoch=1), "unknown key in .* 'epoch'"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_line_that_training_did_not_write_is_named_and_nothing_is_changed(tmp_path: Path, what: str) -> None:
    bad, message = FOREIGN[what]
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(line(1) + bad + line(3))
    before = path.read_bytes()
    for use in (lambda: read_metrics(path), lambda: MetricsFile(path).keep_until(0)):
        with pytest.raises(BadFile, match=message) as caught:
            use()
        assert str(caught.value).endswith("not a line of fewshot train: delete the line, or move the file away")
        assert "line 2" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
