"""Penn Treebank: perplexity of its test text. In: Mikolov's file. Out: one task of reading.

Source: Marcus et al. 1994, Mikolov et al. 2010; Brown et al. 2020, section 3.1.1.
"""

from __future__ import annotations

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, Found, needed
from fewshot.evaluate.data.splits import refuse_harness
from fewshot.evaluate.example import Episode, Example
from fewshot.evaluate.metrics.metric import perplexity
from fewshot.evaluate.protocol import GPT3, EvalProtocol
from fewshot.evaluate.task import Task

PTB_FILE = "ptb.test.txt"


def read_ptb(file: Found) -> Example:
    """Return the whole text, a sentence a line: they run on, so one is read with the sentences before it."""
    lines = [line.strip() for line in file.text().splitlines() if line.strip()]
    if not lines:
        raise BadFile(f"{file} holds no text")
    return Example(file.short, "", ("\n".join(lines),))


def make_ptb(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return word perplexity of the test text; the paper reports it without demonstrations."""
    refuse_harness("ptb", protocol)
    file = needed("ptb", data, PTB_FILE).need("ptb", PTB_FILE)
    episode = Episode(read_ptb(file))
    return Task(
        name="ptb",
        paper_name="PTB",
        kind="rolling",
        metrics=(perplexity("word"),),
        episodes=lambda n, max_shots, seed: [episode],
        source=file.short,
        notes=(
            "the text as the file has it, with its <unk> and N: how the paper undid its tokenisation is not known",
            "line breaks are predicted and not counted as words; the text is one question, so its interval is a point",
        ),
    )


TASKS = {"ptb": make_ptb}
