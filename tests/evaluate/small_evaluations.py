"""Answers, tasks and models that are small enough to be followed by hand."""

from __future__ import annotations

import torch

from fewshot.evaluate import run
from fewshot.evaluate.answer import Answer
from fewshot.evaluate.demonstrations import drawn_episodes
from fewshot.evaluate.example import Example
from fewshot.evaluate.models.gpt import GPTLanguageModel
from fewshot.evaluate.result import Result
from fewshot.evaluate.task import Task
from fewshot.model.config import GPTConfig
from fewshot.model.gpt import GPT

SETTINGS = {"limit": 40, "seed": 0, "batch_size": 4}


def tiny_gpt(n_vocab: int, n_ctx: int) -> GPTLanguageModel:
    torch.manual_seed(0)
    return GPTLanguageModel(GPT(GPTConfig(n_layers=1, d_model=16, n_heads=2, n_ctx=n_ctx, n_vocab=n_vocab)))


def evaluate(*arguments, **settings) -> list[Result]:
    return [result for answered in run.evaluate(*arguments, **settings) for result in answered.results()]


def listed(task_fields: dict, evaluated: list[Example], training: list[Example]) -> Task:
    return Task(name="t", source="test", episodes=drawn_episodes("t", evaluated, training), **task_fields)


def answers(right: str, *, first: int = 0) -> list[Answer]:
    """Choices between two: "1" is a right one, "0" a wrong one."""
    return [
        Answer(
            example=Example(f"q{first + i}", "?", (" a", " b")),
            logprobs=(-1.0, -2.0) if mark == "1" else (-2.0, -1.0),
            n_tokens=(1, 1),
        )
        for i, mark in enumerate(right)
    ]
