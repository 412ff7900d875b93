from __future__ import annotations

import pytest

from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.prompt import build_prompt, make_span
from fewshot.evaluate.protocol import GPT3, HARNESS
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.table import make_task
from fewshot.tokenizer.bpe import load_gpt2


def make(kind: str = "complete", **fields) -> Task:
    return Task(name="t", kind=kind, episodes=lambda n, shots, seed: [], metrics=(), source="test", **fields)


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
    bare = build_prompt(tokenizer, make(**fields, protocol=HARNESS), EPISODE, shots=shots, n_ctx=200)
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
    found = make_span(tokenizer, GPT3, context, completion)
    assert found.tokens == (tokenizer.eot, *tokenizer.encode(context + completion))
    assert [tokenizer.decode([one]) for one in found.tokens[found.start :]] == scored


def test_the_harness_moves_closing_white_space_and_starts_an_empty_prompt_with_eot(small_tokenizer):
    tokenizer = small_tokenizer()
    found = make_span(tokenizer, HARNESS, "It is\n ", "hot")
    assert tokenizer.decode(found.tokens) == "It is\n hot"
    assert tokenizer.decode(found.tokens[found.start :]) == "\n hot"
    assert make_span(tokenizer, HARNESS, "", "hot").tokens == (tokenizer.eot, *tokenizer.encode("hot"))


def test_the_harness_cuts_the_beginning_of_a_prompt_that_is_too_long(small_tokenizer):
    tokenizer = small_tokenizer()
    whole = build_prompt(tokenizer, make("choose", protocol=HARNESS), EPISODE, shots=3, n_ctx=999)
    cut = build_prompt(tokenizer, make("choose", protocol=HARNESS), EPISODE, shots=3, n_ctx=30)
    assert (cut.shots, cut.text) == (1, "kyo\nOman -> Muscat\nPeru ->")  # what the model reads
    assert (whole.shots, whole.text) == (3, "Italy -> Rome\nJapan -> Tokyo\nOman -> Muscat\nPeru ->")
    assert cut.spans[0].tokens == whole.spans[0].tokens[-31:]  # the last one is not read
    assert cut.spans[0].tokens[cut.spans[0].start :] == whole.spans[0].tokens[whole.spans[0].start :]
    writing = build_prompt(tokenizer, make(protocol=HARNESS, max_answer_tokens=9), EPISODE, shots=3, n_ctx=30)
    assert writing.tokens == whole.tokens[-21:]
    assert (writing.shots, writing.text) == (0, "man -> Muscat\nPeru ->")
    full = make(protocol=HARNESS, max_answer_tokens=30)
    assert build_prompt(tokenizer, full, EPISODE, shots=3, n_ctx=30) is None


@pytest.mark.parametrize("kind", ["choose", "complete", "perplexity"])
@pytest.mark.parametrize("delimiter", ["\n", "\n\n", ""])
def test_a_cut_prompt_counts_the_demonstrations_that_are_whole_in_what_is_read(small_tokenizer, kind, delimiter):
    tokenizer = small_tokenizer()
    task = make(kind, protocol=HARNESS, delimiter=delimiter, description="Name it.", max_answer_tokens=5)
    whole = build_prompt(tokenizer, task, EPISODE, shots=3, n_ctx=999)
    texts = [one.demonstration + delimiter for one in EPISODE.demonstrations]
    for n_ctx in range(9, 80):
        cut = build_prompt(tokenizer, task, EPISODE, shots=3, n_ctx=n_ctx)
        assert whole.text.endswith(cut.text)
        assert cut.shots == sum("".join(texts[k:]) + "Peru ->" in cut.text for k in range(3))
    assert (cut.text, cut.shots) == (whole.text, 3)


@pytest.mark.parametrize("n_ctx", [1, 3, 4, 7, 22, 23, 50])
def test_a_rolling_text_scores_each_token_once_and_fills_its_last_window(small_tokenizer, n_ctx):
    tokenizer, text = small_tokenizer(), "a text in many windows"
    prompt = build_prompt(tokenizer, make("rolling"), Episode(Example("t", "", (text,))), shots=0, n_ctx=n_ctx)
    assert "".join(tokenizer.decode(one.tokens[one.start :]) for one in prompt.spans) == text
    assert {len(one.tokens) for one in prompt.spans} == {min(n_ctx, len(text)) + 1}
    assert prompt.spans[0].tokens[0] == tokenizer.eot


def test_with_gpt2s_bpe_a_word_keeps_its_space_and_a_prompt_is_one_running_text(shared_data):
    tokenizer = load_gpt2(shared_data / "vocab" / "gpt2")
    for context, completion in (("It is", " hot"), ("It is ", "hot")):
        found = make_span(tokenizer, GPT3, context, completion)
        assert tokenizer.decode(found.tokens[found.start :]) == " hot"
    task = make_task("arithmetic_2d_add")
    prompt = build_prompt(tokenizer, task, task.episodes(1, 9, 0)[0], shots=9, n_ctx=2048)
    shown = "".join(one.demonstration for one in task.episodes(1, 9, 0)[0].demonstrations)
    assert prompt.tokens == (tokenizer.eot, *tokenizer.encode(shown + prompt.example.context))
    assert prompt.shots == 9
