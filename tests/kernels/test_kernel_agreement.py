"""Every kernel of the table against the reference; a new row in KERNELS is covered with no edit here."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
import torch
from torch.nn.attention import flex_attention

from fewshot.base.errors import BadValue
from fewshot.kernels import flex, reference
from fewshot.kernels.choose import KERNELS
from fewshot.kernels.compiler import compiler_problem
from fewshot.kernels.elementwise.dropout import Dropout
from fewshot.kernels.interface import Requirements
from fewshot.kernels.library import library
from fewshot.patterns.pattern import PATTERNS, Banded, Block, Columns, Dense, Fixed, Pattern, PerHead, Strided

TRIED = [
    Dense(),
    Banded(1),
    Banded(5),
    Banded(40),
    Strided(4),
    Block(6),
    Columns(6, 2, 1),
    Fixed(8, 3),
    Banded(3) | Strided(5),
    Strided(4) | Strided(6),
    Columns(6, 2, 1) | Strided(4) | Banded(2),
    PerHead(Banded(3), Strided(5), Dense()),
    PerHead(Fixed(8, 2), Block(8) | Columns(8, 2, 1)),
]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-2}
ON_CUDA = "it computes on CUDA, not on cpu"
NO_DOUBLE = "it computes float32 and bfloat16, not float64"
NO_BACKWARD = "FlexAttention has no backward on a CPU"
NO_DOCUMENTS = "torch's compiler fails on FlexAttention with documents on a CPU"
NO_DOUBLE_FLEX = "FlexAttention computes float32, bfloat16 and float16, not float64"
# Everything that the grid leaves out, whatever the pattern: kernel, type, within documents, with gradients.
LEFT_OUT: dict[tuple[str, torch.dtype, bool, bool], str] = {
    ("native", torch.float64, False, False): NO_DOUBLE,
    ("native", torch.float64, False, True): NO_DOUBLE,
    ("native", torch.float64, True, False): NO_DOUBLE,
    ("native", torch.float64, True, True): NO_DOUBLE,
    ("flex", torch.float64, False, False): NO_DOUBLE_FLEX,
    ("flex", torch.float64, False, True): NO_BACKWARD,
    ("flex", torch.float64, True, False): NO_DOCUMENTS,
    ("flex", torch.float64, True, True): NO_BACKWARD,
    ("flex", torch.float32, False, True): NO_BACKWARD,
    ("flex", torch.float32, True, False): NO_DOCUMENTS,
    ("flex", torch.float32, True, True): NO_BACKWARD,
    ("flex", torch.bfloat16, False, True): NO_BACKWARD,
    ("flex", torch.bfloat16, True, False): NO_DOCUMENTS,
    ("flex", torch.bfloat16, True, True): NO_BACKWARD,
    ("triton", torch.float64, False, False): ON_CUDA,  # test_triton.py has it interpreted
    ("triton", torch.float64, False, True): ON_CUDA,
    ("triton", torch.float64, True, False): ON_CUDA,
    ("triton", torch.float64, True, True): ON_CUDA,
    ("triton", torch.float32, False, False): ON_CUDA,
    ("triton", torch.float32, False, True): ON_CUDA,
    ("triton", torch.float32, True, False): ON_CUDA,
    ("triton", torch.float32, True, True): ON_CUDA,
    ("triton", torch.bfloat16, False, False): ON_CUDA,
    ("triton", torch.bfloat16, False, True): ON_CUDA,
    ("triton", torch.bfloat16, True, False): ON_CUDA,
    ("triton", torch.bfloat16, True, True): ON_CUDA,
}
OTHERS = [name for name in KERNELS if name != "reference"]


def covered(*, gradients: bool = False, documents: bool = False) -> list[tuple[str, torch.dtype]]:
    """The kernels, and types of numbers, that are compared at all; a kernel that is new is, in all types."""
    return [
        (name, dtype)
        for name, dtype in itertools.product(OTHERS, TOLERANCE)
        if (name, dtype, documents, gradients) not in LEFT_OUT
    ]


def requirements(pattern: Pattern, T: int = 8, S: int = 8, **changes: object) -> Requirements:
    plain = {"device": "cpu", "dtype": torch.float32, "documents": False, "dropout": 0.0, "training": True}
    return Requirements(pattern=pattern, n_queries=T, n_keys=S, **{**plain, **changes})


def inputs(T: int, S: int, dtype: torch.dtype, B: int = 2, H: int = 3, K: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 * T + S)
    return [torch.randn(B, H, n, K, generator=generator).to(dtype).requires_grad_() for n in (T, S, S)]


def attend_and_gradients(attend, qkv: list[torch.Tensor], *args: object, **kwargs: object) -> list[torch.Tensor]:
    """The result and, of inputs that ask for them, the gradients."""
    result = attend(*qkv, *args, **kwargs)
    if not result.requires_grad:
        return [result]
    weights = torch.linspace(-1, 1, result.numel(), dtype=result.dtype).view(result.shape)
    return [result, *torch.autograd.grad((result * weights).sum(), qkv)]


def left_out(kernel: str, asked: Requirements) -> str | None:
    """The reason in LEFT_OUT, which must be the one that the kernel gives; the test is skipped without a compiler."""
    if missing := {"native": library().problem, "flex": compiler_problem("cpu")}.get(kernel):
        pytest.skip(f"{kernel}: {missing}")
    expected = LEFT_OUT.get((kernel, asked.dtype, asked.documents, asked.training))
    assert KERNELS[kernel].supports(asked) == expected
    return expected


def fitting_inputs(kernel: str, asked: Requirements) -> list[torch.Tensor] | None:
    """Inputs with gradients if the kernel has a backward here, else without; None if it does not fit at all."""
    with_gradients = left_out(kernel, asked) is None
    if not with_gradients and left_out(kernel, dataclasses.replace(asked, training=False)):
        return None
    return [each.requires_grad_(with_gradients) for each in inputs(asked.n_queries, asked.n_keys, asked.dtype)]


@pytest.fixture(autouse=True)
def _quick_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention computed step by step: compiling takes seconds a pattern, and test_flex.py has some compiled."""
    torch.compiler.reset()
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(flex, "_compiled", flex._attend)
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def test_the_grid_holds_every_pattern_of_the_table() -> None:
    assert {type(each) for each in TRIED} >= set(PATTERNS.values())


