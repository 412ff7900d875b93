"""One text grows as the labels say, the model goes on with it, and the oldest turns make room."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from fewshot.base.errors import BadValue, ContextTooLong
from fewshot.generate.complete import complete
from fewshot.generate.conversation import PRESETS, Conversation, Labels, Settings, Turn, engine_for_one
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT
from fewshot.model.packed import PackedGPT
from fewshot.tokenizer.bytes import Bytes
from fewshot.tokenizer.vocab import Tokenizer

QA = Labels(you="Q: ", model="A: ", end="\n\n")
PREFIX = "Short answers.\n\n"


@pytest.fixture(scope="module")
def model() -> GPT:
    """A model of bytes with a context of 96."""
    torch.manual_seed(3)
    shape = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_ctx": 96, "n_vocab": Bytes().n_vocab, "init_std": 0.5}
    return GPT(GPTConfig(**shape)).eval()


def talk(model: GPT, tokenizer: Tokenizer | None = None, labels: Labels = QA, **settings: Any) -> Conversation:
    engine = engine_for_one(PackedGPT(model), tokenizer or Bytes())
    return Conversation(engine, labels, prefix=PREFIX, settings=Settings(**{"max_tokens": 8, **settings}))


def say(conversation: Conversation, *turns: str) -> list[str]:
    return ["".join(conversation.ask(asked)) for asked in turns]


def with_answers(conversation: Conversation, *answers: str) -> None:
    conversation.turns = [Turn(asked=str(n), answer=answer) for n, answer in enumerate(answers)]


def test_the_text_is_the_prefix_and_the_labelled_turns(model: GPT) -> None:
    conversation = talk(model)
    assert conversation.text == PREFIX
    with_answers(conversation, "yes", "", "a\nb")
    assert conversation.text == f"{PREFIX}Q: 0\nA: yes\n\nQ: 1\nA:\n\nQ: 2\nA: a\nb\n\n"


def test_an_answer_is_what_the_model_writes_behind_the_label_without_its_blank(model: GPT) -> None:
    conversation, tokenizer = talk(model, seed=5), Bytes()
    how = {"max_tokens": 8, "sampling": conversation.settings.sampling(), "stop": ["\nQ:", "\nA:"], "seed": 5}
    text = PREFIX
    for asked in ("who?", "where?\nhere?"):
        text += f"Q: {asked}\nA:"
        expected = complete(model, tokenizer, [[tokenizer.start, *tokenizer.encode(text)]], **how)[0].text.strip()
        assert say(conversation, asked) == [expected] == [conversation.turns[-1].answer]
        text += f" {expected}\n\n" if expected else "\n\n"
        assert conversation.text == text


def writes(scripted: Callable[..., Any], labels: Labels, *pieces: bytes) -> Conversation:
    """Return a conversation whose first answer, to "a", is these pieces."""
    prompt = [bytes([byte]) for byte in f"{PREFIX}{labels.question('a')}".encode()]
    return talk(*scripted(*prompt, *pieces, *[b"#"] * 20), labels, temperature=0.0)


@pytest.mark.parametrize(
    ("labels", "pieces", "answer"),
    [
        (QA, [b" ", b"ye", b"s", b"\n", b"Q", b":"], ["ye", "s"]),
        (QA, [b" y", b" \n", b"\nA:", b"no"], ["y"]),
        (QA, [b"\n", b" y", b"\n", b" Q:", b"\nQ: "], ["y", "\n Q:"]),
        (Labels(you="", model="A: "), [b" y", b"\n", b"z"], ["y"]),
        (Labels(you="\n\nQ: ", model="A: "), [b" y", b"\nQ", b":"], ["y"]),
        (Labels(you="Q: ", model="A: ", stops=(";",)), [b" y", b"\nQ:", b";"], ["y", "\nQ:"]),
    ],
)
def test_an_answer_ends_before_the_next_label_and_has_no_white_space_around_it(
    scripted: Callable[..., Any], labels: Labels, pieces: Sequence[bytes], answer: list[str]
) -> None:
    conversation = writes(scripted, labels, *pieces)
    assert [piece for piece in conversation.ask("a") if piece] == answer
    assert conversation.turns[0].answer == "".join(answer)


def test_what_was_read_before_is_not_read_again(model: GPT) -> None:
    conversation = talk(model)
    say(conversation, "one")
    assert conversation.n_cached == 0
    before = conversation.n_prompt
    say(conversation, "two")
    assert conversation.n_cached == before < conversation.n_prompt
    "".join(conversation.retry())
    assert conversation.n_cached == conversation.n_prompt - 1


def test_the_oldest_turns_are_left_out_whole_and_no_more_of_them_than_must(model: GPT) -> None:
    conversation = talk(model)
    with_answers(conversation, "a" * 10, "b" * 20, "c" * 5)  # 20, 30 and 15 bytes behind 17; there is room for 88
    say(conversation, "x" * 21)  # 27 bytes
    assert (conversation.first, conversation.n_prompt) == (2, 17 + 15 + 27)
    assert conversation.text.startswith(f"{PREFIX}Q: 2\n")
    assert conversation.whole_text.startswith(f"{PREFIX}Q: 0\nA: {'a' * 10}\n\nQ: 1\n")
    for asked, first in (("x" * 20, 1), ("x", 1), ("", 0)):  # what is shorter leaves room again
        conversation.undo()
        say(conversation, asked)
        assert conversation.first == first


def test_a_turn_that_cannot_fit_is_no_turn(model: GPT) -> None:
    conversation = talk(model)
    say(conversation, "x" * 65)  # 1 + 16 + 71: all that there is room for
    with pytest.raises(ContextTooLong, match=r"\(89 tokens\) .* max_tokens \(8\) has 97 tokens, .* holds 96: shorten"):
        conversation.ask("x" * 66)
    assert [turn.asked for turn in conversation.turns] == ["x" * 65]
    conversation.settings = Settings(max_tokens=9)
    kept = conversation.turns[-1]
    with pytest.raises(ContextTooLong):
        conversation.retry()
    assert conversation.turns == [kept]


def test_a_turn_is_answered_again_with_the_next_seed(model: GPT) -> None:
    conversation = talk(model, seed=7, temperature=2.0)
    first = say(conversation, "one", "two")[1]
    again = "".join(conversation.retry())
    third = "".join(conversation.retry())
    assert [turn.seed for turn in conversation.turns] == [7, 9]
    other = talk(model, seed=8, temperature=2.0)
    other.turns = conversation.turns[:1]
    assert say(other, "two") == [again]
    assert len({first, again, third}) == 3


def test_turns_are_taken_back_until_none_is_left(model: GPT) -> None:
    conversation = talk(model)
    say(conversation, "one", "two")
    assert conversation.undo().asked == "two"
    assert [turn.asked for turn in conversation.turns] == ["one"]
    conversation.reset()
    assert conversation.text == PREFIX
    for take in (conversation.undo, conversation.retry):
        with pytest.raises(BadValue, match="there is no turn yet"):
            take()


def test_an_answer_that_is_stopped_keeps_what_came_and_leaves_nothing_running(model: GPT) -> None:
    conversation = talk(model, max_tokens=40)
    pieces = conversation.ask("one")
    came = "".join(next(pieces) for _ in range(6))
    pieces.close()
    assert came == conversation.turns[0].answer
    assert not conversation.engine.busy
    assert conversation.engine.n_reserved_bytes == 0
    say(conversation, "two")
    assert conversation.turns[0].answer == came != ""


@pytest.mark.parametrize(
    ("pairs", "you", "model"),
    [
        ([("Q: What is 1?\n\nA:", " 1"), ("Q: What is 2?\n\nA:", " 2")], "Q: ", "\n\nA: "),
        ([("\n\nQ: Why?\n\nA:", " 1"), ("\n\nQ: Who?\n\nA:", " 2")], "\n\nQ: ", "\n\nA: "),
        ([("i ->", " j"), ("k ->", " l")], "", " -> "),
        ([("a", " b"), ("c", " d")], "", " "),
        ([("ab", "b"), ("cb", " d")], "", ""),
        ([("only: one\nA:", " b")], "only: ", " one\nA: "),
    ],
)
def test_labels_are_what_all_questions_begin_and_end_with(pairs: list[tuple[str, str]], you: str, model: str) -> None:
    labels = Labels.of_examples(pairs, end=";", stops=["\n"])
    assert (labels.you, labels.model, labels.end, labels.stop) == (you, model, ";", ("\n",))


def test_a_turn_with_the_labels_of_examples_reads_like_an_example() -> None:
    pairs = [("\n\nQ: Why?\n\nA:", " so"), ("\n\nQ: Who?\n\nA:", " he")]
    labels = Labels.of_examples(pairs, end="", stops=["\n"])
    assert labels.turn(Turn(asked="Why?", answer="so")) == "".join(pairs[0])
    assert labels.question("Who?") == pairs[1][0]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_has_as_many_examples_as_half_of_the_room_holds(model: GPT, name: str) -> None:
    preset = PRESETS[name]
    prefixes = preset.prefixes(preset.labels)
    assert [text.count(f"\n{preset.labels.you}") for text in prefixes] == [*range(len(prefixes) - 2, -1, -1), 0]
    conversation = talk(model, labels=preset.labels)
    assert conversation.take_prefix(["x" * 200, "x" * 20, "x", ""]) == 1
    assert conversation.prefix == "x" * 20
    assert conversation.take_prefix(prefixes) == len(prefixes) - 1
    assert conversation.prefix == ""
    assert conversation.take_prefix(["x" * 200]) == 0


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("temperature", "0.5", 0.5), ("top_p", "1", 1.0), ("top_k", "3", 3), ("top_k", "off", None), ("seed", "-1", -1)],
)
def test_a_setting_is_changed_as_typed(model: GPT, name: str, text: str, value: object) -> None:
    conversation = talk(model, top_k=5)
    conversation.change(name, text)
    assert getattr(conversation.settings, name) == value
    say(conversation, "one")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("temprature", "1", "unknown setting 'temprature'; nearest: 'temperature'"),
        ("temperature", "warm", "temperature is 'warm', must be a number; it stays 0.8"),
        ("temperature", "nan", "temperature is nan, must be at least 0"),
        ("temperature", "off", "temperature is 'off', must be a number"),
        ("top_k", "1.5", "top_k is '1.5', must be a whole number; it stays off"),
        ("top_p", "0", "top_p is 0.0, must be in"),
        ("max_tokens", "0", "max_tokens is 0, must be at least 1"),
        ("max_tokens", "80", "has 103 tokens, the model's context holds 96"),
        ("seed", "", "seed is '', must be a whole number"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_nothing_changes(
    model: GPT, name: str, text: str, message: str
) -> None:
    conversation = talk(model)
    with pytest.raises((BadValue, ContextTooLong), match=message):
        conversation.change(name, text)
    assert conversation.settings == Settings(max_tokens=8)
