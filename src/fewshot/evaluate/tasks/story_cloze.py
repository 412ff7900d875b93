"""StoryCloze: the right end of a story of five sentences. In: its files of 2016. Out: one task of choosing.

Source: Mostafazadeh et al. 2016; Brown et al. 2020, section 3.1.4.
"""

from __future__ import annotations

import csv
import io

from fewshot.base.errors import BadFile
from fewshot.evaluate.data.files import Data, DataFile, require_data
from fewshot.evaluate.data.splits import Splits, find_split, require_split
from fewshot.evaluate.example import Example
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC, ACCURACY, Form, form_of

TEST_FILE = "cloze_test_test__spring2016 - cloze_test_ALL_test.csv"
VALIDATION_FILE = "cloze_test_val__spring2016 - cloze_test_ALL_val.csv"
SENTENCES = tuple(f"InputSentence{number}" for number in (1, 2, 3, 4))
ENDINGS = ("RandomFifthSentenceQuiz1", "RandomFifthSentenceQuiz2")
COLUMNS = ("InputStoryid", *SENTENCES, *ENDINGS, "AnswerRightEnding")
FORMS = {GPT3: Form(metrics=ACCURACY), HARNESS: Form(metrics=ACC)}


def read_story_cloze(file: DataFile) -> list[Example]:
    """Return the stories of a table with a line of titles: four sentences, two endings, the number of the right one."""
    try:
        rows = list(csv.DictReader(io.StringIO(file.text(), newline="")))
    except csv.Error as error:
        raise BadFile(f"{file} is not a table of comma-separated values: {error}") from None
    if not rows:
        raise BadFile(f"{file} holds no stories")
    examples = []
    for number, row in enumerate(rows, start=1):
        if not all(row.get(column) for column in COLUMNS) or row["AnswerRightEnding"] not in ("1", "2"):
            raise BadFile(f"{file} story {number} must have {', '.join(COLUMNS)}, the last 1 or 2")
        story = " ".join(row[sentence] for sentence in SENTENCES)
        endings = tuple(f" {row[ending]}" for ending in ENDINGS)
        examples.append(Example(row["InputStoryid"], story, endings, gold=int(row["AnswerRightEnding"]) - 1))
    return examples


def make_story_cloze(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return StoryCloze on its test set; demonstrations are from the validation set: no training set has endings."""
    data = require_data("story_cloze", data, TEST_FILE)
    splits = Splits(
        require_split("story_cloze", data, read_story_cloze, TEST_FILE),
        dev=find_split(data, read_story_cloze, VALIDATION_FILE),
    )
    form = form_of("story_cloze", FORMS, protocol)
    return form.task("story_cloze", protocol, splits, paper_name="StoryCloze", default_shots=70, chance=0.5)


TASKS = {"story_cloze": make_story_cloze}
