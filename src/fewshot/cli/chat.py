"""Talk with the model of a run: it goes on with one text of labelled turns.

fewshot chat RUN
fewshot chat RUN --preset dialogue --temperature 0.5
fewshot chat RUN --task arithmetic_2d_add --shots 8 --temperature 0
fewshot chat RUN --prefix FILE --you "English: " --model "French: "
fewshot chat RUN < questions.txt                     a turn a line; only the answers are printed

/help in the conversation lists its commands. Ctrl-C stops an answer; Ctrl-D, or Ctrl-C between answers, ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewshot.base.interrupt import StopRequest
    from fewshot.generate.conversation import Conversation, Labels

MAX_TOKENS = 128
N_EXAMPLES = 20  # questions of a task that tell what its form is
HISTORY_LINES = 1000
UNSEEN = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)], "\ufffd")  # a terminal would obey some of them

HELP = """\
/help                  this text
/reset                 start again from the prefix
/undo                  take the last turn back
/retry                 answer the last turn again, with the next seed
/show                  the whole text, as the model reads it
/save FILE             write the conversation to a new file
/set NAME VALUE        temperature, top_p, top_k, max_tokens or seed; top_p and top_k can be off; /set alone lists all
/tokens                how full the context is
/quit                  end, as Ctrl-D does
A line that ends in a backslash goes on in the next. Where the terminal marks what is pasted, pasted lines are one turn.
A turn that begins with a slash is typed with two. Ctrl-C stops an answer; Ctrl-D, or Ctrl-C between answers, ends."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what stands before the conversation, its labels, and how answers are written."""
    parser.add_argument("folder", metavar="RUN", help="a run folder, or hf:PATH for a Hugging Face GPT-2 folder")
    parser.add_argument(
        "--preset",
        metavar="NAME",
        help="qa (short answers to questions) or dialogue: labels and examples (default: qa)",
    )
    parser.add_argument(
        "--prefix", type=Path, metavar="FILE", help="text that stands before the first turn, instead of the preset's"
    )
    parser.add_argument(
        "--task", metavar="NAME", help="an evaluation task: its examples before the first turn, its form for each turn"
    )
    parser.add_argument("--shots", type=int, metavar="K", help="number of the task's examples (default: 4)")
    parser.add_argument(
        "--data", help="folder or zip archive with the task's original files, or 'hub' to download them"
    )
    parser.add_argument("--you", metavar="TEXT", help="the label of what you say, as in 'Q: '")
    parser.add_argument("--model", metavar="TEXT", help="the label of the answer, as in 'A: '")
    parser.add_argument("--temperature", type=float, default=0.8, help="0 is greedy (default: %(default)s)")
    parser.add_argument("--top_k", type=int, help="sample only from the k most likely tokens")
    parser.add_argument(
        "--top_p", type=float, help="sample only from the smallest set of tokens with this total probability"
    )
    parser.add_argument(
        "--max_tokens",
        type=int,
        help=f"tokens of an answer, at most (default: {MAX_TOKENS}, or a quarter of a context of less than "
        f"{4 * MAX_TOKENS})",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="the same seed gives the same answers (default: %(default)s)"
    )
    parser.add_argument(
        "--weight_type",
        default="float32",
        metavar="TYPE",
        help="float32, or bfloat16 and int8, which are faster and a little less exact (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Hold the conversation until the input ends."""
    from dataclasses import replace

    from fewshot.base.errors import look_up
    from fewshot.base.log import note
    from fewshot.checkpoint.formats.table import open_model
    from fewshot.generate.conversation import Conversation, Settings, engine_for_one
    from fewshot.kernels.invariant.linear import WEIGHT_TYPES
    from fewshot.model.packed import PackedGPT

    look_up("weight type", args.weight_type, dict.fromkeys(WEIGHT_TYPES, True))
    settings = Settings(
        temperature=args.temperature,
        top_p=args.top_p,
        top_k=args.top_k,
        max_tokens=MAX_TOKENS if args.max_tokens is None else args.max_tokens,
        seed=args.seed,
    )
    labels, prefixes = beginning(args)
    model, tokenizer, _ = open_model(args.folder)
    if args.max_tokens is None:
        settings = replace(settings, max_tokens=max(1, min(MAX_TOKENS, model.config.n_ctx // 4)))
    engine = engine_for_one(PackedGPT(model, args.weight_type), tokenizer)
    conversation = Conversation(engine, labels, settings=settings)
    left_out = conversation.take_prefix(prefixes)
    conversation.check()
    if left_out:
        n = len(prefixes) - 2  # demonstrations; the last prefix has not even the description
        note(f"the context is short: {max(0, n - left_out)} of the preset's {n} examples stand before the conversation")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal:
        note(f"{args.folder}: a context of {conversation.n_ctx:,} tokens; /help lists the commands, Ctrl-D ends")
    chat = Chat(conversation, terminal=terminal)
    with history() if terminal else contextlib.nullcontext():
        try:
            for text in turns(labels, terminal=terminal):
                chat.hear(text)
                if chat.over:
                    return 0
        except KeyboardInterrupt:
            if not terminal:
                raise
        if terminal:
            print()
    return 0


def beginning(args: argparse.Namespace) -> tuple[Labels, list[str]]:
    """Return the labels, and what may stand before the first turn: the first that the context has room for."""
    from dataclasses import replace

    from fewshot.base.errors import check, look_up
    from fewshot.base.files import read_text
    from fewshot.cli.text_input import argument
    from fewshot.generate.conversation import PRESETS

    check(not (args.task and (args.prefix or args.preset)), "--task cannot be combined with --prefix or --preset")
    check(args.task is not None or (args.shots is None and args.data is None), "--shots and --data need a --task")
    given: dict[str, Any] = {
        name: argument(text, f"--{name}").replace("\\n", "\n").replace("\\t", "\t")
        for name, text in (("you", args.you), ("model", args.model))
        if text is not None
    }
    if args.task is not None:
        labels, prefix = of_task(args.task, 4 if args.shots is None else args.shots, args.data)
        return replace(labels, **given), [prefix]
    preset = look_up("preset", args.preset or "qa", PRESETS)
    labels = replace(preset.labels, **given)
    if args.prefix is None:
        return labels, preset.prefixes(labels)
    text = read_text(args.prefix).rstrip("\n")
    return labels, [text + labels.end if text else ""]


def of_task(name: str, shots: int, data: str | None) -> tuple[Labels, str]:
    """Return the labels of a task's questions, and its description with `shots` demonstrations."""
    from fewshot.base.errors import check
    from fewshot.evaluate.data.hub import open_data
    from fewshot.evaluate.tasks.table import make_task
    from fewshot.generate.conversation import Labels

    check(shots >= 0, f"--shots is {shots}, must be at least 0")
    task = make_task(name, data=open_data(data))
    check(task.kind in ("choose", "complete"), f"{name} asks nothing, its texts are only scored: give another --task")
    demonstrations = task.episodes(1, shots, 0)[0].demonstrations
    check(len(demonstrations) == shots, f"--shots is {shots}, {name} has {len(demonstrations)} demonstrations")
    examples = [*demonstrations, *(episode.example for episode in task.episodes(N_EXAMPLES, 0, 0))]
    labels = Labels.of_examples(
        [example.pairs[example.gold] for example in examples], end=task.delimiter, stops=task.stop
    )
    pieces = [task.description] * bool(task.description) + [example.demonstration for example in demonstrations]
    return labels, "".join(piece + task.delimiter for piece in pieces)


class Chat:
    """One conversation on standard output; with `terminal` for a person, else the answers alone."""

    def __init__(self, conversation: Conversation, *, terminal: bool) -> None:
        from fewshot.base.log import note

        self.conversation, self.terminal = conversation, terminal
        self.told = False  # that turns are left out
        self.over = False
        self.commands: dict[str, Callable[..., None]] = {
            "/help": lambda: self.say(HELP),
            "/reset": self.reset,
            "/undo": lambda: note(f"taken back: {self.conversation.undo().asked}"),
            "/retry": lambda: self.answer(self.conversation.retry()),
            "/show": lambda: self.say(self.conversation.text),
            "/save": self.save,
            "/set": self.set,
            "/tokens": self.tokens,
            "/quit": self.quit,
        }

    def hear(self, text: str) -> None:
        """Answer a turn or obey a command; what cannot be done is one line on standard error."""
        from fewshot.base.errors import BadFile, BadValue, ContextTooLong, check, look_up
        from fewshot.base.log import note
        from fewshot.cli.text_input import argument

        try:
            text = argument(text, "the line")
            if text.startswith("/") and not text.startswith("//") and "\n" not in text:
                name, _, rest = text.strip().partition(" ")
                command = look_up("command", name, self.commands)
                if name in ("/save", "/set"):
                    command(rest.strip())
                else:
                    check(not rest, f"{name} takes nothing behind it")
                    command()
            elif text.strip():
                self.answer(self.conversation.ask(text.removeprefix("/") if text.startswith("//") else text))
        except (BadFile, BadValue, ContextTooLong) as error:
            note(str(error))

    def answer(self, pieces: Generator[str, None, None]) -> None:
        """Print an answer as it is written, until Ctrl-C."""
        from fewshot.base.log import note

        first = self.conversation.first
        if first and not self.told:
            note(f"the context is full: the model reads the oldest turns ({first} now) no more")
            self.told = True
        if self.terminal:
            sys.stdout.write(f"{self.conversation.labels.model.strip()} ".lstrip())
        with contextlib.closing(pieces), quietly_stopped() if self.terminal else contextlib.nullcontext() as request:
            for piece in pieces:
                self.write(piece)
                if request is not None and request.asked:
                    break
        self.say("")

    def write(self, text: str) -> None:
        """Write to standard output at once, for a terminal without what it would obey."""
        sys.stdout.write(text.translate(UNSEEN) if self.terminal else text)
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """Write a line."""
        self.write(f"{text}\n")

    def reset(self) -> None:
        """Start again."""
        from fewshot.base.log import note

        self.conversation.reset()
        note("started again")
        self.told = False

    def save(self, name: str) -> None:
        """Write the conversation to a file that is not there yet."""
        from fewshot.base.errors import BadFile, check
        from fewshot.base.files import check_is_free, write_text
        from fewshot.base.log import note

        check(name != "", "/save needs the name of a file")
        path = Path(os.path.expanduser(name))  # noqa: PTH111 - "~nobody" is a name
        try:
            check_is_free(path)
            check(path.absolute().parent.is_dir(), f"{name} was not saved: there is no folder {path.parent}")
            write_text(path, self.conversation.whole_text)
        except OSError as error:
            raise BadFile(f"{name} was not saved: {(error.strerror or str(error)).lower()}") from None
        note(f"saved in {name}")

    def quit(self) -> None:
        """End the conversation."""
        self.over = True

    def set(self, words: str) -> None:
        """Change a setting, and list all."""
        from fewshot.base.errors import check
        from fewshot.base.log import note

        name, _, value = words.partition(" ")
        check(not name or bool(value), "/set needs a name and a value, as in /set temperature 0.7")
        if name:
            self.conversation.change(name, value.strip())
        note(str(self.conversation.settings))

    def tokens(self) -> None:
        """Say how full the context is."""
        conversation = self.conversation
        used = len(conversation.tokens(conversation.text))
        left_out = f", the oldest {conversation.first} of them left out" if conversation.first else ""
        full = used > conversation.room
        left_out += ", the next turn leaves out the oldest" if full else ""
        self.say(
            f"{used:,} of {conversation.n_ctx:,} tokens, {conversation.settings.max_tokens:,} more are for the answer; "
            f"turns: {len(conversation.turns)}{left_out}; of the last prompt's {conversation.n_prompt:,} tokens "
            f"{conversation.n_cached:,} were cached"
        )


def turns(labels: Labels, *, terminal: bool) -> Iterator[str]:
    """Yield what is typed, or the lines of standard input, until it ends."""
    from fewshot.base.log import note
    from fewshot.cli.text_input import input_lines

    if not terminal:
        lines = input_lines()
        yield from iter(lambda: _turn(lambda _: next(lines, None), ""), None)
        return
    label = f"{labels.you.strip()} ".lstrip() or "> "
    while True:
        try:
            text = _turn(_typed, label)
        except UnicodeDecodeError:
            note("the line is not UTF-8: type it again")
            continue
        if text is None:
            return
        yield text


def _typed(label: str) -> str | None:
    """Return a line that is typed, None for Ctrl-D."""
    try:
        return input(label)
    except EOFError:
        return None


def _turn(read: Callable[[str], str | None], label: str) -> str | None:
    """Return the next line, with those that it goes on in; None where there is none."""
    line = read(label)
    if line is None:
        return None
    lines = [line]
    while line is not None and line.endswith("\\"):
        lines[-1] = line[:-1]
        line = read("... ")
        lines += [] if line is None else [line]
    return "\n".join(lines)


@contextlib.contextmanager
def quietly_stopped() -> Iterator[StopRequest]:
    """Turn Ctrl-C inside the block into `asked`: raised inside a step it could leave the cache half changed."""
    from fewshot.base.interrupt import StopRequest

    request, before = StopRequest(), signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, frame: object) -> None:
        request.asked = True

    signal.signal(signal.SIGINT, ask)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def history() -> Iterator[None]:
    """Give lines their editing and their history, as far as the system has that; the history is kept in a file."""
    try:
        import readline
    except ImportError:  # Windows has its own editing
        yield
        return
    home = os.path.expanduser("~/.local/state")  # noqa: PTH111 - stays as it is where there is no home
    folder = Path(os.environ.get("XDG_STATE_HOME") or home, "fewshot")
    if "GNU" in (readline.__doc__ or ""):
        readline.parse_and_bind("set enable-bracketed-paste on")
    readline.set_history_length(HISTORY_LINES)
    with contextlib.suppress(OSError):
        readline.read_history_file(folder / "chat_history")
    try:
        yield
    finally:
        if folder.is_absolute():
            with contextlib.suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(folder / "chat_history")
