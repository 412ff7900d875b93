"""MultiRC and ReCoRD of SuperGLUE: passages with questions. In: their folders of JSON lines. Out: tasks of choosing.

Source: Khashabi et al. 2018, Zhang et al. 2018, Wang et al. 2019; Brown et al. 2020, section 3.7, figures G.6 and G.15;
the harness's forms lm_eval 0.4.13, tasks/super_glue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fewshot.base.errors import check
from fewshot.evaluate.data.files import Data, Found, Row, needed
from fewshot.evaluate.data.passages import Separate, passage_splits
from fewshot.evaluate.data.schema import ID, OneOf
from fewshot.evaluate.data.splits import Splits
from fewshot.evaluate.demonstrations import drawn_episodes
from fewshot.evaluate.example import DrawEpisodes, Example
from fewshot.evaluate.metrics.metric import accuracy
from fewshot.evaluate.metrics.question_answering import all_right, chosen_text, class_f1, exact, token_f1
from fewshot.evaluate.protocol import GPT3, HARNESS, EvalProtocol
from fewshot.evaluate.task import Task
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
MULTIRC_DESCRIPTION = "READING COMPREHENSION ANSWER KEY"


@dataclass(frozen=True)
class Questions:
    """A passage of MultiRC: asked answer by answer, shown question by question with all its answers judged."""

    text: str
    rows: tuple[Row, ...]

    @property
    def asked(self) -> list[Example]:
        """Every answer of every question; those of a question are one group."""
        return [self._example(row, answer) for row in self.rows for answer in row["answers"]]

    @property
    def shown(self) -> list[Example]:
        """Every question with all its answers, and a line break that sets it off from the next."""
        return [
            Example(
                str(row["idx"]),
                self._question(row),
                tuple(_judged(answer, bool(answer["label"])) for answer in row["answers"]),
                shown=self._question(row)
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


def read_multirc(file: Found) -> list[Questions]:
    """Return the passages of a file."""

    def passage(number: int, row: Row) -> Questions:
        made = Questions(row["passage"]["text"], tuple(row["passage"]["questions"]))
        _ = made.asked, made.shown  # what is wrong is told here, with the line
        return made

    return file.each(passage, passage=MULTIRC_PASSAGE)


def read_multirc_as_harness(file: Found) -> list[Separate]:
    """Return the passages of a file, every answer a question by itself: yes or no, in the harness's order."""

    def passage(number: int, row: Row) -> Separate:
        return Separate(
            tuple(
                _multirc_as_harness(row["passage"]["text"], question, answer)
                for question in row["passage"]["questions"]
                for answer in question["answers"]
            )
        )

    return file.each(passage, passage=MULTIRC_PASSAGE)


def _multirc_as_harness(passage: str, question: Row, answer: Row) -> Example:
    choices = tuple(f" {answer['text']}\nIs the answer correct? {word}" for word in ("yes", "no"))
    text = f"{passage}\nQuestion: {question['question']}\nAnswer:"
    return Example(f"{question['idx']}:{answer['idx']}", text, choices, int(answer["label"]))


