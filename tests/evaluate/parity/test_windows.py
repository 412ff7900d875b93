"""`--protocol lm-eval`, and our bridge, against lm-evaluation-harness itself where a text is longer than n_ctx."""

from __future__ import annotations

import pytest

from fewshot.bench.harness import write_rows


def wikitext(made, n, path):
    """Articles of a few words to a few hundred, split into words as the raw file has them."""
    pages = []
    for _ in range(n):
        lines = [f" = {made.words(1, 3)} = ", " "]
        for _ in range(made.choice([1, 2, 9])):
            lines += [f" = = {made.words(1, 2)} = = ", " "] if made.random() < 0.3 else []
            lines += [f" {split_into_words(made)} ", " "]
        pages.append("\n".join(lines))
    path.write_text("\n".join([" ", *pages]), encoding="utf-8")
    return [{"page": page} for page in pages]


def split_into_words(made):
    marks = [" , ", " . ", " ; ", " : ", " ! ", " ? ", " @-@ ", " @,@ ", " @.@ ", ' " a dog " ', " ( or a cat ) ",
             " [ 7 ] ", " dogs ' ", " it 's ", " ° ", " N ", " { x } "]  # fmt: skip
    return "".join(made.words(2, 6) + made.choice(marks) for _ in range(made.randint(2, 8)))


def boolq(made, n, path):
    rows = [
        {"passage": made.text(), "question": made.words(3, 6), "label": made.randrange(2), "idx": i} for i in range(n)
    ]
    write_rows(path, [{**row, "label": bool(row["label"])} for row in rows])
    return rows


def nq_open(made, n, path):
    rows = [{"question": made.words(3, 60), "answer": [made.words(1, 2)]} for _ in range(n)]
    write_rows(path, rows)
    return rows


def lambada(made, n, path):
    rows = [{"text": made.words(4, 80)} for _ in range(n)]
    write_rows(path, rows)
    return rows


BOOLQ = {"validation": "BoolQ/val.jsonl", "train": "BoolQ/train.jsonl"}
NQ = {"validation": "NQ-open.dev.jsonl", "train": "NQ-open.train.jsonl"}
WIKITEXT = {"test": "wiki.test.raw", "train": "wiki.train.raw"}
CASES = {
    "boolq": ("super_glue/boolq/default.yaml", BOOLQ, boolq),
    "nq_open": ("nq_open/nq_open.yaml", NQ, nq_open),
    "lambada": ("lambada/lambada_openai.yaml", {"test": "lambada_test.jsonl"}, lambada),
    "wikitext": ("wikitext/wikitext.yaml", WIKITEXT, wikitext),
}


@pytest.mark.parametrize(("name", "n_ctx"), [("boolq", 50), ("nq_open", 32), ("lambada", 32), ("lambada", 50)])
def test_a_prompt_that_does_not_fit_is_cut_where_the_harness_cuts_it(parity, name, n_ctx):
    answered = parity(name, *CASES[name], shots=3, n_ctx=n_ctx)
    assert max(prompt.n_tokens for prompt in answered.prompts) in (n_ctx - 20, n_ctx + 1)  # an answer's room or none


@pytest.mark.parametrize("n_ctx", [40, 512])
def test_a_text_of_many_windows_has_the_harnesss_perplexity(parity, n_ctx):
    answered = parity("wikitext", *CASES["wikitext"], shots=0, n_ctx=n_ctx)
    longest = max(sum(answer.n_tokens) for answer in answered.answers)
    assert longest > 5 * 40


@pytest.mark.parametrize(("name", "shots"), [("boolq", 3), ("nq_open", 0), ("lambada", 3), ("wikitext", 0)])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_our_bridge_answers_the_harness_as_its_own_model_class_does(bridged, name, shots, batch_size):
    ours, theirs = bridged(*CASES[name], shots=shots, n_ctx=60, batch_size=batch_size)
    assert ours["scores"] == pytest.approx(theirs["scores"], rel=1e-6)
    for one, other in zip(ours["samples"], theirs["samples"], strict=True):
        if name == "nq_open":
            assert one["filtered_resps"] == other["filtered_resps"]
        else:
            for said, expected in zip(one["filtered_resps"], other["filtered_resps"], strict=True):
                assert numbers(said) == pytest.approx(numbers(expected), rel=1e-6, abs=1e-4)


def numbers(answer):
    """A log-probability with whether it is that of the greedy answer, or one alone."""
    return [float(part) for part in (answer if isinstance(answer, (tuple, list)) else [answer])]


def test_the_hubs_articles_are_those_of_the_original_file(from_hub):
    from_hub("wikitext", *CASES["wikitext"])
