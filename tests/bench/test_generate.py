from __future__ import annotations

import pytest

from fewshot.bench.generate import measure

pytest.importorskip("transformers", reason="transformers is not installed: pip install 'fewshot[bench]'")


def test_every_type_has_a_row_for_one_and_many_streams_and_ratios_are_of_what_was_measured(set_in_module):
    for name, value in {"N_PROMPT": 3, "N_WRITTEN": 4, "N_STREAMS": 3, "N_PREFIX": 40, "READ_BYTES": 1 << 12}.items():
        set_in_module(measure, name, value)
    messages: list[str] = []
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_ctx": 256, "n_vocab": 300}
    result = measure(rounds=1, say=messages.append, shape=shape)
    rows = {(row["type"], row["streams"]): row for row in result["streams"]}
    peer = rows.pop(("transformers float32", 1))
    assert set(rows) == {(kind, n) for kind in ("float32", "bfloat16", "int8") for n in (1, 3)}
    for row in rows.values():
        ratio = row["tokens_per_second"] / peer["tokens_per_second"]
        assert row["times_transformers_one_by_one"] == pytest.approx(ratio)
        assert row["share_of_read_limit"] > 0
    assert result["gaps"]["ratio"] == result["gaps"]["p99_seconds"] / result["gaps"]["median_seconds"] > 0
    for prefix in result["prefix"].values():
        assert prefix["cached_times_sooner"] == pytest.approx(prefix["cold_seconds"] / prefix["cached_seconds"])
    assert result["memory"]["texts_in_a_budget"] >= 1
    assert len(messages) == 7 + 1 + 1 + 2
