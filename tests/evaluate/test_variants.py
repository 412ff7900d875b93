from __future__ import annotations

from collections.abc import Sequence

import pytest

from fewshot.base.errors import BadValue, UnknownName
from fewshot.evaluate.demonstrations import drawn_episodes
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.metrics.metric import accuracy, written_exactly
from fewshot.evaluate.protocol import HARNESS
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task
from fewshot.evaluate.variants import VARIANTS, varied

ALL = ("wrong_labels=0.5", "wrong_labels", "contradiction", "contradiction=earlier", "place=first", "place=last")
ALL += ("place=3", "fresh_mapping")


def drawn(task: Task, k: int, n: int = 40, seed: int = 0) -> Sequence[Episode]:
    return task.episodes(n, k, seed)


def own_lines(episode: Episode) -> list[int]:
    """Places at which the question's own line is shown."""
    return [at for at, shown in enumerate(episode.demonstrations) if shown.context == episode.example.context]


def answer(example: Example) -> str:
    return example.completions[example.gold]


def made(kind: str, examples: Sequence[Example], **fields) -> Task:
    metric = accuracy() if kind == "choose" else written_exactly()
    episodes = drawn_episodes("made", examples[:2], examples[2:])
    return Task(name="made", kind=kind, episodes=episodes, metrics=(metric,), source="by hand", **fields)


@pytest.mark.parametrize("variant", ALL)
@pytest.mark.parametrize("name", ["hidden_letter", "novel_offset", "arithmetic_2d_add"])
def test_a_variant_keeps_questions_answers_and_the_number_of_demonstrations(name: str, variant: str) -> None:
    plain = make_task(name)
    task = varied(plain, variant)
    episodes = drawn(task, 4)
    assert episodes == drawn(task, 4)
    assert episodes[:5] == drawn(task, 4, n=5)
    assert episodes != drawn(plain, 4)
    assert [len(episode.demonstrations) for episode in episodes] == [4] * 40
    assert {episode.ideal for episode in episodes} == {None}
    for before, after in zip(drawn(plain, 4), episodes, strict=True):
        assert (after.example.id, after.example.context) == (before.example.id, before.example.context)
        assert (after.example == before.example) == (variant != "fresh_mapping")


def test_a_varied_task_has_a_name_of_its_own_and_none_of_the_papers_scores() -> None:
    task = varied(make_task("arithmetic_2d_add"), "wrong_labels=0.50")
    assert (task.name, task.variant) == ("arithmetic_2d_add+wrong_labels=0.5", "wrong_labels=0.5")
    assert (task.paper_name, task.chance) == ("", None)
    assert varied(make_task("hidden_letter"), "contradiction").name == "hidden_letter+contradiction=later"
    assert varied(make_task("hidden_letter"), "fresh_mapping").name == "hidden_letter+fresh_mapping"
    assert drawn(task, 0) == drawn(make_task("arithmetic_2d_add"), 0)


def relabelled(task: Task, share: str, k: int = 8, n: int = 200) -> list[bool]:
    pairs = zip(drawn(task, k, n), drawn(varied(task, f"wrong_labels={share}"), k, n), strict=True)
    shown = [lines for a, b in pairs for lines in zip(a.demonstrations, b.demonstrations, strict=True)]
    assert all(before.context == after.context for before, after in shown)
    return [answer(before) != answer(after) for before, after in shown]


@pytest.mark.parametrize("name", ["novel_symbols", "hidden_offset", "hidden_letter"])
def test_the_share_of_wrong_labels_is_the_one_asked_for_and_none_at_0(name: str) -> None:
    task = make_task(name)
    assert varied(task, "wrong_labels=0") is task
    few, half, everything = (relabelled(task, share) for share in ("0.25", "0.5", "1"))
    assert sum(few) / 1600 == pytest.approx(0.25, abs=0.04)  # over three standard deviations
    assert sum(half) / 1600 == pytest.approx(0.5, abs=0.04)
    assert all(everything)
    assert all(more for fewer, more in zip(few, half, strict=True) if fewer)  # a larger share adds wrong labels


def test_more_shots_keep_former_wrong_labels() -> None:
    task = varied(make_task("hidden_offset"), "wrong_labels=0.5")
    for few, many in zip(drawn(task, 3), drawn(task, 6), strict=True):
        assert many.demonstrations[:3] == few.demonstrations


def test_a_wrong_label_of_a_task_with_choices_is_another_choice_that_is_not_right_either() -> None:
    examples = [Example(str(n), f"{n} is", (" odd", " even", " Even"), 1, also_right=(2,)) for n in range(8)]
    for episode in drawn(varied(made("choose", examples), "wrong_labels"), 2):
        assert [shown.demonstration[-4:] for shown in episode.demonstrations] == [" odd"] * 2


