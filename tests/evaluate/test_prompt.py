from __future__ import annotations

import pytest

from fewshot.base.errors import BadValue
from fewshot.evaluate.prompt import build_prompt, span
from fewshot.evaluate.task import Episode, Example, Task
from fewshot.evaluate.tasks.table import make_task
from fewshot.tokenizer.bpe import load_gpt2


def make(kind: str = "complete", **fields) -> Task:
    return Task(name="t", kind=kind, episodes=lambda n, shots, seed: [], source="test", **fields)


def capital(country: str, city: str) -> Example:
    return Example(country, f"{country} ->", (f" {city}",))


EPISODE = Episode(
    capital("Peru", "Lima"), (capital("Italy", "Rome"), capital("Japan", "Tokyo"), capital("Oman", "Muscat"))
)


@pytest.mark.parametrize(
    ("shots", "fields", "expected"),
    [
        (0, {}, "Peru ->"),
        (0, {"description": "Name the capital."}, "Name the capital.\nPeru ->"),
        (1, {}, "Italy -> Rome\nPeru ->"),
        (2, {"delimiter": "\n\n"}, "Italy -> Rome\n\nJapan -> Tokyo\n\nPeru ->"),
        (9, {"description": "C:"}, "C:\nItaly -> Rome\nJapan -> Tokyo\nOman -> Muscat\nPeru ->"),
    ],
)
def test_a_prompt_is_exactly_this_text(small_tokenizer, shots, fields, expected):
    tokenizer = small_tokenizer()
    prompt = build_prompt(tokenizer, make(**fields), EPISODE, shots=shots, n_ctx=200)
    assert prompt.text == expected
    assert prompt.tokens == (tokenizer.eot, *tokenizer.encode(expected))
    assert prompt.shots == min(shots, 3)
    bare = build_prompt(tokenizer, make(**fields), EPISODE, shots=shots, n_ctx=200, start_with_eot=False)
    assert bare.tokens == prompt.tokens[1:]


@pytest.mark.parametrize("kind", ["choose", "complete"])
def test_as_many_whole_demonstrations_as_fit_and_none_cut(small_tokenizer, kind):
    tokenizer, task = small_tokenizer(), make(kind, max_answer_tokens=len(" Lima"))
    by_k = [build_prompt(tokenizer, task, EPISODE, shots=k, n_ctx=999) for k in range(4)]
    needed = [len(prompt.tokens) + len(" Lima") for prompt in by_k]
    for n_ctx in range(needed[0], needed[3] + 5):
        prompt = build_prompt(tokenizer, task, EPISODE, shots=3, n_ctx=n_ctx)
        assert prompt == by_k[max(k for k in range(4) if needed[k] <= n_ctx)]
    assert build_prompt(tokenizer, task, EPISODE, shots=3, n_ctx=needed[0] - 1) is None


def test_room_is_kept_for_the_longest_choice(small_tokenizer):
    question = Example("q", "Q", (" a", " a far longer choice"))
    n_tokens = 1 + len("Q a far longer choice")
    assert build_prompt(small_tokenizer(), make("choose"), Episode(question), shots=0, n_ctx=n_tokens) is not None
    assert build_prompt(small_tokenizer(), make("choose"), Episode(question), shots=0, n_ctx=n_tokens - 1) is None


def test_spans_score_the_completion_alone(small_tokenizer):
    tokenizer = small_tokenizer()
    question = Example("q", "It is", (" hot", " cold"), 1)
    prompt = build_prompt(tokenizer, make("choose"), Episode(question, (question,)), shots=1, n_ctx=99)
    assert [tokenizer.decode(one.tokens[1 : one.start]) for one in prompt.spans] == ["It is cold\nIt is"] * 2
    assert [tokenizer.decode(one.tokens[one.start :]) for one in prompt.spans] == [" hot", " cold"]


def test_partial_scoring_scores_the_same_end_after_each_context(small_tokenizer):
    tokenizer = small_tokenizer()
    question = Example("q", "", (" fell.", " fell."), 1, contexts=("The cat", "The rain"))
    prompt = build_prompt(tokenizer, make("choose"), Episode(question), shots=0, n_ctx=99)
    assert [tokenizer.decode(one.tokens[1:]) for one in prompt.spans] == ["The cat fell.", "The rain fell."]
    assert {tokenizer.decode(one.tokens[one.start :]) for one in prompt.spans} == {" fell."}


def test_the_zero_shot_form_stands_alone_and_only_without_demonstrations(small_tokenizer):
    plain = Example("q", "my friend", (" Bob",))
    cloze = Example("q", "my friend ____. ->", (" Bob",), zero_shot=plain)
    task = make("perplexity", description="Fill in blank:", delimiter="\n\n")
    texts = [build_prompt(small_tokenizer(), task, Episode(cloze, (cloze,)), shots=k, n_ctx=999).text for k in (0, 1)]
    assert texts[0] == "my friend"
    assert texts[1] == "Fill in blank:\n\nmy friend ____. -> Bob\n\nmy friend ____. ->"


@pytest.mark.parametrize(
    ("merges", "context", "completion", "scored"),
    [
        ((" hot",), "It is", " hot", [" hot"]),
        ((" hot",), "It is ", "hot", [" hot"]),  # the context's last space goes to the completion's first token
        (("oh",), "ho", "hoho", ["oh", "oh", "o"]),  # merges across the border
        ((), "It is ", "hot", ["h", "o", "t"]),
    ],
)
def test_completion_tokens_begin_where_the_joint_text_differs(small_tokenizer, merges, context, completion, scored):
    tokenizer = small_tokenizer(*merges)
    found = span(tokenizer, context, completion, (tokenizer.eot,))
    assert found.tokens == (tokenizer.eot, *tokenizer.encode(context + completion))
    assert [tokenizer.decode([one]) for one in found.tokens[found.start :]] == scored


def test_a_completion_with_nothing_before_it_is_refused(small_tokenizer):
    with pytest.raises(BadValue, match="at least one must stand before"):
        span(small_tokenizer(), "", "text", ())


def test_with_gpt2s_bpe_a_word_keeps_its_space_and_a_prompt_is_one_running_text(shared_data):
    tokenizer = load_gpt2(shared_data / "vocab" / "gpt2")
    for context, completion in (("It is", " hot"), ("It is ", "hot")):
        found = span(tokenizer, context, completion, (tokenizer.eot,))
        assert tokenizer.decode(found.tokens[found.start :]) == " hot"
    task = make_task("arithmetic_2d_add")
    prompt = build_prompt(tokenizer, task, task.episodes(1, 9, 0)[0], shots=9, n_ctx=2048)
    shown = "".join(one.demonstration for one in task.episodes(1, 9, 0)[0].demonstrations)
    assert prompt.tokens == (tokenizer.eot, *tokenizer.encode(shown + prompt.example.context))
    assert prompt.shots == 9
