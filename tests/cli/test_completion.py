"""The completion of a shell, tried in a shell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from fewshot.cli.completion import whole_parser
from fewshot.cli.main import COMMANDS, main


def completed(script: Path, line: str) -> list[str]:
    """Return what bash offers for the last word of a line."""
    words = line.split(" ")
    program = f"""source {script}
COMP_WORDS=({" ".join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={line!r}
_shtab_fewshot; printf '%s\\n' "${{COMPREPLY[@]}}\""""
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--print-completion", "bash"]) == 0
    script = tmp_path / "fewshot.bash"
    script.write_text(capsys.readouterr().out)
    assert "complete -o bashdefault -o default -F" in script.read_text()
    assert completed(script, "fewshot conv") == ["convert"]
    assert completed(script, "fewshot convert --tar") == ["--targets"]
    assert completed(script, "fewshot convert run out --as gguf_q") == ["gguf_q8_0"]
    assert completed(script, "fewshot train --log track") == ["trackio"]
    assert "gpt3-13b" in completed(script, "fewshot train --preset gpt3-1")
    assert completed(script, "fewshot evaluate run --tasks novel_s") == ["novel_symbols"]
    assert not completed(script, "fewshot chat run --preset gpt")
    assert {"train", "evaluate", "demo"} <= {*completed(script, "fewshot ")}


def test_every_command_is_in_the_parser_and_other_shells_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert name in whole_parser(COMMANDS).format_help()
    assert main(["--print-completion", "ksh"]) == 2
    assert "allowed are bash, zsh" in capsys.readouterr().err
    assert main(["--print-completion"]) == 2
