"""Who says a value last wins, whichever of its two spellings is used; what cannot be ordered is refused."""

from __future__ import annotations

from typing import Any

import pytest

from fewshot.base.config import to_plain
from fewshot.base.errors import BadValue
from fewshot.train.resolving.overrides import at_home, laid_over, one_spelling
from fewshot.train.resolving.resolve import check_sections, data_config, resolve

SHAPE = {"n_layers": 1, "d_model": 16, "n_heads": 2, "n_ctx": 32}
TEXT = {"text": "a.txt"}
Given = dict[str, Any]


def layers(*given: Given) -> list[tuple[str, Given]]:
    return [(f"layer {i}", fields) for i, fields in enumerate(given)]


def configured(*given: Given) -> tuple[Given, list[str]]:
    """What these layers come to, and what was said."""
    said: list[str] = []
    merged = laid_over(layers(TEXT, *given), say=said.append)
    check_sections(merged)
    data = data_config(merged)
    config = resolve(merged, data, n_vocab=66, n_text_tokens=10**6, device="cpu", say=said.append)
    return to_plain(config), said


def source(name: str, text: str) -> Given:
    return {"data": {"sources": [{"name": name, "text": [text]}]}}


LATER_WINS: dict[str, tuple[list[Given], str, Any]] = {
    "an option over a file's field": (
        [{"model": SHAPE, "schedule": {"n_tokens": 6400}}, {"n_tokens": 640}],
        "schedule.n_tokens",
        640,
    ),
    "a field over a file's short spelling": (
        [{"model": SHAPE, "n_tokens": 6400}, {"schedule": {"n_tokens": 640}}],
        "schedule.n_tokens",
        640,
    ),
    "the third of three layers": (
        [{"model": SHAPE, "schedule": {"n_tokens": 1}}, {"n_tokens": 2}, {"schedule": {"n_tokens": "6.4e2"}}],
        "schedule.n_tokens",
        640,
    ),
    "the short spelling twice": ([{"model": SHAPE, "n_tokens": 6400}, {"n_tokens": "640"}], "schedule.n_tokens", 640),
    "a longer run over a shorter": (
        [{"model": SHAPE, "schedule": {"n_tokens": 640, "decay_tokens": 600}}, {"n_tokens": 64_000}],
        "schedule.n_tokens",
        64_000,
    ),
    "sources over text": (
        [{"model": SHAPE, "n_tokens": 640}, source("other", "b.txt")],
        "data.sources",
        [{"name": "other", "text": ["b.txt"], "weight": 1.0, "text_field": None}],
    ),
    "text over sources": (
        [{"model": SHAPE, "n_tokens": 640, **source("other", "b.txt")}, {"text": ["c.txt", "d"]}],
        "data.sources",
        [{"name": "text", "text": ["c.txt", "d"], "weight": 1.0, "text_field": None}],
    ),
    "text over text": (
        [{"model": SHAPE, "n_tokens": 640}, {"text": "c.txt"}],
        "data.sources",
        [{"name": "text", "text": ["c.txt"], "weight": 1.0, "text_field": None}],
    ),
    "text leaves the rest of data": (
        [{"model": SHAPE, "n_tokens": 640, "data": {"val_fraction": 0.2}}, {"text": "c.txt"}],
        "data.val_fraction",
        0.2,
    ),
    "a preset over a preset": ([{"preset": "tiny-1m", "n_tokens": 6400}, {"preset": "tiny-4m"}], "model.d_model", 256),
    "a field of the model over a preset": (
        [{"preset": "tiny-1m", "n_tokens": 6400}, {"model": {"n_layers": 6}}],
        "model.n_layers",
        6,
    ),
    "sizes over a preset": ([{"preset": "tiny-1m", "n_tokens": 6400}, {"model": SHAPE}], "preset", None),
    "an option that says nothing": (
        [{"model": SHAPE, "schedule": {"n_tokens": 640}}, {"n_tokens": None}],
        "schedule.n_tokens",
        640,
    ),
}


@pytest.mark.parametrize("name", LATER_WINS)
def test_what_is_given_later_wins_whichever_way_it_is_spelled(name: str) -> None:
    given, field, value = LATER_WINS[name]
    config, _ = configured(*given)
    result: Any = config
    for part in field.split("."):
        result = result[part]
    assert result == value


