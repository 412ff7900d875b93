"""Penn Treebank: perplexity of its test text. In: Mikolov's file. Out: one task of reading.

Source: Marcus et al. 1994, Mikolov et al. 2010; Brown et al. 2020, section 3.1.1.
"""

from __future__ import annotations

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, DataFile, require_data
from fewshot.evaluate.data.splits import Split, Splits
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.metrics.metric import perplexity
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import Form, form_of

PTB_FILE = "ptb.test.txt"


def read_ptb(file: DataFile) -> Example:
    """Return the whole text, a sentence a line: it is one example, so that a sentence follows those before it."""
    lines = [line.strip() for line in file.text().splitlines() if line.strip()]
    if not lines:
        raise BadFile(f"{file} holds no text")
    return Example(file.short, "", ("\n".join(lines),))


FORMS = {
    GPT3: Form(
        kind="rolling",
        metrics=(perplexity("word"),),
        episodes=lambda name, splits: lambda n, max_shots, seed: [Episode(splits.evaluated.examples[0])],
        delimiter="\n",
        notes=(
            "the text is scored as in the file, with <unk> and N: how the paper undid the tokenisation is not known",
            "line breaks are predicted, not counted as words; the text is one question, so the interval has no width",
        ),
    )
}


def make_ptb(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return word perplexity of the test text; the paper reports it without demonstrations."""
    form = form_of("ptb", FORMS, protocol)
    file = require_data("ptb", data, PTB_FILE).require("ptb", PTB_FILE)
    splits = Splits(Split(file.short, [read_ptb(file)]))
    return form.task("ptb", protocol, splits, paper_name="PTB", source=file.short)


TASKS = {"ptb": make_ptb}
