"""MultiRC and ReCoRD of SuperGLUE: passages with questions. In: their folders of JSON lines. Out: tasks of choosing.

Source: Khashabi et al. 2018, Zhang et al. 2018, Wang et al. 2019; Brown et al. 2020, section 3.7, figures G.6 and G.15;
the harness's forms lm_eval 0.4.13, tasks/super_glue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from fewshot.base.errors import check
from fewshot.evaluate.data.files import Data, DataFile, Row, require_data
from fewshot.evaluate.data.passages import Separate, passage_splits
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.example import Example
from fewshot.evaluate.metrics.question_answering import all_right, chosen_text, class_f1, exact, token_f1
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
from fewshot.evaluate.tasks.form import ACC, Form, form_of
from fewshot.evaluate.tasks.superglue import SHOTS, sentence

# ---- MultiRC

MULTIRC_FILES = ("MultiRC/val.jsonl",)
MULTIRC_PASSAGE = {
    "text": str,
    "questions": [
        {
            "question": str,
            "idx": ID,
            "answers": [{"text": str, "label": OneOf((0, 1)), "idx": ID}],
        }
    ],
}


@dataclass(frozen=True)
class MultiRCPassage:
    """A passage of MultiRC: evaluated answer by answer, a demonstration for each question with all answers judged."""

    text: str
    rows: tuple[Row, ...]

    @property
    def questions(self) -> list[Example]:
        """Every answer of every question; those of a question are one group."""
        return [self._example(row, answer) for row in self.rows for answer in row["answers"]]

    @property
    def demonstrations(self) -> list[Example]:
        """Every question with all its answers, and a line break that sets it off from the next."""
        return [
            Example(
                str(row["idx"]),
                self._question(row),
                tuple(_judged(answer, bool(answer["label"])) for answer in row["answers"]),
                as_demonstration=self._question(row)
                + "".join(f"{_judged(answer, bool(answer['label']))}\n" for answer in row["answers"]),
            )
            for row in self.rows
        ]

    def _question(self, row: Row) -> str:
        return f"{self.text.strip()}\n\n{row['question'].strip()}\n"

    def _example(self, row: Row, answer: Row) -> Example:
        judgements = (_judged(answer, True), _judged(answer, False))
        name, question = f"{row['idx']}:{answer['idx']}", self._question(row)
        return Example(name, question, judgements, 0 if answer["label"] else 1, group=str(row["idx"]))


def _judged(answer: Row, right: bool) -> str:
    return f"- [{right}] {answer['text'].strip()}"


def read_multirc(file: DataFile) -> list[MultiRCPassage]:
    """Return the passages of a file."""

    def parse(number: int, row: Row) -> MultiRCPassage:
        passage = MultiRCPassage(row["passage"]["text"], tuple(row["passage"]["questions"]))
        _ = passage.questions, passage.demonstrations  # raises here, with the line, where a value is wrong
        return passage

    return file.parse_rows(parse, passage=MULTIRC_PASSAGE)


def read_multirc_as_harness(file: DataFile) -> list[Separate]:
    """Return the passages of a file, every answer a question by itself: yes or no, in the harness's order."""

    def parse(number: int, row: Row) -> Separate:
        return Separate(
            tuple(
                _multirc_as_harness(row["passage"]["text"], question, answer)
                for question in row["passage"]["questions"]
                for answer in question["answers"]
            )
        )

    return file.parse_rows(parse, passage=MULTIRC_PASSAGE)


def _multirc_as_harness(passage: str, question: Row, answer: Row) -> Example:
    choices = tuple(f" {answer['text']}\nIs the answer correct? {word}" for word in ("yes", "no"))
    text = f"{passage}\nQuestion: {question['question']}\nAnswer:"
    return Example(f"{question['idx']}:{answer['idx']}", text, choices, int(answer["label"]))


def _chance_of_all(examples: Sequence[Example]) -> float:
    """Return the share of questions all of whose answers a guess judges right."""
    n_answers = Counter(example.group for example in examples)
    return sum(0.5**n for n in n_answers.values()) / len(n_answers)


MULTIRC_FORMS = {
    GPT3: Form(
        read=read_multirc,
        metrics=(all_right(), class_f1("f1a", (0,))),
        episodes=lambda name, splits: splits.episodes(name, GPT3, fixed=True),
        description="READING COMPREHENSION ANSWER KEY",
        delimiter="\n",
        chance=_chance_of_all,
    ),
    HARNESS: Form(
        read=read_multirc_as_harness,
        metrics=ACC,
        chance=0.5,
        notes=(
            "the harness lists its choices as yes, no but its labels as wrong, right: its acc, and so this one, counts "
            "wrong choices as right",
        ),
    ),
}


