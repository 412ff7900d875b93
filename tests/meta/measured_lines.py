"""Three learners of lines as they were measured, in two results: made-up figures for pages and charts."""

from __future__ import annotations

from fewshot.meta.curves import Curve, Measured, point


def curve(learner: str, kind: str, means: dict[tuple[int, int], float], spread: float = 0.01) -> Curve:
    points = tuple(
        point([mean - spread, mean + spread], n_examples=k, n_steps=n, flops=100.0 * (1 + k) * (1 + n))
        for (k, n), mean in means.items()
    )
    return Curve(learner=learner, kind=kind, points=points, training_flops=12345.0)


CONTEXT = curve("context", "context", {(1, 0): 0.5, (2, 0): 0.3, (4, 0): 0.1})
MAML = curve("maml", "weights", {(1, 1): 0.9, (1, 5): 0.4, (2, 1): 0.8, (2, 5): 0.29})
BOUND = curve("ideal", "bound", {(1, 0): 0.0, (2, 0): 0.0})
FIRST = Measured(
    tasks="lines",
    quantity="error",
    curves=(CONTEXT, BOUND),
    history={"context": [{"iteration": 10.0, "loss": 2.0, "KL": 1.0}, {"iteration": 20.0, "loss": 1.0, "KL": 0.5}]},
)
SECOND = Measured(tasks="lines", quantity="error", curves=(MAML, BOUND))
