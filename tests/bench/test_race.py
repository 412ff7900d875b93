"""Who holds the signals in a race, with both sides made up."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from fewshot.base.errors import BadValue
from fewshot.base.interrupt import polite_stop
from fewshot.bench.race import _Peer, race

N_STEPS = 100


class Peer:
    """Remembers at each of its steps whether a Ctrl-C would end it at once."""

    interrupted_at: int | None = None

    def __init__(self, *args: object) -> None:
        self.step, self.seconds = 0, 0.5
        self.alone: list[bool] = []

    take_turn = _Peer.take_turn

    def train_step(self) -> None:
        self.step += 1
        self.alone.append(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        if self.step == self.interrupted_at:
            signal.raise_signal(signal.SIGINT)

    def validation_loss(self, validation: object) -> float:
        return 2.0


def our_training(*args: object, **options: object) -> Iterator[SimpleNamespace]:
    """The loss is 100 / step, validated at every tenth."""
    with polite_stop() as stop:
        for step in range(1, N_STEPS + 1):
            val_loss = None if step % 10 else 100 / step
            yield SimpleNamespace(step=step, n_steps=N_STEPS, seconds=step / 10, val_loss=val_loss)
            if stop.asked:
                return


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch, set_in_module: Callable[[object, str, object], None]) -> list[Peer]:
    """Those that were made; before the race Ctrl-C is Python's own."""
    made: list[Peer] = []
    tokens = SimpleNamespace(validation=(1,))
    config = SimpleNamespace(data=None, model=SimpleNamespace(n_ctx=4), loop=SimpleNamespace(seed=0))
    for name, value in {"start": our_training, "read_run_config": lambda run: config, "load_tokens": lambda *_: tokens,
                        "training_mixture": lambda *_, **__: None, "Packed": lambda *_: None,
                        "_Peer": lambda *_: made.append(Peer()) or made[-1]}.items():  # fmt: skip
        set_in_module(race, name, value)
    monkeypatch.setattr(Peer, "interrupted_at", None)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield made
    signal.signal(signal.SIGINT, before)


def short_race(until_loss: float, peer_steps: int) -> dict[str, object]:
    return race({}, Path("run"), until_loss=until_loss, peer_steps=peer_steps, say=lambda line: None)


@pytest.mark.parametrize(("until_loss", "n_ours", "n_together"), [(3.0, 40, 20), (10.0, 10, 0), (1.0, 100, 80)])
def test_a_peer_that_runs_alone_is_stopped_by_the_first_ctrl_c(
    peers: list[Peer], until_loss: float, n_ours: int, n_together: int
) -> None:
    result = short_race(until_loss, peer_steps=95)
    assert result["ours"]["steps"] == n_ours
    assert result["peer"] == {"steps": 95, "seconds": 0.5, "val_loss": 2.0}
    assert peers[0].alone == [False] * n_together + [True] * (95 - n_together)


def test_ctrl_c_in_the_peers_last_steps_ends_the_race(peers: list[Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peer, "interrupted_at", 70)
    with pytest.raises(KeyboardInterrupt):
        short_race(3.0, peer_steps=95)
    assert peers[0].step == 70


def test_ctrl_c_while_both_run_ends_the_race_after_our_step(peers: list[Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Peer, "interrupted_at", 5)
    with pytest.raises(KeyboardInterrupt):
        short_race(1.0, peer_steps=95)
    assert peers[0].step == 20


def test_a_run_that_ends_above_the_loss_is_nothing_to_compare_and_frees_ctrl_c(peers: list[Peer]) -> None:
    with pytest.raises(BadValue, match=r"ended at 1.0000, above 0.5: nothing to compare"):
        short_race(0.5, peer_steps=10)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
