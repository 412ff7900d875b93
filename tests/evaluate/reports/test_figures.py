"""What results become on a chart: lines, and how they look."""

from __future__ import annotations

import re

from fewshot.evaluate.reports.figures import MODEL, loss_svg, losses_svg, metric_svg, page_styles, positions_svg
from fewshot.evaluate.result import Result
from fewshot.evaluate.scoring.loss_by_position import PositionLoss


def result(k: int, value: float = 0.5) -> Result:
    return Result(
        task="t",
        paper_name="",
        protocol="gpt3",
        metric="accuracy",
        share=True,
        shots=k,
        shots_used=float(k),
        n=200,
        n_skipped=0,
        value=value,
        low=value - 0.1,
        high=value + 0.1,
        ideal=0.5,
        chance=None,
        seed=0,
        source="words.txt",
    )


def colours(svg: str) -> list[str]:
    """The colours of the lines, from the legend or else from the axes."""
    return re.findall(r"fill: none; stroke: (#\w{6}); stroke-width: 1.7", svg)


LOSSES = [{"tokens": i, "loss": 2.0, "val_loss": 2.1} for i in (1, 2)]
POSITIONS = [PositionLoss(first=i, last=i, n=9, nats=4 / i, low=3 / i, high=5 / i) for i in (1, 2)]


def test_losses_that_are_not_finite_are_left_out():
    rows = [{"tokens": i, "loss": loss} for i, loss in enumerate((2.0, float("nan"), float("inf"), 1.5))]
    assert loss_svg(rows) == loss_svg([rows[0], rows[3]])
    assert "<svg" in loss_svg(rows[1:2])


def test_the_only_model_of_a_page_has_one_colour_in_all_its_figures():
    styles = page_styles()
    points = [(k, result(k)) for k in (0, 1)]
    model = styles.of(MODEL).colour
    assert colours(metric_svg({MODEL: points}, "shots", styles))[0] == model
    assert colours(positions_svg({MODEL: POSITIONS}, styles)) == [model]
    assert colours(loss_svg(LOSSES))[1] == model  # on validation text


def test_a_run_has_one_colour_in_all_figures_whichever_others_are_in_them():
    styles = page_styles(["small", "middle", "large"])
    large = styles.of("large").colour
    points = [(k, result(k)) for k in (0, 1)]
    drawn = (
        losses_svg({"large": LOSSES}, styles),
        positions_svg({"large": POSITIONS}, styles),
        metric_svg({"large": points}, "shots", page_styles(["small", "middle", "large"])),
    )
    assert [colours(svg)[0] for svg in drawn] == [large] * 3
    both = metric_svg({"middle": points, "large": points}, "shots", styles)
    assert colours(both) == 2 * [styles.of("middle").colour, large]  # on the axes and in the legend
