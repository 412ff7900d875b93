"""Our bridge and the harness's own class, asked the same: they say the same, or neither answers."""

from __future__ import annotations

import sys

import pytest

from fewshot.base.errors import BadValue
from fewshot.cli.main import main

pytest.importorskip("lm_eval", reason="lm_eval is not installed: pip install 'fewshot[harness]'")

REFUSED = object()
OWN_FAILURES = (AssertionError, IndexError, ValueError, TypeError, AttributeError)

PAIRS = {
    "a word": ("Question: the dog", " runs"),
    "a closing space": ("Question: the dog ", "runs"),
    "two closing spaces": ("the dog  ", "runs over"),
    "a closing line break": ("the dog\n", "runs"),
    "a space alone": ("the dog", " "),
    "a line break alone": ("the dog", "\n"),
    "an empty context": ("", "the dog"),
    "an empty context, a space": ("", " the dog"),
    "nothing": ("the dog", ""),
    "nothing after a space": ("the dog ", ""),
    "nothing after nothing": ("", ""),
    "a context of spaces": ("  ", "the dog"),
    "half a word": ("the do", "g runs"),
    "a longer continuation than the context holds": ("the", " dog runs over the green tree" * 9),
    "a longer context": ("the dog runs over the green tree " * 9, " and house"),
    "letters of several bytes": ("naï", "ve “né”"),
}
SETTINGS = {
    "max_gen_toks": {"max_gen_toks": 3},
    "max_new_tokens": {"max_new_tokens": 2},
    "max_tokens": {"max_tokens": 4},
    "max_completion_tokens": {"max_completion_tokens": 5},
    "the first of several": {"max_completion_tokens": 9, "max_tokens": 7, "max_new_tokens": 6, "max_gen_toks": 2},
    "a number as text": {"max_new_tokens": "4"},
    "do_sample false": {"do_sample": False, "max_gen_toks": 6},
    "do_sample false with a temperature": {"do_sample": False, "temperature": 0.7, "max_gen_toks": 6},
    "temperature 0": {"temperature": 0.0, "max_gen_toks": 6},
    "temperature 0 as text": {"temperature": "0", "max_gen_toks": 6},
    "a stop": {"until": ".", "max_gen_toks": 20},
    "several stops": {"until": ["\n", " the", "?"], "max_gen_toks": 20},
    "no stop": {"until": [], "max_gen_toks": 6},
    "top_p under greedy": {"top_p": 0.5, "do_sample": False, "max_gen_toks": 6},
    "one beam": {"num_beams": 1, "max_gen_toks": 6},
    "no room for the prompt": {"max_gen_toks": 60},
    "more than the context": {"max_new_tokens": 600},
}


@pytest.fixture(scope="module")
def both(small_model):
    """(our bridge, the harness's own class) of one model with a context of 60."""
    from fewshot.evaluate.models.lm_eval import FewshotLM

    theirs = small_model[1]
    bridge = FewshotLM(path=f"hf:{theirs.pretrained}", batch_size=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bridge.loaded.lm, "n_ctx", 60)
        patch.setattr(theirs, "_max_length", 60)
        yield bridge, theirs


def asked(model, kind, *arguments):
    """What the model says to one request; REFUSED where it stops, ours with one line."""
    from lm_eval.api.instance import Instance

    request = Instance(request_type=kind, doc={}, arguments=arguments, idx=0)
    failures = BadValue if type(model).__name__ == "FewshotLM" else OWN_FAILURES
    try:
        (said,) = getattr(model, kind)([request])
    except failures:
        return REFUSED
    return said


@pytest.mark.parametrize("case", PAIRS)
def test_a_continuation_has_the_log_probability_of_the_harnesss_own_class(both, case):
    ours, theirs = (asked(model, "loglikelihood", *PAIRS[case]) for model in both)
    if theirs is REFUSED:
        assert ours is REFUSED
    else:
        assert ours[0] == pytest.approx(float(theirs[0]), abs=1e-4)
        assert ours[1] == theirs[1]


@pytest.mark.filterwarnings("ignore")  # the library warns of settings that have no effect
@pytest.mark.parametrize("case", SETTINGS)
def test_what_is_written_is_what_the_harnesss_own_class_writes(both, case):
    for context in ("Question: the dog", "the dog runs over the green tree " * 9):
        ours, theirs = (asked(model, "generate_until", context, dict(SETTINGS[case])) for model in both)
        assert ours == theirs, context


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"do_sample": True, "temperature": 0.7}, "decodes greedily: remove do_sample and temperature from gen_kwargs"),
        ({"temperature": 0.7}, "decodes greedily"),
        ({"num_beams": 4}, "num_beams is 4, --model fewshot decodes greedily"),
        ({"repetition_penalty": 1.3}, "knows no 'repetition_penalty' in gen_kwargs; allowed: "),
        ({"max_gen_toks": 0}, "max_gen_toks is 0, must be at least 1"),
        ({"max_new_tokens": "many"}, "gen_kwargs are not understood: "),
        ({"until": [""]}, "a stop text is empty"),
    ],
)
def test_settings_that_would_write_something_else_are_refused(both, settings, message):
    from lm_eval.api.instance import Instance

    request = Instance(request_type="generate_until", doc={}, arguments=("the dog", settings), idx=0)
    with pytest.raises(BadValue) as caught:
        both[0].generate_until([request])
    assert message in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--model fewshot --tasks arc_easy", "--model fewshot needs --model_args path=RUN"),
        pytest.param(
            "--model fewshot --model_args path=nowhere --tasks nosuchtask",
            "Tasks not found: nosuchtask",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_what_the_command_cannot_do_is_one_line(words, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fewshot"])
    assert main(["lm-eval", "run", *words.split()]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("fewshot: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_a_chat_template_is_refused(both):
    bridge = both[0]
    assert bridge.chat_template() == ""
    for ask in (
        lambda: bridge.chat_template(True),
        lambda: bridge.apply_chat_template([]),
        lambda: bridge.tokenizer_name,
    ):
        with pytest.raises(BadValue, match="--model fewshot has no chat template: remove --apply_chat_template"):
            ask()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pretrained": "x"}, "--model fewshot knows no 'pretrained'; allowed: path, batch_size"),
        ({"path": "x", "dtype": "float16"}, "--model fewshot knows no 'dtype'; allowed: path, batch_size"),
        ({"path": ""}, "--model fewshot needs --model_args path=RUN"),
        ({"path": "nowhere", "batch_size": "many"}, "batch_size is 'many'; give a number, or auto"),
    ],
)
def test_arguments_that_the_bridge_has_not_are_refused(arguments, message):
    from fewshot.evaluate.models.lm_eval import FewshotLM

    with pytest.raises(BadValue) as caught:
        FewshotLM(**arguments, device="cpu", max_batch_size=None)
    assert message in str(caught.value)
