"""Results on the same tasks stand together, each learner under one name."""

from __future__ import annotations

from dataclasses import replace

from measured_lines import BOUND, CONTEXT, MAML, SECOND, curve

from fewshot.meta.curves import Measured
from fewshot.meta.merge import grouped, learner_of, merge, plain_name, rows_of

FIRST = Measured(tasks="lines", quantity="error", curves=(CONTEXT, BOUND))


def merged(*results: Measured) -> list[Measured]:
    return [merge(group) for group in grouped(results).values()]


def test_results_on_the_same_tasks_are_together_and_a_shared_bound_stands_once():
    other = Measured(tasks="chains", quantity="nats above the best reader", curves=(CONTEXT,))
    assert list(grouped([FIRST, other, SECOND])) == [("lines", "error"), ("chains", "nats above the best possible")]
    assert [one.learner for one in merged(FIRST, other, SECOND)[0].curves] == ["in context", "ideal learner", "MAML"]


def test_learners_of_one_name_that_did_otherwise_are_told_apart_by_their_iterations():
    rows = [{"iteration": 10, "loss": 2.0}, {"iteration": 2000, "loss": 1.0}]
    longer = replace(SECOND, curves=(replace(MAML, points=MAML.points[:1]), BOUND), history={"maml": rows})
    shorter = replace(SECOND, history={"maml": rows[:1]})
    (together,) = merged(longer, shorter, longer)
    assert [(one.learner, len(one.points)) for one in together.curves] == [
        ("MAML, 2,000 iterations", 1),
        ("ideal learner", 2),
        ("MAML, 10 iterations", 4),
    ]
    assert together.history == {"MAML, 2,000 iterations": rows, "MAML, 10 iterations": rows[:1]}
    assert {plain_name(one.learner) for one in together.curves} == {"MAML", "ideal learner"}


def test_learners_whose_iterations_tell_nothing_are_numbered():
    other = replace(SECOND, curves=(replace(MAML, points=MAML.points[:1]),))
    (together,) = merged(SECOND, other)
    assert [one.learner for one in together.curves] == ["MAML, result 1", "ideal learner", "MAML, result 2"]
    assert plain_name("MAML, result 2") == "MAML"


def test_a_name_that_is_the_words_of_another_learner_hides_none():
    own = replace(FIRST, curves=(CONTEXT, replace(MAML, learner="in context")))
    assert [one.learner for one in merged(own)[0].curves] == ["context", "in context"]


def test_loops_of_several_seeds_are_named_after_their_learner():
    rows = [{"iteration": 1, "loss": 1.0}]
    history = {"maml_0": rows, "maml_1": rows, "reader_0": rows}
    (together,) = merged(replace(SECOND, history=history))
    assert list(together.history) == ["MAML, seed 0", "MAML, seed 1", "in-context tuning, seed 0"]
    assert [learner_of(loop) for loop in together.history] == ["MAML", "MAML", "in-context tuning"]
    assert learner_of("MAML, 10 iterations") == "MAML, 10 iterations"


def test_sorts_of_tasks_within_one_result_are_apart_and_the_history_goes_with_the_first():
    rows = [{"iteration": 1, "loss": 1.0}]
    sorts = replace(
        FIRST,
        curves=(replace(CONTEXT, tasks="a"), replace(MAML, tasks="b"), replace(CONTEXT, tasks="b")),
        history={"context": rows},
    )
    assert list(grouped([sorts])) == [("lines: a", "error"), ("lines: b", "error")]
    first, second = merged(sorts)
    assert [one.learner for one in first.curves] == ["in context"]
    assert [one.learner for one in second.curves] == ["MAML", "in context"]
    assert (list(first.history), list(second.history)) == (["in context"], [])


def test_quantities_within_one_result_are_apart_and_each_knows_whether_more_is_better():
    right = replace(CONTEXT, quantity="accuracy", more_is_better=True)
    errors, shares = merged(replace(FIRST, curves=(CONTEXT, right, BOUND)))
    assert (errors.quantity, errors.more_is_better, len(errors.curves)) == ("error", False, 2)
    assert (shares.tasks, shares.quantity, shares.more_is_better) == ("lines", "accuracy", True)
    assert [one.learner for one in shares.curves] == ["in context"]


ROWS = {
    "a reader": (CONTEXT, [[1, 2, 4]]),
    "several steps each": (MAML, [[1, 2], [1, 2]]),
    "steps chosen for each": (curve("tuned", "weights", {(1, 2): 0.5, (2, 20): 0.4}), [[1, 2]]),
    "before and after one step": (curve("maml", "weights", {(0, 0): 3.0, (5, 1): 0.4, (6, 1): 0.3}), [[0], [5, 6]]),
}


def test_points_before_any_step_are_in_no_row_with_points_after_some():
    for a_curve, expected in ROWS.values():
        assert [list(row) for row in rows_of(a_curve)] == expected
        for row in rows_of(a_curve):
            assert len({bool(one.n_steps) for one in row.values()}) == 1


def test_loops_of_one_name_with_other_rows_are_all_kept():
    rows = [{"iteration": 1, "loss": 2.0}], [{"iteration": 1, "loss": 2.0}, {"iteration": 2, "loss": 1.0}]
    results = [Measured(tasks="waves", quantity="error", curves=(), history={"loop": row}) for row in (*rows, rows[0])]
    assert merge(results).history == {"loop": rows[0], "loop, result 2": rows[1]}
