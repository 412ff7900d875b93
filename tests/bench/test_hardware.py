from __future__ import annotations

from fewshot.bench.hardware import hardware


def test_the_hardware_is_named() -> None:
    about = hardware()
    assert about["cores"] >= 1
    assert str(about["torch"]).startswith("2.")
