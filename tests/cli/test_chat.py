"""A conversation from a pipe and in a terminal: answers alone or with labels, and what is refused is one line."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fewshot.checkpoint.load import load_run
from fewshot.cli.main import main
from fewshot.generate.complete import complete
from fewshot.generate.conversation import PRESETS, Conversation
from fewshot.generate.sampling import Sampling

REFUSED = {
    "an unknown preset": (["--preset", "qs"], "unknown preset 'qs'; nearest: 'qa'; allowed: dialogue, qa"),
    "a file that is not there": (["--prefix", "nowhere.txt"], "nowhere.txt does not exist"),
    "a prefix that is too long": (["--prefix", "{long}"], "the model's context holds 32: shorten it"),
    "a prefix that is not UTF-8": (["--prefix", "{bad}"], "is not UTF-8 (byte 0xff in line 1)"),
    "a label that is not UTF-8": (["--you", "\udcff"], "--you is not UTF-8 (byte 0xff)"),
    "an unknown task": (["--task", "hidden_leter"], "nearest: 'hidden_letter'"),
    "more examples than there are": (
        ["--task", "hidden_letter", "--shots", "27"],
        "--shots is 27, hidden_letter has 26 demonstrations",
    ),
    "examples below 0": (["--task", "hidden_letter", "--shots", "-1"], "--shots is -1, must be at least 0"),
    "a task that asks nothing": (["--task", "ptb", "--data", "{ptb}"], "ptb asks nothing, its texts are only scored"),
    "a task and a preset": (["--task", "hidden_letter", "--preset", "qa"], "--task cannot be combined with"),
    "examples without a task": (["--shots", "2"], "--shots and --data need a --task"),
    "data without a task": (["--data", "hub"], "--shots and --data need a --task"),
    "no answer": (["--max_tokens", "0"], "max_tokens is 0, must be at least 1"),
    "an answer that fills the context": (["--max_tokens", "32"], "the model's context holds 32"),
    "top_p above 1": (["--top_p", "2"], "top_p is 2.0, must be in (0, 1]"),
    "unknown weights": (["--weight_type", "int4"], "unknown weight type 'int4'; nearest: 'int8'"),
}


@pytest.fixture
def talk(
    small_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Hold a conversation from a pipe; return exit code, answers and messages."""

    def hold(data: bytes, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        code = main(["chat", str(small_run), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return hold


Talk = Callable[..., tuple[int, str, str]]
SHORT = ("--prefix", os.devnull, "--max_tokens", "6", "--temperature", "0")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    texts = {"long": b"the cat " * 99, "bad": b"\xff", "ptb": b"the cat sat\n"}
    for name, text in texts.items():
        path = tmp_path / "ptb" / "ptb.test.txt" if name == "ptb" else tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text)
    return {name: str(tmp_path / name) for name in texts}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_one_line(talk: Talk, files: dict[str, str], case: str) -> None:
    words, message = REFUSED[case]
    code, out, err = talk(b"the cat\n", *(word.format(**files) for word in words))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert message in err


def test_from_a_pipe_each_line_is_a_turn_and_the_answers_alone_are_printed(talk: Talk, small_run: Path) -> None:
    model, tokenizer, _ = load_run(small_run)
    labels, text, answers = PRESETS["qa"].labels, "", []
    for asked in ("a", "b"):
        text += labels.question(asked)
        prompt = [tokenizer.start, *tokenizer.encode(text)]
        (done,) = complete(
            model, tokenizer, [prompt], max_tokens=4, sampling=Sampling(temperature=0.8), stop=labels.stop, seed=3
        )
        answers.append(done.text.strip())
        text += f" {answers[-1]}{labels.end}" if answers[-1] else labels.end
    code, out, err = talk(b"a\n\n  \r\nb\r\n", *SHORT, "--max_tokens", "4", "--temperature", "0.8", "--seed", "3")
    assert (code, out, err) == (0, "".join(f"{answer}\n" for answer in answers), "")


def test_a_short_context_has_fewer_examples_and_says_so(talk: Talk) -> None:
    code, _, err = talk(b"the\n", "--max_tokens", "4")
    assert code == 0
    assert err == "the context is short: 0 of the preset's 5 examples stand before the conversation\n"


def test_a_line_that_ends_in_a_backslash_goes_on_and_a_second_slash_is_no_command(talk: Talk, tmp_path: Path) -> None:
    _, out, err = talk(b"a\\\n\\\nb\n/show\n", *SHORT, "--max_tokens", "1", "--model", "")
    assert "Q: a\n\nb\n" in out
    assert err == ""
    _, out, err = talk(b"//show\\\nb\n/show\nlast\\", *SHORT, "--max_tokens", "1", "--model", "")
    assert "Q: /show\nb\n" in out
    assert err == ""


def test_labels_are_set_and_a_file_stands_first(talk: Talk, tmp_path: Path) -> None:
    (tmp_path / "before.txt").write_text("The cat.\n\n\n", encoding="utf-8")
    words = ["--prefix", str(tmp_path / "before.txt"), "--you", "x\\n", "--model", "y ", "--preset", "dialogue"]
    code, out, _ = talk(b"/show\nsat\n/show\n", *words, "--max_tokens", "2", "--temperature", "0")
    assert code == 0
    assert out.startswith("The cat.\n\n")
    assert "The cat.\nx\nsat\ny" in out.partition("\n\n")[2]


def test_a_task_gives_its_examples_and_the_form_of_its_questions(talk: Talk) -> None:
    code, out, err = talk(b"q\n/show\n", "--task", "hidden_letter", "--shots", "2", "--max_tokens", "3")
    assert (code, err) == (0, "")
    first, second, turn = out.partition("\n")[2].splitlines()[:3]
    assert all(" -> " in line and len(line) == len("a -> b") for line in (first, second))
    assert turn.startswith("q ->")


def test_commands_change_the_conversation(talk: Talk) -> None:
    commands = b"the\n/retry\n/tokens\n/undo\n/undo\n/set\n/set top_k 2\n/set top_k\n/help\n/reset\n/show\n"
    code, out, err = talk(commands, *SHORT)
    assert code == 0
    first, again, tokens, *rest = out.splitlines()
    assert first == again  # greedy
    assert "of 32 tokens, 6 more are for the answer; turns: 1; of the last prompt's " in tokens
    n, cached = (int(word) for word in tokens.split("last prompt's ")[1].replace("were", "").split() if word.isdigit())
    assert cached == n - 1
    assert rest[0].startswith("/help ")
    assert rest[-1] == ""
    assert err.splitlines() == [
        "taken back: the",
        "there is no turn yet",
        "temperature 0.0, top_p off, top_k off, max_tokens 6, seed 0",
        "temperature 0.0, top_p off, top_k 2, max_tokens 6, seed 0",
        "/set needs a name and a value, as in /set temperature 0.7",
        "started again",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/rety", "unknown command '/rety'; nearest: '/retry'; allowed: /help, "),
        ("/", "unknown command '/'; allowed: /help, "),
        ("/undo 2", "/undo takes nothing behind it"),
        ("/set seed x", "seed is 'x', must be a whole number; it stays 0"),
        ("/save", "/save needs the name of a file"),
        ("/save {there}", "there exists: give another name, or delete it first"),
        ("/save .", ". is a folder; give the name of a file"),
        ("/save {there}/below", "there is a file, not a folder"),
        ("the cat " * 20, "the model's context holds 32: shorten it, or lower max_tokens"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_the_conversation_goes_on(
    talk: Talk, tmp_path: Path, line: str, message: str
) -> None:
    there = tmp_path / "there"
    there.write_text("mine", encoding="utf-8")
    code, out, err = talk(f"{line.format(there=there)}\nthe\n".encode(), *SHORT)
    assert (code, err.count("\n"), out.count("\n")) == (0, 1, 1)
    assert message in err
    assert there.read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_does_not_end_the_conversation(talk: Talk) -> None:
    code, out, err = talk(b"the\n/save /dev/full\nthe\n", *SHORT)
    assert (code, err, out.count("\n")) == (0, "/dev/full was not saved: no space left on device\n", 2)


def test_the_whole_conversation_is_saved_and_what_is_left_out_is_said_once(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    code, out, err = talk(b"the cat\n" * 9 + f"/show\n/save {path}\n".encode(), *SHORT)
    saved = path.read_text(encoding="utf-8")
    assert code == 0
    assert saved.count("Q: the cat\n") == 9
    shown = out[out.index("Q: the cat") :].removesuffix("\n")
    assert saved.endswith(shown)
    assert shown.count("Q: the cat\n") < 9
    told, last = err.splitlines()
    assert told.startswith("the context is full: the model reads the oldest turns (")
    assert last == f"saved in {path}"


def test_a_line_that_is_not_utf8_ends_a_pipe(talk: Talk) -> None:
    code, out, err = talk(b"the\n\xff\nthe\n", *SHORT)
    assert (code, out.count("\n"), err.count("\n")) == (2, 1, 1)
    assert "standard input is not UTF-8 (byte 0xff in line 2)" in err


# ---- in a terminal

# A step behind the third gives nothing, so that an answer goes on until it is stopped.
IN_TERMINAL = """
import fcntl, itertools, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from fewshot.cli.main import main
from fewshot.generate.engine import Engine
step, numbers = Engine.step, itertools.count()
Engine.step = lambda self: step(self) if next(numbers) < 3 else time.sleep(0.01) or []
sys.exit(main(sys.argv[1:]))
"""


class Terminal:
    """A chat in a terminal of its own."""

    def __init__(self, run: Path, state: Path) -> None:
        self.end, theirs = os.openpty()
        command = [sys.executable, "-c", IN_TERMINAL, "chat", str(run), "--prefix", os.devnull, "--max_tokens", "8"]
        environment = {**os.environ, "XDG_STATE_HOME": str(state), "TERM": "dumb", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)

    def type(self, text: bytes) -> None:
        os.write(self.end, text)

    def until(self, text: str) -> str:
        """Return what comes until it ends with this text."""
        came = b""
        while not came.decode("utf-8", "replace").endswith(text):
            came += os.read(self.end, 1)
        return came.decode("utf-8", "replace")

    def interrupt(self) -> int:
        """Press Ctrl-C and return the exit code; again after a while, as Python's readline can miss the first.

        It sees no signal that comes between handling a key and waiting for the next one.
        """
        while True:
            self.type(b"\x03")
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(30)

    def ended(self) -> int:
        """Return the exit code; what comes before is read, so that nothing waits for its reader."""
        with contextlib.suppress(OSError):  # Linux's way to say that nobody holds the other end
            while os.read(self.end, 1024):
                pass
        return self.process.wait()


@pytest.fixture
def terminal(small_run: Path, tmp_path: Path) -> Iterator[Terminal]:
    pytest.importorskip("termios", reason="the system has no terminals")
    opened = Terminal(small_run, tmp_path)
    yield opened
    opened.process.kill()
    opened.process.wait()
    os.close(opened.end)


def test_ctrl_c_stops_an_answer_and_ctrl_d_ends(terminal: Terminal, tmp_path: Path) -> None:
    assert "/help lists the commands" in terminal.until("Q: ")
    terminal.type(b"the\n")
    terminal.until("A: ")
    time.sleep(0.5)  # what came by then is kept, whatever that is
    terminal.type(b"\x03")
    terminal.until("Q: ")
    terminal.type(b"/show\n/tokens\n")
    assert "Q: the\r\n\r\nA:" in terminal.until("were cached\r\n")
    terminal.type(b"bad \xff\n/undo\n")
    assert "the line is not UTF-8" in terminal.until("taken back: the\r\n")
    terminal.until("Q: ")
    terminal.type(b"\x04")  # before the prompt the terminal itself would take it, and readline see a null
    assert terminal.ended() == 0
    pytest.importorskip("readline", reason="there is no readline")
    history = tmp_path / "fewshot" / "chat_history"
    assert history.read_bytes().startswith(b"the\n/show\n")


def test_ctrl_c_between_answers_ends_even_if_the_history_cannot_be_kept(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "fewshot").write_text("a file where the folder should be", encoding="utf-8")
    terminal.until("Q: ")
    terminal.type(b"half a li")
    terminal.until("half a li")
    assert terminal.interrupt() == 0


def test_a_terminal_is_not_sent_what_it_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    from fewshot.cli.chat import Chat

    for terminal, shown in ((True, "a\ufffd[2Jb\n\tc\ufffd"), (False, "a\x1b[2Jb\n\tc\x9b")):
        Chat(Conversation.__new__(Conversation), terminal=terminal).write("a\x1b[2Jb\n\tc\x9b")
        assert capsys.readouterr().out == shown


def test_a_conversation_is_not_saved_in_a_folder_that_is_not_there(talk: Talk, tmp_path: Path) -> None:
    path = tmp_path / "new" / "talk.txt"
    code, out, err = talk(f"the\n/save {path}\n/quit\nthe\n".encode(), *SHORT)
    assert (code, out.count("\n")) == (0, 1)
    assert err == f"{path} was not saved: there is no folder {path.parent}\n"
    assert not path.parent.exists()
