"""Conventions of an evaluation, as values: the paper's, and those of lm-evaluation-harness. Knows no task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EvalProtocol:
    """How prompts begin, what happens where they do not fit, and how free-form answers are searched for."""

    name: str
    always_eot: bool  # every prompt begins with <|endoftext|>; else only an empty one does
    whole_demonstrations: bool  # those that do not fit are left out; else the prompt's beginning is cut off
    joined_at_space: bool  # a context's closing spaces move to the completion before both are encoded
    beams: int  # width of the search for a free-form answer
    length_penalty: float  # alpha of ((5 + length) / 6) ** alpha, which divides a beam's log-probability
    reasons: tuple[str, ...] = ()  # why scores differ from the other protocol's


GPT3 = EvalProtocol(
    name="gpt3",
    always_eot=True,
    whole_demonstrations=True,
    joined_at_space=False,
    beams=4,
    length_penalty=0.6,
    reasons=(
        "choices are compared by nats a token; for ARC, OpenBookQA and RACE by nats above those after a bare 'Answer:'",
        "demonstrations are drawn anew for each example, from its id: they depend on no other example",
        "as many whole demonstrations as fit; a question that does not fit is counted, never cut",
        "free-form answers are the best of 4 beams, length penalty 0.6",
    ),
)
HARNESS = EvalProtocol(
    name="lm-eval",
    always_eot=False,
    whole_demonstrations=False,
    joined_at_space=True,
    beams=1,
    length_penalty=0.0,
    reasons=(
        "choices are compared by summed nats (acc) and by nats a character (acc_norm)",
        "demonstrations come from one generator in the order of the examples: the same example may see others",
        "a prompt that does not fit loses its beginning, in the middle of a demonstration if need be",
        "free-form answers are greedy",
    ),
)
PROTOCOLS: Mapping[str, EvalProtocol] = {protocol.name: protocol for protocol in (GPT3, HARNESS)}
