"""llm.c as a side, with a made-up train_gpt2.c."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from fewshot.base.errors import BadValue
from fewshot.bench.llmc import command, write_model
from fewshot.bench.train import started

SHAPE = {"n_layers": 2, "d_model": 4, "n_heads": 2, "n_ctx": 8, "n_vocab": 100, "n_rows": 3}

# Reads the header as llm.c does, and counts its calls; a step's loss tells the order of all of them.
STANDS_IN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
typedef struct { struct { size_t vocab_size; } config; float mean_loss; } GPT2;
static int calls = 0;
void gpt2_build_from_checkpoint(GPT2 *m, const char *path) {
    int header[256];
    FILE *f = fopen(path, "rb");
    if (fread(header, 4, 256, f) != 256) exit(1);
    printf("a line for people\n");
    m->config.vocab_size = header[3];
}
void gpt2_forward(GPT2 *m, int *in, int *out, size_t B, size_t T) {
    calls = 10 * calls + 1;
    m->mean_loss = B * T * (in[1] == out[0]);
}
void gpt2_zero_grad(GPT2 *m) { calls = 10 * calls + 2; }
void gpt2_backward(GPT2 *m) { calls = 10 * calls + 3; }
void gpt2_update(GPT2 *m, float lr, float b1, float b2, float eps, float wd, int t) {
    if (10 * calls + 4 != 1234) exit(3);
    calls = 0;
}
#ifndef TESTING
int main() { return 7; }
#endif
"""


def test_a_model_file_has_llmcs_header_and_every_tensor_at_the_padded_vocabulary(tmp_path: Path) -> None:
    write_model(tmp_path / "model.bin", SHAPE)
    words = np.fromfile(tmp_path / "model.bin", dtype=np.int32)
    assert words[:9].tolist() == [20240326, 3, 8, 100, 2, 2, 4, 128, 0]
    block = 4 * 4 * 12 + 4 * 9 + 4 * 4  # matrices; their biases; two norms
    numbers = words[256:].view(np.float32)
    assert len(numbers) == 128 * 4 + 8 * 4 + 2 * block + 2 * 4
    assert numbers[-8:].tolist() == [1.0] * 4 + [0.0] * 4  # the last norm


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_its_functions_are_called_in_the_order_of_a_step_and_only_answers_are_printed(
    tmp_path: Path,
) -> None:
    (tmp_path / "train_gpt2.c").write_text(STANDS_IN)
    with started("llm.c", command(tmp_path, tmp_path, SHAPE), {}) as side:
        assert side.ready["loss"] == 24  # rows times positions; targets are the tokens one place further on
        assert side.turn(3)["seconds"] >= 0


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_a_file_that_does_not_compile_is_told_with_the_compilers_words(tmp_path: Path) -> None:
    (tmp_path / "train_gpt2.c").write_text("not C")
    with pytest.raises(BadValue, match=r"could not compile it: \S*train_gpt2.c:1:1: error"):
        command(tmp_path, tmp_path, SHAPE)
