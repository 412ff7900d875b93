"""llm.c as a side of `fewshot bench train`: its train_gpt2.c, compiled as it is, driven line by line.

In: a folder with llm.c's train_gpt2.c and a shape. Out: the command of a program that keeps the protocol of
`training_side`. Nothing of llm.c is changed or kept: its file is included by a driver in a temporary folder.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fewshot.base.errors import BadValue, check

FLAGS = ("-Ofast", "-fno-finite-math-only", "-march=native", "-fopenmp", "-w")  # its own Makefile's
MAGIC, VERSION = 20240326, 3  # of llm.c's model files: float32, padded vocabulary
VOCAB_MULTIPLE = 128  # to which its vocabulary is padded

# Its own main is left out by TESTING. A line in is a number of steps, a line out the seconds they took.
DRIVER = r"""
#define TESTING
#include "train_gpt2.c"
#include <time.h>
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}
int main(int argc, char **argv) {
    const int B = atoi(argv[2]), T = atoi(argv[3]);
    GPT2 model;
    fflush(stdout);
    const int answers = dup(1);
    dup2(2, 1);
    FILE *out = fdopen(answers, "w");
    gpt2_build_from_checkpoint(&model, argv[1]);
    int *tokens = malloc((B * T + 1) * sizeof(int));
    unsigned int state = 1;
    int done = 0, steps = 1;
    do {
        const double began = now();
        for (int i = 0; i < steps; i++) {
            for (int j = 0; j <= B * T; j++) {
                state = state * 1664525u + 1013904223u;
                tokens[j] = (state >> 8) % model.config.vocab_size;
            }
            gpt2_forward(&model, tokens, tokens + 1, B, T);
            gpt2_zero_grad(&model);
            gpt2_backward(&model);
            gpt2_update(&model, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f, ++done);
        }
        fprintf(out, "{\"seconds\": %.9f, \"loss\": %.6f}\n", now() - began, model.mean_loss);
        fflush(out);
    } while (scanf("%d", &steps) == 1);
    return 0;
}
"""


def command(llmc: Path, work: Path, shape: Mapping[str, int]) -> list[str]:
    """Compile the driver in the folder `work`, write a random model there; return the command that runs them.

    Raises `BadValue` if it cannot be compiled.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise BadValue("--llmc needs gcc, and there is none on the PATH")
    source, program, model = work / "driver.c", work / "driver", work / "model.bin"
    source.write_text(DRIVER, encoding="utf-8")
    words = [compiler, *FLAGS, f"-I{llmc}", str(source), "-o", str(program), "-lm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    told = next((line for line in done.stderr.splitlines() if "error:" in line), done.stderr.strip()[:200])
    check(done.returncode == 0, f"--llmc {llmc}: gcc could not compile it: {told}")
    write_model(model, shape)
    return [str(program), str(model), str(shape["n_rows"]), str(shape["n_ctx"])]


def write_model(path: Path, shape: Mapping[str, int]) -> None:
    """Write random weights of this shape in llm.c's format: 256 int32, then float32 tensors, all layers of each."""
    layers, width, n_vocab = shape["n_layers"], shape["d_model"], shape["n_vocab"]
    padded = -(-n_vocab // VOCAB_MULTIPLE) * VOCAB_MULTIPLE
    header = np.zeros(256, dtype=np.int32)
    header[:8] = [MAGIC, VERSION, shape["n_ctx"], n_vocab, layers, shape["n_heads"], width, padded]
    vector, matrix = layers * width, layers * width * width
    # (numbers, standard deviation, mean) in llm.c's order; the residual projections are scaled as GPT-2's
    tensors = [
        (padded * width, 0.02, 0.0), (shape["n_ctx"] * width, 0.02, 0.0),  # wte, wpe
        (vector, 0.0, 1.0), (vector, 0.0, 0.0), (3 * matrix, 0.02, 0.0), (3 * vector, 0.0, 0.0),  # ln_1, c_attn
        (matrix, 0.02 / (2 * layers) ** 0.5, 0.0), (vector, 0.0, 0.0),  # c_proj
        (vector, 0.0, 1.0), (vector, 0.0, 0.0), (4 * matrix, 0.02, 0.0), (4 * vector, 0.0, 0.0),  # ln_2, c_fc
        (4 * matrix, 0.02 / (2 * layers) ** 0.5, 0.0), (vector, 0.0, 0.0),  # mlp.c_proj
        (width, 0.0, 1.0), (width, 0.0, 0.0),  # ln_f
    ]  # fmt: skip
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        header.tofile(file)
        for count, std, mean in tensors:
            numbers = random.standard_normal(count, dtype=np.float32) * np.float32(std) + np.float32(mean)
            numbers.tofile(file)
