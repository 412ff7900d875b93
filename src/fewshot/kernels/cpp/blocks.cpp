// The transformer blocks of a model, one after the other, for the next tokens of some texts: what a row gives is the same
// to the bit whatever rows stand beside it, as all that is called here is so. Called by invariant/blocks.py.

#include <algorithm>
#include <cmath>
#include <vector>

#include "pages.h"
#include "vectors.h"

extern "C" {
void fewshot_rows(const float *x, int64_t n_rows, int64_t n_inputs, int64_t n_outputs, const void *packed, int64_t kind,
                  const float *scale, const float *bias, int64_t n_threads, float *out);
void fewshot_activate_float32(const float *x, int64_t n, int64_t form, float p, float q, int64_t n_threads, float *out);
void fewshot_attend_pages(const Pages *work, const float *q, int64_t q_row, const void *cache, float *out);
void fewshot_write_pages(const Pages *work, const float *k, const float *v, int64_t row, void *cache, const int64_t *slots,
                         int64_t n);
}

namespace {

struct Linear {
    int64_t n_inputs, n_outputs, kind;  // of weights, as rows.cpp has it
    const void *packed;
    const float *scale, *bias;
};

struct Norm {
    const float *weight, *bias;
    double epsilon;
};

struct Block {
    int64_t norm_first;  // pre-LN, else post-LN
    int64_t activation;  // its form, as gelu.cpp has it, and two numbers of that
    double gelu_p, gelu_q;
    Norm ln_1, ln_2;
    Linear c_attn, c_proj, c_fc, c_out;
};

// Heads of a layer that have one pattern: their pages, and where the new tokens' keys and values go.
struct Part {
    Pages pages;
    void *cache;
    const int64_t *slots;
};

float sum_of(const float *x, int64_t n, float mean, bool squared) {
    vec sums = {};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        const vec centred = load(x + i) - mean;
        sums += squared ? centred * centred : centred;
    }
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += sums[lane];
    for (; i < n; i++) total += squared ? (x[i] - mean) * (x[i] - mean) : x[i] - mean;
    return total;
}

void normalise(const Norm &norm, const float *rows, int64_t n_rows, int64_t width, float *out) {
    for (int64_t row = 0; row < n_rows; row++) {
        const float *x = rows + row * width;
        const float mean = sum_of(x, width, 0, false) / width;
        const float scale = 1 / std::sqrt(sum_of(x, width, mean, true) / width + static_cast<float>(norm.epsilon));
        for (int64_t i = 0; i < width; i++) out[row * width + i] = (x[i] - mean) * scale * norm.weight[i] + norm.bias[i];
    }
}

void multiply(const Linear &linear, const float *x, int64_t n_rows, int64_t n_threads, float *out) {
    fewshot_rows(x, n_rows, linear.n_inputs, linear.n_outputs, linear.packed, linear.kind, linear.scale, linear.bias,
                 n_threads, out);
}

void add(const float *from, int64_t n, float *to) {
    for (int64_t i = 0; i < n; i++) to[i] += from[i];
}

}  // namespace

extern "C" {

// x [n_rows, D] goes through the blocks and is what they give in the end. Each block has `n_parts` of its own in `parts`.
void fewshot_blocks(const Block *blocks, int64_t n_blocks, const Part *parts, const int64_t *n_parts, int64_t n_rows,
                    int64_t n_threads, float *x) {
    int64_t most = 0;
    for (int64_t i = 0; i < n_blocks; i++) most = std::max({most, blocks[i].c_attn.n_outputs, blocks[i].c_fc.n_outputs});
    const int64_t width = blocks[0].c_attn.n_inputs, size = n_rows * width;
    std::vector<float> normed(size), wide(n_rows * most), mixed(n_rows * most);
    for (int64_t i = 0; i < n_blocks; parts += n_parts[i++]) {
        const Block &block = blocks[i];
        const float *input = x;
        if (block.norm_first) normalise(block.ln_1, x, n_rows, width, normed.data()), input = normed.data();
        multiply(block.c_attn, input, n_rows, n_threads, wide.data());
        const int64_t row = block.c_attn.n_outputs, third = row / 3;
        for (int64_t p = 0; p < n_parts[i]; p++) {
            const Part &part = parts[p];
            fewshot_write_pages(&part.pages, wide.data() + third, wide.data() + 2 * third, row, part.cache, part.slots, n_rows);
            fewshot_attend_pages(&part.pages, wide.data(), row, part.cache, mixed.data());
        }
        multiply(block.c_proj, mixed.data(), n_rows, n_threads, normed.data());
        add(normed.data(), size, x);
        if (!block.norm_first) normalise(block.ln_1, x, n_rows, width, x);
        input = x;
        if (block.norm_first) normalise(block.ln_2, x, n_rows, width, normed.data()), input = normed.data();
        multiply(block.c_fc, input, n_rows, n_threads, wide.data());
        fewshot_activate_float32(wide.data(), n_rows * block.c_fc.n_outputs, block.activation, block.gelu_p, block.gelu_q,
                                 n_threads, wide.data());
        multiply(block.c_out, wide.data(), n_rows, n_threads, normed.data());
        add(normed.data(), size, x);
        if (!block.norm_first) normalise(block.ln_2, x, n_rows, width, x);
    }
}

}  // extern "C"
