"""WSC of SuperGLUE: what a pronoun refers to. In: its folder of JSON lines. Out: a free-form task, or one of choosing.

In the paper's form the model writes the noun, and all questions see one set of demonstrations. A written noun that is
the row's own means "the pronoun refers to it", any other "it does not". Source: Levesque et al. 2012, Wang et al. 2019;
Brown et al. 2020, section 3.7 and figure G.33; the comparison of nouns Raffel et al. 2020 (T5).
"""

from __future__ import annotations

import re

from fewshot.evaluate.data.files import Data, DataFile, Row, require_data
from fewshot.evaluate.data.passages import in_folder
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.demonstrations import drawn_episodes, kept_apart
from fewshot.evaluate.example import DrawEpisodes, Example
from fewshot.evaluate.metrics.metric import judged
from fewshot.evaluate.metrics.normalise import first_line
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC, Form, form_of
from fewshot.evaluate.tasks.superglue import SHOTS

FILES = ("WSC/val.jsonl",)
SCHEMAS: Row = {
    "text": str,
    "target": {"span1_text": str, "span1_index": int, "span2_text": str, "span2_index": int},
    "label": OneOf((False, True)),
    "idx": ID,
}
DESCRIPTION = (
    "Final Exam with Answer Key\n"
    "Instructions: Please carefully read the following passages. For each passage, you must identify which noun the "
    "pronoun marked in *bold* refers to.\n====="
)

_APART = re.compile(r" ('s\b|n't\b|[.,;:?!)])")  # what the file separates with a space, as in "Edward 's allowance ."
_HARNESS_APART = re.compile(r" (['.,])")
_DETERMINERS = "a an few her his each every many much my our some that the their these this those which whose your"


def read_wsc(file: DataFile) -> list[Example]:
    """Return the passages of a file with the paper's question; the completion is the noun that the row names.

    `references` is whether the pronoun refers to that noun: only then can it be a demonstration.
    """

    def example(_: int, row: Row) -> Example:
        passage = _APART.sub(r"\1", marked_pronoun(row)).replace("( ", "(").strip()
        question = f'In the passage above, what does the pronoun "*{row["target"]["span2_text"]}*" refer to?'
        prompt = f"Passage: {passage}\nQuestion: {question}\nAnswer:"
        noun = f" {row['target']['span1_text'].lower()}"  # figure G.33 has "mr. moncrieff"
        right = bool(row["label"])
        return Example(str(row["idx"]), prompt, (noun,), as_demonstration=f"{prompt}{noun}\n", references=right)

    return file.parse_rows(example, **SCHEMAS)


def read_wsc_as_harness(file: DataFile) -> list[Example]:
    """Return the passages of a file with the harness's question, whether the pronoun refers to the noun: no or yes."""

    def example(_: int, row: Row) -> Example:
        pronoun, noun = row["target"]["span2_text"], noun_in_text(row)
        question = f'In the passage above, does the pronoun "*{pronoun}*" refer to "*{noun}*"?'
        prompt = f"Passage: {_joined_as_harness(marked_pronoun(row))}\nQuestion: {question}\nAnswer:"
        return Example(str(row["idx"]), prompt, (" no", " yes"), int(row["label"]))

    return file.parse_rows(example, **SCHEMAS)


def marked_pronoun(row: Row) -> str:
    """Return the row's text with its pronoun between asterisks; the row gives the number of a word at or before it."""
    text, pronoun = row["text"], row["target"]["span2_text"]
    begins = [word.start() for word in re.finditer(r"\S+", text)]
    at = text.index(pronoun, begins[row["target"]["span2_index"]])
    return f"{text[:at]}*{pronoun}*{text[at + len(pronoun) :]}"


def noun_in_text(row: Row) -> str:
    """Return the row's noun in the text's own case, as the corrected copy has it that the harness reads."""
    text, noun = row["text"], row["target"]["span1_text"]
    if noun in text:
        return str(noun)
    first = text.split()[row["target"]["span1_index"]]
    noun = noun[0].lower() + noun[1:] if first[0].islower() else noun[0].upper() + noun[1:]
    return str(noun).rstrip(".").replace("\n", " ")


def _joined_as_harness(text: str) -> str:
    """Return the text without the spaces that the harness removes. Source: lm_eval 0.4.13, general_detokenize."""
    for apart, together in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        text = text.replace(apart, together)
    return _HARNESS_APART.sub(r"\1", text)


def same_noun(written: str, noun: str) -> bool:
    """Return whether the words of either, without determiners, are among the other's, if both or neither is possessive.

    Source: Raffel et al. 2020, the official evaluation of T5.
    """
    written_words, right_words = (
        {word for word in text.strip(" .,;:!?").lower().split() if word not in _DETERMINERS.split()}
        for text in (written, noun)
    )
    if not written_words or ("'" in written) != ("'" in noun):
        return False
    return written_words <= right_words or right_words <= written_words


def _judge(text: str, example: Example) -> float:
    return float(same_noun(first_line(text), example.completions[0]) is example.references)


def _episodes(name: str, splits: Splits) -> DrawEpisodes:
    """Return episodes that all have the same demonstrations, of rows whose noun is the right one."""
    examples = splits.evaluated.examples
    evaluated, rest = (examples, splits.training.examples) if splits.training else kept_apart(name, examples)
    return drawn_episodes(name, evaluated, [example for example in rest if example.references], fixed=True)


FORMS = {
    GPT3: Form(
        read=read_wsc,
        kind="complete",
        metrics=(judged("accuracy", _judge, share=True),),
        episodes=_episodes,
        description=DESCRIPTION,
        delimiter="\n",
        max_answer_tokens=16,
        notes=(
            "any other noun than the row's counts as 'no': on the validation file an empty answer is right in 63.5%",
            "demonstrations are rows whose noun is the right one, because other rows do not say what the right one is",
        ),
    ),
    HARNESS: Form(read=read_wsc_as_harness, metrics=ACC, chance=0.5),
}


def make_wsc(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return WSC on its validation file."""
    form, data = form_of("wsc", FORMS, protocol), require_data("wsc", data, *FILES)
    file = data.require("wsc", *FILES)
    training = data.beside(file, "train.jsonl")
    splits = Splits(
        Split(in_folder(file, FILES[0]), form.read(file)),
        Split(training.short, form.read(training)) if training else None,
        harness_excludes=True,
    )
    return form.task("wsc", protocol, splits, paper_name="WSC", default_shots=SHOTS)


TASKS = {"wsc": make_wsc}