@pytest.mark.parametrize("kernel", OTHERS)
def test_the_grid_leaves_out_exactly_what_its_table_says(kernel: str) -> None:
    assert {name for name, *_ in LEFT_OUT} <= set(KERNELS)
    for pattern, dtype, documents, training in itertools.product(TRIED, TOLERANCE, (False, True), (False, True)):
        left_out(kernel, requirements(pattern, dtype=dtype, documents=documents, training=training))


def compare_over_all_lengths(kernel: str, pattern: Pattern, dtype: torch.dtype) -> None:
    tried = 0
    for T in (1, 2, 7, 33):
        for q_start, spare in ((0, 0), (4, 0), (0, 3), (6, 2)):
            S = q_start + T + spare
            for documents in (None, torch.stack([torch.arange(S) // 4, torch.arange(S) // 9 + 1])):
                qkv = fitting_inputs(kernel, requirements(pattern, T, S, dtype=dtype, documents=documents is not None))
                if qkv is None:
                    continue
                tried += 1
                kwargs = {"q_start": q_start, "documents": documents}
                got = attend_and_gradients(KERNELS[kernel].attend, qkv, pattern, **kwargs)
                expected = attend_and_gradients(reference.attend, qkv, pattern, **kwargs)
                for actual, exact in zip(got, expected, strict=True):
                    torch.testing.assert_close(actual, exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    assert tried == (16 if (kernel, dtype, True, False) in LEFT_OUT else 32)


@pytest.mark.parametrize("pattern", TRIED, ids=str)
@pytest.mark.parametrize(("kernel", "dtype"), covered(), ids=str)
def test_kernel_equals_the_reference_forward_and_backward(kernel: str, pattern: Pattern, dtype: torch.dtype) -> None:
    compare_over_all_lengths(kernel, pattern, dtype)


LONG = [
    Banded(128),
    Banded(256),
    Strided(32),
    Fixed(128, 8),
    Banded(64) | Strided(32),
    PerHead(Banded(128), Strided(128), Fixed(64, 16)),
]


@pytest.mark.parametrize("pattern", LONG, ids=str)
@pytest.mark.parametrize(
    ("kernel", "dtype"), [case for case in covered(gradients=True) if case[1] != torch.float64], ids=str
)
def test_kernel_equals_the_reference_at_lengths_around_its_tiles(
    kernel: str, pattern: Pattern, dtype: torch.dtype
) -> None:
    for n in (1, 2, 127, 128, 129, 1000):
        assert left_out(kernel, requirements(pattern, n, n, dtype=dtype)) is None
        qkv = inputs(n, n, dtype, B=1, K=16)
        got = attend_and_gradients(KERNELS[kernel].attend, qkv, pattern)
        expected = attend_and_gradients(reference.attend, qkv, pattern)
        for actual, exact in zip(got, expected, strict=True):
            torch.testing.assert_close(actual, exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


FIT = ["reference", *dict.fromkeys(name for name, _ in covered())]


@pytest.mark.parametrize("kernel", FIT)
@pytest.mark.parametrize("pattern", [Dense(), Banded(3), PerHead(Fixed(4, 1), Strided(3))], ids=str)
def test_one_query_at_a_time_equals_all_at_once(kernel: str, pattern: Pattern) -> None:
    attend = KERNELS[kernel].attend
    q, k, v = fitting_inputs(kernel, requirements(pattern, 11, 11)) or []
    steps = [
        attend(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], pattern, q_start=t) for t in range(q.shape[2])
    ]
    torch.testing.assert_close(torch.cat(steps, dim=2), attend(q, k, v, pattern), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kernel", [name for name in KERNELS if not KERNELS[name].supports(requirements(Dense(), dropout=0.25))]
)
@pytest.mark.parametrize("pattern", [Dense(), Banded(4)], ids=str)
def test_dropout_drops_this_share_of_the_weights_and_keeps_the_mean(kernel: str, pattern: Pattern) -> None:
    B, H, T, dropout = 8, 4, 32, 0.25
    q = torch.zeros(B, H, T, T)
    values = torch.eye(T).expand(B, H, T, T)  # the result is then the matrix of weights itself
    attend = KERNELS[kernel].attend
    weights = attend(q, q, values, pattern, dropout=Dropout(dropout, 7 ** torch.arange(B)))
    full = attend(q, q, values, pattern)
    kept = weights[full > 0] > 0
    assert kept.float().mean().item() == pytest.approx(1 - dropout, abs=0.02)
    torch.testing.assert_close(weights[weights > 0], (full / (1 - dropout))[weights > 0])
    assert weights.sum(-1).mean().item() == pytest.approx(1, abs=0.02)
    assert (weights[full == 0] == 0).all()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pattern", [Dense(), Banded(3)], ids=str)
def test_queries_beyond_the_keys_are_refused_by_all(kernel: str, pattern: Pattern) -> None:
    q, k, v = inputs(3, 5, torch.float32)
    with pytest.raises(BadValue, match="queries reach position 5"):
        KERNELS[kernel].attend(q, k, v, pattern, q_start=3)


@pytest.mark.parametrize("kernel", FIT)
@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_attention_is_traced_as_one_graph(kernel: str, pattern: Pattern) -> None:
    attend = KERNELS[kernel].attend
    traced = torch.compile(attend, fullgraph=True, backend="eager")
    documents = (torch.arange(9) // 4).expand(2, 9)
    if fitting_inputs(kernel, requirements(pattern, 7, 9, documents=True)) is None:
        documents = None
    q, k, v = fitting_inputs(kernel, requirements(pattern, 7, 9)) or []
    kwargs = {"q_start": 1, "documents": documents}
    torch.testing.assert_close(traced(q, k, v, pattern, **kwargs), reference.attend(q, k, v, pattern, **kwargs))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("kernel", FIT)
@pytest.mark.skipif(compiler_problem("cpu") is not None, reason="torch.compile needs a compiler and Python.h")
def test_compiled_attention_equals_eager_forward_and_backward(kernel: str) -> None:
    attend, pattern = KERNELS[kernel].attend, PerHead(Banded(2) | Strided(3), Fixed(4, 1))
    compiled = torch.compile(attend, fullgraph=True, dynamic=False)
    qkv = fitting_inputs(kernel, requirements(pattern, 7, 7)) or []
    for actual, exact in zip(
        attend_and_gradients(compiled, qkv, pattern), attend_and_gradients(attend, qkv, pattern), strict=True
    ):
        torch.testing.assert_close(actual, exact, rtol=1e-5, atol=1e-5)