def make_multirc(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return MultiRC on its validation file; in the paper's form all questions have the same demonstrations."""
    form, data = form_of("multirc", MULTIRC_FORMS, protocol), require_data("multirc", data, *MULTIRC_FILES)
    training = ("MultiRC/train.jsonl",)
    splits = passage_splits("multirc", data, form.read, files=MULTIRC_FILES, training=training, protocol=protocol)
    return form.task("multirc", protocol, splits, paper_name="MultiRC", default_shots=SHOTS)


# ---- ReCoRD

RECORD_FILES = ("ReCoRD/val.jsonl",)
RECORD_PASSAGE = {"text": str, "entities": [{"start": int, "end": int}]}
RECORD_QUERY = {"query": str, "idx": ID, "answers": [{"text": str}]}
HIGHLIGHT = "\n@highlight\n"  # stands before each of an article's summary lines
PLACEHOLDER = "@placeholder"


@dataclass(frozen=True, kw_only=True)
class RecordStyle:
    """How a form writes ReCoRD's articles."""

    article: Callable[[str], str]
    highlight: Callable[[str], str]  # a line of the summary
    before_choice: str
    order: Callable[[list[str]], list[str]]  # of the entities, and of the right answers


PAPER_STYLE = RecordStyle(
    article=str.strip,
    highlight=lambda line: f"- {sentence(line.strip())}\n",
    before_choice="- ",
    order=list,
)
HARNESS_STYLE = RecordStyle(
    article=str,
    highlight=lambda line: f"  - {line}.\n",
    before_choice="   - ",  # two spaces of the harness's choice, one of its delimiter
    order=sorted,
)


@dataclass(frozen=True)
class Article:
    """An article of ReCoRD with the entities that it names, and queries that lack one of them."""

    text: str
    entities: tuple[str, ...]
    queries: tuple[Row, ...]
    style: RecordStyle

    @property
    def questions(self) -> list[Example]:
        """Every query, the choices being the query with each entity filled in."""
        return [self._example(row) for row in self.queries]

    @property
    def demonstrations(self) -> list[Example]:
        """Every query with a right entity alone, as a training file's choices would fill the memory."""
        return [Example(query.id, query.context, (query.completions[query.gold],)) for query in self.questions]

    def _example(self, row: Row) -> Example:
        answers = [answer["text"] for answer in row["answers"]]
        gold, *also_right = [self.entities.index(answer) for answer in dict.fromkeys(self.style.order(answers))]
        choices = tuple(
            self.style.before_choice + row["query"].replace(PLACEHOLDER, entity) for entity in self.entities
        )
        return Example(
            str(row["idx"]), self._context(), choices, gold, also_right=tuple(also_right), references=self.entities
        )

    def _context(self) -> str:
        article, *highlights = self.text.strip().split(HIGHLIGHT)
        return f"{self.style.article(article)}\n\n" + "".join(map(self.style.highlight, highlights))


def read_record(file: DataFile, *, style: RecordStyle) -> list[Article]:
    """Return the articles of a file, each entity once."""

    def parse(number: int, row: Row) -> Article:
        text = row["passage"]["text"]
        named = [_mention(text, entity["start"], entity["end"]) for entity in row["passage"]["entities"]]
        entities = tuple(dict.fromkeys(style.order(named)))
        article = Article(text, entities, tuple(row["qas"]), style)
        _ = article.questions  # raises here, with the line, where a value is wrong
        return article

    return file.parse_rows(parse, passage=RECORD_PASSAGE, qas=[RECORD_QUERY])


def _mention(text: str, start: int, end: int) -> str:
    check(0 <= start <= end < len(text), f"an entity stands at {start} to {end} of a text of {len(text)} letters")
    return text[start : end + 1]


def _chance_of_query(examples: Sequence[Example]) -> float:
    """Return the share of queries to which a guess among the entities is right."""
    return sum((1 + len(query.also_right)) / len(query.completions) for query in examples) / len(examples)


RECORD_FORMS = {
    GPT3: Form(
        read=partial(read_record, style=PAPER_STYLE),
        metrics=(chosen_text("accuracy", exact), chosen_text("f1", token_f1)),
        chance=_chance_of_query,
    ),
    HARNESS: Form(
        read=partial(read_record, style=HARNESS_STYLE),
        metrics=(chosen_text("f1", token_f1, "sum"), chosen_text("em", exact, "sum")),
    ),
}


def make_record(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return ReCoRD on its validation file."""
    form, data = form_of("record", RECORD_FORMS, protocol), require_data("record", data, *RECORD_FILES)
    training = ("ReCoRD/train.jsonl",)
    splits = passage_splits("record", data, form.read, files=RECORD_FILES, training=training, protocol=protocol)
    return form.task("record", protocol, splits, paper_name="ReCoRD", default_shots=SHOTS)


TASKS = {"multirc": make_multirc, "record": make_record}
