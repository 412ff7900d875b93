from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from fewshot.base import interrupt
from fewshot.base.interrupt import cleaning_up, polite_stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_asks_and_says_so(number: int, capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)
    with polite_stop("this step and a checkpoint") as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
    assert signal.getsignal(number) is before
    assert capfd.readouterr().err == "\nstopping after this step and a checkpoint; press Ctrl-C again to stop at once\n"


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_signal_stops_at_once(
    first: int, second: int, set_in_module: Callable[[object, str, object], None]
) -> None:
    set_in_module(polite_stop, "SAME_SECONDS", 0.01)
    with pytest.raises(KeyboardInterrupt), polite_stop():  # noqa: PT012
        os.kill(os.getpid(), first)
        time.sleep(0.05)
        os.kill(os.getpid(), second)


def test_one_request_that_arrives_twice_is_one(capfd: pytest.CaptureFixture[str]) -> None:
    with polite_stop() as stop:  # as from a terminal and from the parent process
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.asked
    assert capfd.readouterr().err.count("stopping") == 1


def test_other_threads_leave_signals_alone() -> None:
    before, inside = signal.getsignal(signal.SIGINT), []

    def work() -> None:
        with polite_stop():
            inside.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [before]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_ignored_stays_ignored(number: int) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # as under nohup, or of a background job
    try:
        with polite_stop() as stop:
            os.kill(os.getpid(), number)
        assert not stop.asked
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_the_same_request_is_still_heard_when_the_block_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    again = SimpleNamespace(sleep=lambda _: os.kill(os.getpid(), signal.SIGTERM), monotonic=time.monotonic)
    monkeypatch.setattr(interrupt, "time", again)  # other threads of this process sleep as ever
    with polite_stop() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.asked  # and this process lives


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_would_end_the_process_at_once_lets_it_clean_up(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), cleaning_up():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) is signal.SIG_DFL