def test_a_label_stays_where_there_is_no_other() -> None:
    examples = [Example(str(n), f"{n} is", (" odd",)) for n in range(8)]
    task = made("complete", examples)
    assert drawn(varied(task, "wrong_labels"), 2) == drawn(task, 2)
    with pytest.raises(BadValue, match="fresh_mapping needs different ones"):
        drawn(varied(task, "fresh_mapping"), 2)


@pytest.mark.parametrize("name", ["novel_symbols", "hidden_offset", "hidden_letter"])
def test_of_two_contradicting_lines_the_later_or_the_earlier_has_the_right_answer(name: str) -> None:
    later, earlier = (drawn(varied(make_task(name), f"contradiction={right}"), 6) for right in ("later", "earlier"))
    for one, other in zip(later, earlier, strict=True):
        first, second = own_lines(one)
        assert own_lines(other) == [first, second]
        wrong = one.demonstrations[first]
        assert wrong.demonstration != one.example.demonstration == one.demonstrations[second].demonstration
        assert (other.demonstrations[first], other.demonstrations[second]) == (one.example, wrong)
        rest = [line for at, line in enumerate(one.demonstrations) if at not in (first, second)]
        assert rest == [line for at, line in enumerate(other.demonstrations) if at not in (first, second)]
    assert len({tuple(own_lines(episode)) for episode in later}) > 5


@pytest.mark.parametrize(("value", "at"), [("first", 0), ("1", 0), ("3", 2), ("last", 5)])
def test_the_matching_line_stands_at_its_place_alone(value: str, at: int) -> None:
    task = make_task("novel_symbols")  # the query is often among the demonstrations
    assert {len(own_lines(episode)) for episode in drawn(task, 6)} == {0, 1}
    for episode in drawn(varied(task, f"place={value}"), 6):
        assert own_lines(episode) == [at]
        assert episode.demonstrations[at] == episode.example


@pytest.mark.parametrize("name", ["hidden_letter", "hidden_offset"])
@pytest.mark.parametrize("k", [1, 4, 16])
def test_a_fresh_mapping_answers_in_the_prompt_what_the_rule_would_not(name: str, k: int) -> None:
    task = make_task(name)
    changed = 0
    for before, after in zip(drawn(task, k), drawn(varied(task, "fresh_mapping"), k), strict=True):
        (own,) = own_lines(after)
        assert after.demonstrations[own] == after.example
        assert answer(after.example) != answer(before.example)
        answers = [answer(shown) for shown in after.demonstrations]
        assert len(set(answers)) == k == len({shown.context for shown in after.demonstrations})  # a mapping, one to one
        rule = {shown.context: answer(shown) for shown in before.demonstrations}
        changed += sum(answer(shown) != rule.get(shown.context) for shown in after.demonstrations)
    assert changed > 0.8 * 40 * k


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("wrong_labels=1.5", "share from 0 to 1"),
        ("wrong_labels=nan", "share from 0 to 1"),
        ("wrong_labels=half", "share from 0 to 1"),
        ("contradiction=both", "later or earlier"),
        ("place", "first, last or a number"),
        ("place=0", "first, last or a number"),
        ("place=²", "first, last or a number"),
        ("fresh_mapping=1", "takes no value"),
    ],
)
def test_a_bad_value_is_refused_with_those_allowed(variant: str, message: str) -> None:
    with pytest.raises(BadValue, match=message):
        varied(make_task("hidden_letter"), variant)


def test_a_variant_is_refused_where_it_would_not_be_what_it_says() -> None:
    with pytest.raises(UnknownName, match="wrong_labels"):
        varied(make_task("hidden_letter"), "wrong_label")
    with pytest.raises(BadValue, match="needs 2 or more demonstrations, K is 1"):
        drawn(varied(make_task("hidden_letter"), "contradiction"), 1)
    with pytest.raises(BadValue, match="needs 5 or more demonstrations, K is 4"):
        drawn(varied(make_task("hidden_letter"), "place=5"), 4)
    with pytest.raises(BadValue, match="kind choose"):
        varied(make_task("novel_symbols"), "fresh_mapping")
    examples = [Example(str(n), f"{n} is", (f" {n}",), as_demonstration=f"{n}!", references=n) for n in range(8)]
    with pytest.raises(BadValue, match="show more than a question and its answer"):
        drawn(varied(made("complete", examples), "wrong_labels"), 2)
    judged = [Example(str(n), f"{n} is", (f" {n}",), references=n) for n in range(8)]
    with pytest.raises(BadValue, match="compares with the answer alone"):
        drawn(varied(made("complete", judged), "fresh_mapping"), 2)
    for variant in VARIANTS:
        with pytest.raises(BadValue, match="no variants under lm-eval"):
            varied(made("complete", judged, protocol=HARNESS), variant + "=first" * (variant == "place"))