def make_multirc(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return MultiRC's validation file; K counts questions, and all see one set of demonstrations."""
    harness = protocol is HARNESS
    splits = passage_splits(
        "multirc",
        needed("multirc", data, *MULTIRC_FILES),
        read_multirc_as_harness if harness else read_multirc,
        files=MULTIRC_FILES,
        training=("MultiRC/train.jsonl",),
        protocol=protocol,
    )
    if harness:
        return Task(
            name="multirc",
            paper_name="MultiRC",
            protocol=protocol,
            kind="choose",
            metrics=(accuracy("sum", name="acc"),),
            episodes=splits.episodes("multirc", protocol),
            source=splits.source(protocol),
            delimiter="\n\n",
            default_shots=SHOTS,
            chance=0.5,
            notes=(
                "the harness's choices stand in the order yes, no, its labels in the order wrong, right: "
                "its acc, and so this one, counts the reverse",
            ),
        )
    return Task(
        name="multirc",
        paper_name="MultiRC",
        kind="choose",
        metrics=(all_right(), class_f1("f1a", (0,))),
        episodes=_multirc_episodes(splits),
        source=splits.source(protocol),
        description=MULTIRC_DESCRIPTION,
        default_shots=SHOTS,
        chance=_chance_of_all(splits.evaluated.examples),
    )


def _multirc_episodes(splits: Splits) -> DrawEpisodes:
    shown = splits.shown.examples if splits.shown else ()
    return drawn_episodes("multirc", splits.evaluated.examples, shown, fixed=True)


def _chance_of_all(examples: Sequence[Example]) -> float:
    """Return the share of questions all of whose answers a guess judges right."""
    n_answers = Counter(example.group for example in examples)
    return sum(0.5**n for n in n_answers.values()) / len(n_answers)


# ---- ReCoRD

RECORD_FILES = ("ReCoRD/val.jsonl",)
RECORD_PASSAGE = {"text": str, "entities": [{"start": int, "end": int}]}
RECORD_QUERY = {"query": str, "idx": ID, "answers": [{"text": str}]}
HIGHLIGHT = "\n@highlight\n"  # stands before each of an article's summary lines
PLACEHOLDER = "@placeholder"


@dataclass(frozen=True)
class Article:
    """An article of ReCoRD with the entities that it names, and queries that lack one of them."""

    text: str
    entities: tuple[str, ...]
    queries: tuple[Row, ...]
    as_harness: bool

    @property
    def asked(self) -> list[Example]:
        """Every query, the choices being the query with each entity filled in."""
        return [self._example(row) for row in self.queries]

    @property
    def shown(self) -> list[Example]:
        """Every query with a right entity alone, as a training file's choices would fill the memory."""
        return [Example(one.id, one.context, (one.completions[one.gold],)) for one in self.asked]

    def _example(self, row: Row) -> Example:
        answers = [answer["text"] for answer in row["answers"]]
        gold, *also_right = [self.entities.index(one) for one in dict.fromkeys(_ordered(answers, self.as_harness))]
        space = "   - " if self.as_harness else "- "  # two of the harness's choice, one of its delimiter
        choices = tuple(space + row["query"].replace(PLACEHOLDER, entity) for entity in self.entities)
        return Example(
            str(row["idx"]), self._context(), choices, gold, also_right=tuple(also_right), references=self.entities
        )

    def _context(self) -> str:
        article, *highlights = self.text.strip().split(HIGHLIGHT)
        if self.as_harness:
            return f"{article}\n\n" + "".join(f"  - {one}.\n" for one in highlights)
        return f"{article.strip()}\n\n" + "".join(f"- {sentence(one.strip())}\n" for one in highlights)


def _ordered(texts: Sequence[str], as_harness: bool) -> Sequence[str]:
    return sorted(texts) if as_harness else texts


def read_record(file: Found, protocol: EvalProtocol) -> list[Article]:
    """Return the articles of a file; entities stand in the article's order, in the harness's form in the alphabet's."""
    as_harness = protocol is HARNESS

    def article(number: int, row: Row) -> Article:
        text = row["passage"]["text"]
        named = [_mention(text, entity["start"], entity["end"]) for entity in row["passage"]["entities"]]
        entities = tuple(dict.fromkeys(_ordered(named, as_harness)))
        made = Article(text, entities, tuple(row["qas"]), as_harness)
        _ = made.asked  # what is wrong is told here, with the line
        return made

    return file.each(article, passage=RECORD_PASSAGE, qas=[RECORD_QUERY])


def _mention(text: str, start: int, end: int) -> str:
    check(0 <= start <= end < len(text), f"an entity stands at {start} to {end} of a text of {len(text)} letters")
    return text[start : end + 1]


def make_record(*, data: Data | None = None, protocol: EvalProtocol = GPT3) -> Task:
    """Return ReCoRD's validation file."""
    splits = passage_splits(
        "record",
        needed("record", data, *RECORD_FILES),
        lambda file: read_record(file, protocol),
        files=RECORD_FILES,
        training=("ReCoRD/train.jsonl",),
        protocol=protocol,
    )
    harness = protocol is HARNESS
    metrics = (
        (chosen_text("f1", token_f1, "sum"), chosen_text("em", exact, "sum"))
        if harness
        else (chosen_text("accuracy", exact), chosen_text("f1", token_f1))
    )
    return Task(
        name="record",
        paper_name="ReCoRD",
        protocol=protocol,
        kind="choose",
        metrics=metrics,
        episodes=splits.episodes("record", protocol),
        source=splits.source(protocol),
        delimiter="\n\n",
        default_shots=SHOTS,
        chance=None if harness else _chance_of_one(splits.evaluated.examples),
    )


def _chance_of_one(examples: Sequence[Example]) -> float:
    """Return the share of queries to which a guess among the entities is right."""
    return sum((1 + len(one.also_right)) / len(one.completions) for one in examples) / len(examples)


TASKS = {"multirc": make_multirc, "record": make_record}
