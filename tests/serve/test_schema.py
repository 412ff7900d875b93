from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import given as over
from hypothesis import strategies as st

from fewshot.serve.schema import ApiError, given, parse_request


def test_0_and_false_are_values_and_only_null_has_the_default() -> None:
    assert given(0, 16) == 0
    assert given(False, True) is False
    assert given(None, 16) == 16


def test_every_fault_is_one_short_line_that_can_be_sent() -> None:
    for body in (b'{"a\\u2028b\\n": 1}', b'{"' + b"x" * 9999 + b'": 1}', b"{", b'{"prompt": {"a": [1]}}'):
        with pytest.raises(ApiError) as caught:
            parse_request(body)
        message = caught.value.body["message"]
        assert message.isascii()
        assert message.isprintable()
        assert len(message) < 400


MILLION_FAULTS = {
    "prompts that are none": b'{"prompt": [' + b", ".join([b"null"] * 300_000) + b"]}",
    "tokens that are none": b'{"prompt": [[' + b", ".join([b"null"] * 300_000) + b"]]}",
    "names that are not known": b"{" + b", ".join(b'"%x": 1' % i for i in range(150_000)) + b"}",
    "biases that are none": b'{"logit_bias": {' + b", ".join(b'"%x": ""' % i for i in range(150_000)) + b"}}",
}


@pytest.mark.parametrize("case", MILLION_FAULTS)
def test_many_faults_take_no_more_memory_than_other_bodies(case: str) -> None:
    tracemalloc.start()
    with pytest.raises(ApiError):
        parse_request(MILLION_FAULTS[case])
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 10 * len(MILLION_FAULTS[case])  # a list of all faults takes a hundred times as much


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = ["prompt", "max_tokens", "n", "stop", "logit_bias", "stream_options", "seed", "echo", "suffix", "new"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@over(body=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=4))
def test_any_json_is_a_request_or_an_error(body: dict[str, object]) -> None:
    try:
        request = parse_request(json.dumps(body).encode())
    except ApiError as error:
        refusal = error
    else:
        assert request.suffix is None
        assert "new" not in body
        return
    assert refusal.status == 400
    assert json.dumps(refusal.body)