REFUSED: dict[str, tuple[list[Given], str]] = {
    "n_tokens twice": (
        [{"n_tokens": 1, "schedule": {"n_tokens": 2}}],
        r"layer 1 gives n_tokens and schedule\.n_tokens, two spellings of one value: leave one out",
    ),
    "text twice": ([{"text": "a", **source("b", "b")}], r"layer 1 gives text and data\.sources, two spellings"),
    "a preset over a model": (
        [{"model": SHAPE}, {"preset": "tiny-4m"}],
        r"preset tiny-4m of layer 2 and model\.n_layers, model\.d_model, model\.n_heads of layer 1 both say what",
    ),
    "a preset over one size of a model": ([{"model": {"d_model": 64}}, {"preset": "tiny-4m"}], r"model\.d_model of"),
    "a preset over a run's configuration": (
        [{"preset": "tiny-1m", "model": {**SHAPE, "pattern": "dense"}}, {}, {"preset": "gpt3-small"}],
        "preset gpt3-small of layer 3 and model",
    ),
    "a section that is a number": ([{"schedule": 3, "n_tokens": 3}], "schedule must hold keys and values, found 3"),
    "text that is a number": ([{"text": 5}], "text is 5, a list is needed"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_two_spellings_that_cannot_be_ordered_are_refused_by_both_names(name: str) -> None:
    given, message = REFUSED[name]
    with pytest.raises(BadValue, match=message):
        laid_over(layers(TEXT, *given), say=lambda line: None)


def test_a_spelling_that_goes_over_another_is_said() -> None:
    said: list[str] = []
    laid_over([("a.yaml", {"schedule": {"n_tokens": 5}}), ("the options", {"n_tokens": 7})], say=said.append)
    assert said == ["n_tokens of the options overrides schedule.n_tokens of a.yaml"]


def test_a_preset_is_claimed_while_something_of_it_is_left_and_what_differs_is_said() -> None:
    config, said = configured({"preset": "tiny-1m", "n_tokens": 6400, "model": {"n_layers": 6, "dropout": 0.1}})
    assert config["preset"] == "tiny-1m"
    assert any(line.startswith("model: tiny-1m with n_layers 6, dropout 0.1; ") for line in said)
    config, said = configured({"preset": "gpt3-small", "n_tokens": 6400, "model": SHAPE})
    assert config["preset"] is None
    assert config["optimizer"]["name"] == "muon"  # the paper's Adam is for the paper's model
    assert "model: no longer gpt3-small, because other n_layers, d_model, n_heads are given" in said


def test_the_configuration_of_a_run_gives_the_same_run_again() -> None:
    for given in ({"preset": "tiny-4m"}, {"model": SHAPE}, {"preset": "tiny-1m", "model": {"n_layers": 6}}):
        config, _ = configured({**given, "n_tokens": 6400})
        again, _ = configured({key: value for key, value in config.items() if key != "data"})
        assert {**again, "preset": None} == {**config, "preset": None}


def test_one_spelling_is_already_one() -> None:
    given = {"text": "a.txt", "n_tokens": 5, "model": {}}
    assert one_spelling(one_spelling(given)) == one_spelling(given)


def test_the_home_of_the_user_stands_for_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert at_home("~/a.txt") == "/home/me/a.txt"
    assert [at_home(path) for path in ("./a", "a~b", "~nobody-here/x", "a//b")] == [
        "./a",
        "a~b",
        "~nobody-here/x",
        "a//b",
    ]
    data = data_config({"text": ["~/a.txt", "b"], "data": {"tokenizer": "~/t.json"}})
    assert (data.sources[0].text, data.tokenizer) == (("/home/me/a.txt", "b"), "/home/me/t.json")
    data = data_config({"data": {"sources": [{"name": "x", "text": ["~/c"]}]}})
    assert data.sources[0].text == ("/home/me/c",)


@pytest.mark.parametrize(
    "name", ["../../escaped", "a/b", "", "/tmp/x", ".", "..", "a b", "a.b", "x" * 101, "a\n", "~", "*"]
)
def test_the_name_of_a_source_is_no_path(name: str) -> None:
    with pytest.raises(BadValue, match="use letters, digits, - and _"):
        data_config({"data": {"sources": [{"name": name, "text": ["a.txt"]}]}})


def test_a_source_without_a_path_is_refused() -> None:
    for text, said in (
        ([], "names no text"),
        ([""], "path of a text is empty"),
        (["a", ""], "path of a text is empty"),
    ):
        with pytest.raises(BadValue, match=said):
            data_config({"text": text})
