"""Every kernel of the table against the reference; a new row in KERNELS is covered with no edit here."""

from __future__ import annotations

import dataclasses
import shutil
import sysconfig
from pathlib import Path

import pytest
import torch
from torch.nn.attention import flex_attention

from fewshot.base.errors import BadValue
from fewshot.kernels import flex, reference
from fewshot.kernels.choose import KERNELS
from fewshot.kernels.need import Need
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


def need(pattern: Pattern, T: int = 8, S: int = 8, **changes: object) -> Need:
    plain = {"device": "cpu", "dtype": torch.float32, "documents": False, "dropout": 0.0, "training": True}
    return Need(pattern=pattern, n_queries=T, n_keys=S, **{**plain, **changes})


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


def fitting_inputs(kernel: str, asked: Need) -> list[torch.Tensor] | str:
    """Inputs with gradients if the kernel has a backward here, else without; if it does not fit at all, the reason."""
    supports = KERNELS[kernel].supports
    problem = supports(asked)
    if problem and (problem := supports(dataclasses.replace(asked, training=False))):
        return f"{kernel}: {problem}"
    with_gradients = supports(asked) is None
    return [each.requires_grad_(with_gradients) for each in inputs(asked.n_queries, asked.n_keys, asked.dtype)]


def inputs_or_skip(kernel: str, asked: Need) -> list[torch.Tensor]:
    found = fitting_inputs(kernel, asked)
    return pytest.skip(found) if isinstance(found, str) else found


@pytest.fixture(autouse=True)
def _quick_flex(monkeypatch: pytest.MonkeyPatch) -> None:
    """FlexAttention computed step by step: compiling takes seconds a pattern, and test_flex.py has some compiled."""
    torch.compiler.reset()
    monkeypatch.setattr(flex, "_compiled", flex._attend)
    monkeypatch.setattr(flex_attention, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def test_the_grid_holds_every_pattern_of_the_table() -> None:
    assert {type(each) for each in TRIED} >= set(PATTERNS.values())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("pattern", TRIED, ids=str)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "reference"])
def test_kernel_equals_the_reference_forward_and_backward(kernel: str, pattern: Pattern, dtype: torch.dtype) -> None:
    problems, tried = set(), 0
    for T in (1, 2, 7, 33):
        for q_start, spare in ((0, 0), (4, 0), (0, 3), (6, 2)):
            S = q_start + T + spare
            for documents in (None, torch.stack([torch.arange(S) // 4, torch.arange(S) // 9 + 1])):
                asked = need(pattern, T, S, dtype=dtype, documents=documents is not None)
                qkv = fitting_inputs(kernel, asked)
                if isinstance(qkv, str):
                    problems.add(qkv)
                    continue
                tried += 1
                kwargs = {"q_start": q_start, "documents": documents}
                got = attend_and_gradients(KERNELS[kernel].attend, qkv, pattern, **kwargs)
                expected = attend_and_gradients(reference.attend, qkv, pattern, **kwargs)
                for one, other in zip(got, expected, strict=True):
                    torch.testing.assert_close(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    if not tried:
        pytest.skip("; ".join(sorted(problems)))


LONG = [
    Banded(128),
    Banded(256),
    Strided(32),
    Fixed(128, 8),
    Banded(64) | Strided(32),
    PerHead(Banded(128), Strided(128), Fixed(64, 16)),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pattern", LONG, ids=str)
@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "reference"])
def test_kernel_equals_the_reference_at_lengths_around_its_tiles(
    kernel: str, pattern: Pattern, dtype: torch.dtype
) -> None:
    for n in (1, 2, 127, 128, 129, 1000):
        if (problem := KERNELS[kernel].supports(need(pattern, n, n, dtype=dtype))) is not None:
            pytest.skip(problem)
        qkv = inputs(n, n, dtype, B=1, K=16)
        got = attend_and_gradients(KERNELS[kernel].attend, qkv, pattern)
        expected = attend_and_gradients(reference.attend, qkv, pattern)
        for one, other in zip(got, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pattern", [Dense(), Banded(3), PerHead(Fixed(4, 1), Strided(3))], ids=str)
def test_one_query_at_a_time_equals_all_at_once(kernel: str, pattern: Pattern) -> None:
    attend = KERNELS[kernel].attend
    q, k, v = inputs_or_skip(kernel, need(pattern, 11, 11))
    steps = [
        attend(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1], pattern, q_start=t) for t in range(q.shape[2])
    ]
    torch.testing.assert_close(torch.cat(steps, dim=2), attend(q, k, v, pattern), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kernel", [name for name in KERNELS if not KERNELS[name].supports(need(Dense(), dropout=0.25))]
)
@pytest.mark.parametrize("pattern", [Dense(), Banded(4)], ids=str)
def test_dropout_drops_this_share_of_the_weights_and_keeps_the_mean(kernel: str, pattern: Pattern) -> None:
    B, H, T, dropout = 8, 4, 32, 0.25
    q = torch.zeros(B, H, T, T)
    values = torch.eye(T).expand(B, H, T, T)  # the result is then the matrix of weights itself
    attend = KERNELS[kernel].attend
    torch.manual_seed(5)
    weights = attend(q, q, values, pattern, dropout=dropout)
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


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("pattern", TRIED, ids=str)
def test_attention_is_traced_as_one_graph(kernel: str, pattern: Pattern) -> None:
    attend = KERNELS[kernel].attend
    traced = torch.compile(attend, fullgraph=True, backend="eager")
    documents = (torch.arange(9) // 4).expand(2, 9)
    if isinstance(fitting_inputs(kernel, need(pattern, 7, 9, documents=True)), str):
        documents = None
    q, k, v = inputs_or_skip(kernel, need(pattern, 7, 9))
    kwargs = {"q_start": 1, "documents": documents}
    torch.testing.assert_close(traced(q, k, v, pattern, **kwargs), reference.attend(q, k, v, pattern, **kwargs))


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")  # inductor's own
@pytest.mark.parametrize("kernel", KERNELS)
def test_compiled_attention_equals_eager_forward_and_backward(kernel: str) -> None:
    if not shutil.which("g++") or not (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file():
        pytest.skip("torch.compile needs g++ and Python.h")
    attend, pattern = KERNELS[kernel].attend, PerHead(Banded(2) | Strided(3), Fixed(4, 1))
    compiled = torch.compile(attend, fullgraph=True, dynamic=False)
    qkv = inputs_or_skip(kernel, need(pattern, 7, 7))
    for one, other in zip(
        attend_and_gradients(compiled, qkv, pattern), attend_and_gradients(attend, qkv, pattern), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
