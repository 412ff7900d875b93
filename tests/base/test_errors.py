from __future__ import annotations

import pytest

from fewshot.base.errors import (
    BadFile,
    BadValue,
    ContextTooLong,
    DamagedCheckpoint,
    FewshotError,
    KernelUnsupported,
    UnknownName,
    check,
    look_up,
)


def test_everything_that_a_user_can_cause_is_a_fewshot_error() -> None:
    for kind in (BadValue, UnknownName, BadFile, DamagedCheckpoint, ContextTooLong, KernelUnsupported):
        assert issubclass(kind, FewshotError)
    assert issubclass(UnknownName, BadValue)
    assert issubclass(DamagedCheckpoint, BadFile)


def test_an_unknown_name_names_the_nearest_and_the_allowed_ones() -> None:
    error = UnknownName("preset", "gpt3-smal", ["gpt3-small", "gpt1"])
    assert str(error) == "unknown preset 'gpt3-smal'; nearest: 'gpt3-small'; allowed: gpt1, gpt3-small"


def test_an_unknown_name_far_from_all_gives_only_the_allowed_ones() -> None:
    assert str(UnknownName("kernel", "zzz", ["sdpa"])) == "unknown kernel 'zzz'; allowed: sdpa"


def test_a_long_table_is_cut_off_in_the_message() -> None:
    message = str(UnknownName("task", "zzz", [f"t{i:02}" for i in range(30)]))
    assert message.endswith("t22, t23, ...")


def test_a_context_too_long_says_both_lengths() -> None:
    assert str(ContextTooLong(3000, 2048)) == "the prompt has 3,000 tokens, the model's context holds 2,048: shorten it"


def test_check_raises_only_where_the_condition_fails() -> None:
    check(True, "never seen")
    with pytest.raises(BadValue, match=r"^x is 0, must be at least 1$"):
        check(False, "x is 0, must be at least 1")


def test_look_up_gives_the_entry_or_raises() -> None:
    assert look_up("letter", "a", {"a": 1}) == 1
    with pytest.raises(UnknownName, match="unknown letter 'b'"):
        look_up("letter", "b", {"a": 1})
