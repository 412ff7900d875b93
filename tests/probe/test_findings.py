from __future__ import annotations

import json

import pytest
import torch
from circuits import induction_model

from fewshot.probe.ablation import Head, heads_of
from fewshot.probe.findings import Findings, StepFindings, TaskAblations, ablate_each
from fewshot.probe.recording import mean_outputs
from fewshot.probe.scores import HeadScores

A, B, C = Head(0, 0), Head(1, 0), Head(1, 1)


def scored(head: Head, induction: float) -> HeadScores:
    scores = {"previous": 0.1, "same": 0.2, "induction": induction}
    return HeadScores(head, "dense", scores, dict.fromkeys(scores, 0.05))


def solved(task: str, accuracy: float, *without: float) -> TaskAblations:
    ablated = dict(zip((A, B, C), without, strict=True))
    return TaskAblations(task=task, shots=8, n=100, metric="accuracy", accuracy=accuracy, chance=0.1, ablated=ablated)


def findings(**more) -> Findings:
    heads = [scored(A, 0.1), scored(B, 0.9), scored(C, 0.3)]
    return Findings(model="run", step=20, scored_on="somewhere", heads=heads, **more)


def test_the_copying_head_is_the_one_with_the_highest_induction_score():
    assert findings().copying.head == B
    assert findings().copies


def test_a_model_whose_heads_all_read_elsewhere_has_no_head_that_copies():
    weak = Findings(model="run", step=1, scored_on="", heads=[scored(A, 0.2), scored(B, 0.3)])
    assert weak.copying.head == B
    assert not weak.copies


def test_the_opposite_head_is_one_that_the_first_task_does_without_and_a_later_one_needs():
    both = findings(tasks=[solved("first", 1.0, 0.2, 0.1, 0.99), solved("later", 0.9, 0.1, 0.88, 0.4)])
    assert both.opposite is not None
    assert (both.opposite[0], both.opposite[1].task) == (C, "later")


@pytest.mark.parametrize(
    "tasks",
    [
        [solved("first", 1.0, 0.2, 0.1, 0.99)],
        [solved("first", 1.0, 0.2, 0.1, 0.99), solved("later", 0.9, 0.1, 0.2, 0.88)],
        [solved("first", 1.0, 0.2, 0.1, 0.3), solved("later", 0.9, 0.1, 0.2, 0.3)],
    ],
    ids=["one task", "no loss", "no head is spared"],
)
def test_without_a_dissociation_there_is_no_opposite_head(tasks):
    assert findings(tasks=tasks).opposite is None


def steps(*values: tuple[int, float, float]) -> list[StepFindings]:
    return [
        StepFindings(
            step=step,
            heads=[scored(A, 1.0), scored(B, score)],
            accuracy={"first": accuracy},
            distances={"copying": 1 - accuracy},
        )
        for step, score, accuracy in values
    ]


def test_json_holds_heads_tasks_and_steps_under_names_that_a_statement_can_reach():
    both = findings(
        tasks=[solved("first", 1.0, 0.2, 0.1, 0.99)],
        steps=steps((0, 0.02, 0.05), (50, 0.44, 0.1), (100, 0.9, 0.5), (150, 0.8, 1.0)),
    )
    plain = json.loads(json.dumps(both.to_json()))
    assert plain["heads"][1] == {
        "head": "L1H0",
        "layer": 1,
        "pattern": "dense",
        "previous": 0.1,
        "same": 0.2,
        "induction": 0.9,
        "chance": {"previous": 0.05, "same": 0.05, "induction": 0.05},
    }
    more = {"rises_at_step": 100, "steps_between_rises": 0, "least_loss_of_later_tasks": None}
    assert plain["copying_head"] == plain["heads"][1] | more
    (task,) = plain["tasks"]
    assert task["ablated"] == {"L0H0": 0.2, "L1H0": 0.1, "L1H1": 0.99}
    assert (task["without_copying_head"], task["rises_at_step"]) == (0.1, 100)
    assert [step["accuracy"]["first"] for step in plain["steps"]] == [0.05, 0.1, 0.5, 1.0]
    assert plain["steps"][1]["heads"][1]["induction"] == 0.44
    assert [step["distances"]["copying"] for step in plain["steps"]] == [0.95, 0.9, 0.5, 0.0]


def test_json_has_the_same_keys_when_nothing_was_solved_or_followed():
    plain = findings().to_json()
    whole = findings(
        tasks=[solved("first", 1.0, 0.2, 0.1, 0.99), solved("later", 0.9, 0.1, 0.88, 0.4)],
    ).to_json()
    assert plain.keys() == whole.keys()
    assert (plain["tasks"], plain["steps"]) == ([], [])
    assert plain["opposite_head"] == {"head": None, "task": None, "loss": 0.0, "loss_of_first_task": 0.0}
    assert plain["copying_head"].keys() == whole["copying_head"].keys()
    assert plain["copying_head"]["rises_at_step"] is None
    assert whole["copying_head"]["least_loss_of_later_tasks"] == pytest.approx(0.02)
    assert whole["tasks"][0]["loss_without_copying_head"] == pytest.approx(0.9)
    assert whole["opposite_head"] == {
        "head": "L1H1",
        "task": "later",
        "loss": pytest.approx(0.5),
        "loss_of_first_task": pytest.approx(0.01),
    }


def test_each_head_is_out_of_the_model_while_its_accuracy_is_measured():
    model, text = induction_model(n_layers=2), [3, 1, 4, 1, 5, 3, 1]
    seen, progress = [], []

    def accuracy() -> float:
        layers = [block.attn.c_proj.weight.abs().sum().item() for block in model.h]
        seen.append(layers)
        return layers[0]

    whole = torch.stack([block.attn.c_proj.weight.abs().sum() for block in model.h]).tolist()
    without = ablate_each(
        model,
        heads_of(model),
        mean_outputs(model, [text]),
        accuracy,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert seen[0][0] == 0 < whole[0]
    assert seen[1][0] == whole[0]
    assert without == {Head(0, 0): 0, Head(1, 0): whole[0]}
    assert progress == [(0, 2), (1, 2)]


def test_steps_between_the_rises_of_score_and_accuracy_are_counted_either_way():
    tasks = [solved("first", 1.0, 0.2, 0.1, 0.99)]
    later = findings(tasks=tasks, steps=steps((0, 0.9, 0.1), (50, 0.9, 0.1), (100, 0.9, 1.0))).to_json()
    earlier = findings(tasks=tasks, steps=steps((0, 0.1, 0.9), (50, 0.9, 0.9))).to_json()
    assert later["copying_head"]["steps_between_rises"] == 100
    assert earlier["copying_head"]["steps_between_rises"] == 50
