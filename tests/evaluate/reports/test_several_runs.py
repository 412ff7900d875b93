from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.reports.page import EvaluatedModel
from fewshot.evaluate.reports.several_runs import write_several_runs
from fewshot.evaluate.result import Result
from fewshot.evaluate.scoring.loss_by_position import PositionLoss


def make(k: int, value: float, task: str = "novel_symbols", *, share: bool = True) -> Result:
    return Result(
        task=task,
        paper_name="",
        protocol="gpt3",
        metric="accuracy" if share else "perplexity",
        share=share,
        shots=k,
        shots_used=k,
        n=200,
        n_skipped=0,
        value=value,
        low=value - 0.05,
        high=value + 0.05,
        ideal=None,
        chance=0.1,
        seed=0,
        source="made by rule",
    )


def model(name: str, n_parameters: int, zero: float, one: float, few: float) -> EvaluatedModel:
    results = [make(0, zero), make(1, one), make(8, few), make(0, 20 * zero, "lambada", share=False)]
    return EvaluatedModel(
        name=name,
        n_parameters=n_parameters,
        summary={"step": "200", "context": "96 tokens"},
        metrics=[{"tokens": 512 * i, "loss": 4 - i / 10, "val_loss": None} for i in range(9)],
        results=results,
        by_step={100: [make(0, 0.1), make(8, 0.1)], 200: results},
        positions=[PositionLoss(first=i, last=i, n=9, nats=4 / i, low=3 / i, high=5 / i) for i in (1, 2)],
    )


SYMBOLS = "novel_symbols, accuracy, "
SMALL, LARGE = model("small", 120_000, 0.1, 0.1, 0.3), model("large", 1_500_000, 0.1, 0.25, 0.9)


def page_of(tmp_path: Path, *models: EvaluatedModel) -> str:
    write_several_runs(tmp_path / "runs.html", models, title="runs")
    return (tmp_path / "runs.html").read_text(encoding="utf-8")


def figures(page: str) -> dict[str, set[str | None]]:
    """Of each figure its words, by caption."""
    found = re.findall(r"<figure>(<svg.*?</svg>)\s*<figcaption>(.*?)</figcaption></figure>", page, flags=re.S)
    return {
        caption: {element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
        for svg, caption in found
    }


def test_several_runs_stand_in_each_figure_the_smallest_first(tmp_path: Path) -> None:
    page = page_of(tmp_path, LARGE, SMALL)
    drawn = figures(page)
    assert {"small", "large", "0", "1", "8", "chance"} <= drawn[SYMBOLS + "against the number of demonstrations"]
    assert {"zero-shot", "one-shot", "few-shot", "120k", "1.5M"} <= drawn[SYMBOLS + "against size"]
    assert {"small, K = 8", "large, K = 8"} <= drawn[SYMBOLS + "against training step"]
    assert {"small", "large", "1", "2"} <= next(words for caption, words in drawn.items() if "held-out" in caption)
    assert {"small (training text)", "large (training text)"} <= drawn["loss in nats per token"]
    assert page.index("<th>small</th>") < page.index("<th>large</th>")
    assert re.findall(r'<td class="name">(\w+)</td>', page) == ["small", "large"] * 2
    assert "<script" not in page


def test_gaps_are_drawn_for_shares_of_right_answers_alone(tmp_path: Path) -> None:
    drawn = figures(page_of(tmp_path, SMALL, LARGE))
    for kind in ("one", "few"):
        words = drawn[f"{kind}-shot minus zero-shot, against size"]
        assert f"{kind}-shot minus zero-shot" in words  # the axis
        assert not any("lambada" in (word or "") for word in words)


def test_one_size_alone_has_no_curve_against_size(tmp_path: Path) -> None:
    drawn = figures(page_of(tmp_path, SMALL, replace(LARGE, n_parameters=SMALL.n_parameters)))
    assert SYMBOLS + "against size" not in drawn
    assert not any("minus" in caption for caption in drawn)
    assert SYMBOLS + "against the number of demonstrations" in drawn


def test_runs_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadValue, match="two runs have the same name"):
        page_of(tmp_path, SMALL, replace(LARGE, name="small"))


def test_runs_without_results_still_have_their_losses(tmp_path: Path) -> None:
    bare = [replace(one, results=(), by_step={}, positions=()) for one in (SMALL, LARGE)]
    assert set(figures(page_of(tmp_path, *bare))) == {"loss in nats per token"}
