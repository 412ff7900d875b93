from __future__ import annotations

import os
import signal

import pytest
import torch

from fewshot.meta.experiment import configure, prepare, train
from fewshot.meta.sinusoid import Experiment

SMALL = {
    "outer": {"n_iterations": 30, "report_every": 10},
    "learner": {"n_tasks": 2, "compile": "untraced"},
    "widths": [5],
}


def small() -> Experiment:
    return prepare("sinusoid", configure("sinusoid", SMALL))


def test_ctrl_c_stops_when_the_iteration_is_whole_and_training_goes_on_from_there(tmp_path):
    whole = small()
    rows = list(train(whole, tmp_path / "whole", about={}))
    cut = small()
    loop = cut.loops["maml"]
    step = loop.step

    def interrupted(*given):
        if loop.iteration == 14:
            os.kill(os.getpid(), signal.SIGINT)
        return step(*given)

    loop.step = interrupted
    with pytest.raises(KeyboardInterrupt):
        list(train(cut, tmp_path, about={}))
    assert loop.iteration == 15
    again = small()
    assert list(train(again, tmp_path, about={})) == rows[1:]
    ended = again.loops["maml"]
    assert ended.history == whole.loops["maml"].history
    assert all(torch.equal(tensor, ended.learned[name]) for name, tensor in whole.loops["maml"].learned.items())


def test_what_breaks_an_iteration_leaves_the_state_before_it(tmp_path):
    cut = small()
    loop = cut.loops["maml"]
    update = loop._update

    def broken(loss):
        update(loss)
        if loop.iteration == 14:
            raise KeyboardInterrupt

    loop._update = broken
    with pytest.raises(KeyboardInterrupt):
        list(train(cut, tmp_path, about={}))
    assert not list(tmp_path.glob("*.safetensors"))
