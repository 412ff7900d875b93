from __future__ import annotations

import pytest
import torch

from fewshot.base.tensors import first_not_finite

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e5m2, torch.float8_e4m3fn)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_first_tensor_that_is_not_finite_is_named_whatever_its_type(dtype: torch.dtype):
    tensors = {"ids": torch.tensor([1]), "empty": torch.zeros(0), "whole": torch.ones(3).to(dtype)}
    assert first_not_finite(tensors) is None
    tensors |= {"first": torch.tensor([1.0, float("nan")]).to(dtype), "second": torch.tensor([float("nan")]).to(dtype)}
    assert first_not_finite(tensors) == "first"


@pytest.mark.parametrize("sign", [1, -1])
def test_an_infinity_of_either_sign_is_not_finite(sign: int):
    assert first_not_finite({"weight": torch.tensor([0.0, sign * float("inf")])}) == "weight"
