"""The page of a ladder: every run, the law and the prediction stand in it."""

from __future__ import annotations

from pathlib import Path

from fewshot.evaluate.reports.ladder import Band, Curve, write_ladder


def page_of(path: Path, *, measured: Curve) -> str:
    write_ladder(
        path,
        title="books",
        summary=[("predicted before it began", "4.1 nats/token")],
        sizes=[("1-of-4", "10", "5", "100", "1e-12", "5.0000", "3 s")],
        over_compute={"smallest": Curve(x=[1e-12, 2e-12], y=[6.0, 5.0]), "largest": measured},
        law=("L = 2.57 C^-0.048", Curve(x=[2e-12, 9e-12], y=[5.0, 4.1])),
        expected=Band(x=[9e-12], y=[4.1], low=[4.0], high=[4.2]),
        expected_curve=Band(x=[50, 100], y=[4.5, 4.1], low=[4.3, 4.0], high=[4.7, 4.2]),
        measured_curve=measured,
    )
    return path.read_text()


def test_runs_law_and_prediction_are_named_in_the_figures(tmp_path: Path) -> None:
    page = page_of(tmp_path / "report.html", measured=Curve(x=[4e-12, 9e-12], y=[4.6, 4.12]))
    assert page.count("<svg") == 2
    for label in ("smallest", "largest", "L = 2.57 C^-0.048", "predicted", "measured"):
        assert f">{label}<" in page
    assert "1e-12" in page  # powers of ten on the axis, not pico
    assert "<td>5.0000</td>" in page


def test_a_run_that_has_not_begun_is_left_out(tmp_path: Path) -> None:
    page = page_of(tmp_path / "report.html", measured=Curve(x=[], y=[]))
    assert ">largest<" not in page
    assert ">measured<" not in page
