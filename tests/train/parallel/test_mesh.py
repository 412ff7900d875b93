"""Where a process stands among the others, and what all of them agree on."""

from __future__ import annotations

import pytest
from layout_runs import LAYOUTS, MATRIX_RUNS, TRAINED, Runs, check_agrees

from fewshot.base.errors import BadValue
from fewshot.train.config import ParallelConfig
from fewshot.train.parallel.mesh import DIMENSIONS, Layout, joined, layout_of, shares

LAYOUT = {"pp": 2, "dp": 3, "fsdp": 2, "tp": 2}
CONTEXT = {"dp": 2, "cp": 3, "fsdp": 2, "tp": 2}


def test_processes_stand_on_all_places_and_tensor_parallel_ones_are_neighbours() -> None:
    places = [Layout(**LAYOUT, rank=rank).place() for rank in range(24)]
    assert [tuple(place[name] for name in DIMENSIONS) for place in places] == sorted(
        (p, d, 0, f, t) for p in range(2) for d in range(3) for f in range(2) for t in range(2)
    )
    assert (places[0] | {"tp": 1}) == places[1]
    assert Layout(**LAYOUT, rank=5).place(23) == {"pp": 1, "dp": 2, "cp": 0, "fsdp": 1, "tp": 1}


def test_the_loss_of_each_row_is_counted_by_one_process() -> None:
    layouts = [Layout(**LAYOUT, rank=rank) for rank in range(24)]
    assert sorted(layout.data_rank for layout in layouts if layout.counts_loss) == list(range(6))
    assert {layout.data_rank for layout in layouts} == set(range(6))
    assert layouts[0].n_data == 6


def test_the_positions_of_a_row_are_shared_by_processes_with_equal_weights_and_the_same_rows() -> None:
    layouts = [Layout(**CONTEXT, rank=rank) for rank in range(24)]
    for layout in layouts:
        place = layout.place()
        others = [other for other in layouts if {**other.place(), "cp": 0} == {**place, "cp": 0}]
        assert [other.place()["cp"] for other in others] == [0, 1, 2]
        assert {other.rank - others[0].rank for other in others} == {0, 4, 8}
        assert {other.data_rank for other in others} == {layout.data_rank}
    assert layouts[0].n_data == 4
    assert layouts[0].n_copies == 6
    assert sum(layout.counts_loss for layout in layouts) == 12  # each of 4 shares of the rows, in 3 parts


@pytest.mark.parametrize(
    ("given", "n", "expected"),
    [
        ({}, 1, (1, 1, 1, 1, 1)),
        ({}, 4, (1, 1, 1, 4, 1)),
        ({"tp": 2}, 8, (1, 1, 1, 4, 2)),
        ({"pp": 2, "dp": 2}, 4, (2, 2, 1, 1, 1)),
        ({"fsdp": 2, "dp": 2, "exact": True}, 4, (1, 2, 1, 2, 1)),
        ({"cp": 2}, 4, (1, 1, 2, 2, 1)),
    ],
)
def test_fsdp_takes_the_processes_that_are_left(
    given: dict[str, int], n: int, expected: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(n))
    monkeypatch.setenv("RANK", str(n - 1))
    layout = layout_of(ParallelConfig(**given))
    assert tuple(getattr(layout, name) for name in DIMENSIONS) == expected
    assert (layout.rank, layout.n_processes, layout.mesh) == (n - 1, n, None)


@pytest.mark.parametrize(
    ("given", "n", "message"),
    [
        ({"tp": 2}, 1, r"dp 1 x fsdp 1 x tp 2 x pp 1 is 2 processes, but 1 are running.*--nproc-per-node 2 "),
        ({"fsdp": 2}, 4, r"fsdp 2 .*is 2 processes, but 4 are running"),
        ({"dp": 3}, 4, r"dp 3 x fsdp 1 .*is 3 processes, but 4 are running"),
        ({"tp": 2, "exact": True}, 2, r"parallel\.exact adds in one order for dp and fsdp alone.*this is .*tp 2"),
        ({"pp": 2, "exact": True}, 2, r"parallel\.exact .*this is .*pp 2"),
        ({"cp": 2, "exact": True}, 2, r"parallel\.exact .*this is .*cp 2"),
        ({"exact": True}, 3, r"parallel\.exact .* for 1, 2, 4, 8 \.\.\. processes; this is dp 1 x fsdp 3"),
    ],
)
def test_a_layout_that_does_not_fit_the_processes_is_refused(
    given: dict[str, int], n: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(n))
    with pytest.raises(BadValue, match=message):
        layout_of(ParallelConfig(**given))


@pytest.mark.parametrize("size", ["dp", "fsdp", "tp", "pp"])
def test_a_size_below_one_is_refused(size: str) -> None:
    with pytest.raises(BadValue, match=f"{size} is 0, must be at least 1"):
        ParallelConfig(**{size: 0})


def test_a_process_alone_forms_no_group() -> None:
    layout = Layout()
    assert joined(layout, "cpu") is layout
    assert layout.any(True)
    assert not layout.any(False)


def test_shares_are_consecutive() -> None:
    assert shares(7, [2, 0, 5]) == [(0, 2), (2, 2), (2, 7)]


@pytest.mark.parametrize("name", [name for names in TRAINED for name in names])
def test_all_processes_tell_the_same_figures(name: str, runs: Runs) -> None:
    reports = runs.reports[name]
    n, _ = LAYOUTS[name.replace(">", "-").rpartition("-")[2]]
    assert len(reports) == n
    for report in reports:
        assert [report[what] for what in ("losses", "norms", "val_loss")] == [
            reports[0][what] for what in ("losses", "norms", "val_loss")
        ]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name in MATRIX_RUNS if not name.endswith("-1")])
def test_fifty_steps_in_any_layout_go_as_on_one_process(name: str, matrix: Runs) -> None:
    check_agrees(matrix, name)
