"""Tasks of text as tokens."""

from __future__ import annotations

from random import Random

import pytest
import torch

from fewshot.base.errors import BadValue
from fewshot.evaluate.example import Episode
from fewshot.evaluate.prompt import build_prompt
from fewshot.evaluate.tasks.novel import FAMILIES, Letter, SmallOffset, Symbols, make_novel
from fewshot.meta.tasks.text_tasks import (
    NO_TARGET,
    TextTask,
    TextTasks,
    answer_loss,
    answered,
    as_episodes,
    draw_text,
    prompts,
    share_answered,
)
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.tokenizer.bytes import Bytes

TASK = TextTask(SmallOffset(), (("7", "9"), ("19", "21")), (("3", "5"), ("19", "21"), ("12", "14")))


def parts(tokenizer, x, y) -> tuple[str, str]:
    """The text before the targets, and the text of these."""
    first = next(i for i, target in enumerate(y.tolist()) if target != NO_TARGET)
    return tokenizer.decode(x[: first + 1].tolist()), tokenizer.decode([t for t in y.tolist() if t != NO_TARGET])


def test_a_line_by_itself_asks_for_its_answer_and_line_break():
    tokenizer = Bytes()
    episodes = as_episodes(tokenizer, [TASK, TASK])
    assert episodes.support_x.shape[:2] == (2, 2)
    assert episodes.query_x.shape[:2] == (2, 3)
    lines = [parts(tokenizer, x, y) for x, y in zip(episodes.support_x[1], episodes.support_y[1], strict=True)]
    assert lines == [("<|endoftext|>7 ->", " 9\n"), ("<|endoftext|>19 ->", " 21\n")]
    lines = [parts(tokenizer, x, y) for x, y in zip(episodes.query_x[0], episodes.query_y[0], strict=True)]
    assert lines == [("<|endoftext|>3 ->", " 5\n"), ("<|endoftext|>19 ->", " 21\n"), ("<|endoftext|>12 ->", " 14\n")]


def test_a_prompt_is_that_of_fewshot_evaluate():
    tokenizer, family = Bytes(), Letter()
    task = draw_text(family, 3, 2, Random(0), held_out=True)
    x, y = prompts(tokenizer, [task])
    for at, (question, answer) in enumerate(task.queries):
        demonstrations = tuple(family._example("", *line) for line in task.demonstrations)
        episode = Episode(family._example("", question, answer), demonstrations, ())
        theirs = build_prompt(tokenizer, make_novel(family.name), episode, shots=3, n_ctx=100)
        n = len(theirs.tokens)
        assert x[0, at, :n].tolist() == list(theirs.tokens)
        assert [t for t in y[0, at].tolist() if t != NO_TARGET] == tokenizer.encode(f" {answer}\n")
        assert y[0, at, n - 1].item() == tokenizer.encode(" ")[0]


@pytest.mark.parametrize("held_out", [True, False])
def test_training_and_test_have_no_rule_in_common(held_out):
    family = Symbols()
    tasks = TextTasks((family,), Bytes(), held_out=held_out)
    for task in tasks.draw_texts(20, 16, 2, torch.Generator().manual_seed(0)):
        answers = dict(task.demonstrations)
        rule = "".join(answers[symbol] for symbol in family.symbols)
        assert family.held_out(rule) is held_out
        assert all(answers[question] == answer for question, answer in task.queries)


def test_fewer_demonstrations_are_the_first_ones_with_the_same_questions():
    task = draw_text(Symbols(), 8, 5, Random(1), held_out=True)
    assert task.first(3).demonstrations == task.demonstrations[:3]
    assert task.first(3).queries == task.queries
    expected = sum(1.0 if q in dict(task.demonstrations[:3]) else 1 / 13 for q, _ in task.queries) / 5
    assert task.first(3).ideal() == pytest.approx(expected)


def test_a_draw_has_one_k_and_families_in_turn_and_follows_its_generator_alone():
    families = tuple(FAMILIES[name]() for name in ("novel_symbols", "hidden_letter"))
    tasks, seen = TextTasks(families, Bytes(), held_out=False, shots=(1, 2, 4, 16)), set()
    for seed in range(30):
        drawn = tasks.draw_texts(4, 8, 3, torch.Generator().manual_seed(seed))
        assert [task.family.name for task in drawn] == ["novel_symbols", "hidden_letter"] * 2
        (k,) = {len(task.demonstrations) for task in drawn}
        seen.add(k)
        again = tasks.draw(4, 8, 3, torch.Generator().manual_seed(seed))
        assert torch.equal(again.support_x, as_episodes(Bytes(), drawn).support_x)
    assert seen == {1, 2, 4}  # never 16: that is above n_support
    with pytest.raises(BadValue, match=r"novel_symbols has 16 distinct questions: 17 examples"):
        TextTasks(families, Bytes(), held_out=False).draw(2, 17, 1, torch.Generator())


def test_answered_is_what_greedy_decoding_writes():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layers=1, d_model=8, n_heads=2, n_ctx=9, n_vocab=13, init_std=0.5)).eval()
    prompt = torch.randint(13, (4, 5))
    text = prompt
    with torch.no_grad():
        for _ in range(3):
            text = torch.cat([text, model(text)[:, -1:].argmax(-1)], 1)
        x, y = text[:, :-1], text[:, 1:].clone()
        y[:, :4] = NO_TARGET
        assert answered(model(x), y).tolist() == [True] * 4
        y[1, -1] = (y[1, -1] + 1) % 13
        y[3, 4] = (y[3, 4] + 1) % 13
        assert answered(model(x), y).tolist() == [True, False, True, False]
        assert share_answered(model(x), y).item() == 0.5


def test_the_loss_is_torchs_over_the_targets():
    torch.manual_seed(0)
    logits, y = torch.randn(3, 5, 7), torch.randint(7, (3, 5))
    y[:, :2] = NO_TARGET
    y[1, 4] = NO_TARGET
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten(), ignore_index=NO_TARGET)
    assert answer_loss(logits, y).item() == pytest.approx(wanted.item(), rel=1e-6)
