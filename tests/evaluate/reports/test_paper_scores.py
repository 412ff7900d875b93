from __future__ import annotations

import re
from pathlib import Path

import pytest

from fewshot.base.errors import BadValue, UnknownName
from fewshot.evaluate.data.file_names import DIRECTIONS
from fewshot.evaluate.reports.paper_scores import METRICS, SETTINGS, SIZES, nearest_size, paper_score, table_h1
from fewshot.evaluate.tasks.arithmetic import RULES as ARITHMETIC
from fewshot.evaluate.tasks.scramble import RULES as SCRAMBLES
from fewshot.model.gpt import count_parameters
from fewshot.model.presets import PUBLISHED


def facts_table(text: str) -> dict[tuple[str, str], tuple[int, list[list[float | None]]]]:
    """Rows of section 6.1: K and three lists of eight; None for what the sheet calls uncertain or leaves out."""
    section = text[text.index("### 6.1 Table H.1") : text.index("### 6.2")]
    rows = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and cells[0] != "task":
            metric = cells[1].lower().replace("-", "_")
            short = re.search(r"\((CL|A1|A2|RI|RW)\)", cells[0])  # tasks name the scrambles so
            rows[short[1] if short else cells[0], metric] = (int(cells[4]), [scores(cell) for cell in cells[5:8]])
    return rows


def scores(cell: str) -> list[float | None]:
    if single := re.fullmatch(r"175B: ([\d.]+)", cell):
        return [None] * 7 + [float(single[1])]
    if cell == "-":
        return [None] * 8
    if ".. (one cell uncertain) .." in cell:
        before, after = ([float(word) for word in part.split()] for part in cell.split(".. (one cell uncertain) .."))
        return [*before, *[None] * (8 - len(before) - len(after)), *after]
    spelled = re.sub(r"([\d.]+) x(\d)", lambda found: " ".join([found[1]] * int(found[2])), cell)
    return [float(word) for word in spelled.split()]


def test_every_cell_is_the_one_of_the_facts_sheet(shared_data: Path) -> None:
    facts = facts_table((shared_data.parent / "facts.md").read_text(encoding="utf-8"))
    assert len(facts) == 64
    ours = {key: (row.shots, [list(row.scores[kind]) for kind in SETTINGS]) for key, row in table_h1().items()}
    assert ours == facts


def test_a_few_cells_by_hand() -> None:
    assert paper_score("HellaSwag", "accuracy", "zero", "125M") == pytest.approx(0.337)
    assert paper_score("LAMBADA", "perplexity", "few", "175B") == 1.92
    assert paper_score("Ro->En 16", "bleu_sb", "one", "13B") == 36.7
    assert paper_score("CB", "f1", "few", "175B") == pytest.approx(0.572)
    assert paper_score("PTB", "perplexity", "zero", "175B") == 20.5
    assert paper_score("PTB", "perplexity", "zero", "13B") is None


def test_what_the_paper_does_not_measure_is_none_and_an_unknown_size_is_named() -> None:
    assert paper_score("", "accuracy", "zero", "125M") is None
    assert paper_score("HellaSwag", "acc_norm", "zero", "125M") is None
    assert paper_score("4D-", "accuracy", "one", "2.7B") is None
    with pytest.raises(UnknownName, match="nearest: '125M'"):
        paper_score("HellaSwag", "accuracy", "zero", "124M")


@pytest.mark.parametrize(
    ("n", "size"), [(1e6, "125M"), (209.1e6, "125M"), (209.2e6, "350M"), (1.5e9, "1.3B"), (1e12, "175B")]
)
def test_the_nearest_size_is_so_by_ratio(n: float, size: str) -> None:
    assert nearest_size(n) == size  # 125M and 350M meet at their geometric mean, 209.17M


def test_a_model_without_parameters_has_no_size() -> None:
    with pytest.raises(BadValue, match="0 parameters"):
        nearest_size(0)


def test_each_published_preset_is_nearest_to_its_own_size() -> None:
    presets = [name for name in PUBLISHED if name.startswith("gpt3-")]
    assert [nearest_size(count_parameters(PUBLISHED[name])["total"]) for name in presets] == list(SIZES)


def test_tasks_that_need_no_files_name_rows_that_exist() -> None:
    names = [rule.paper_name for rules in (ARITHMETIC, SCRAMBLES, DIRECTIONS) for rule in rules.values()]
    assert len(names) == 10 + 5 + 6
    assert set(names) <= {name for name, _ in table_h1()}
    assert {metric for _, metric in table_h1()} - {"average"} <= set(METRICS.values())
