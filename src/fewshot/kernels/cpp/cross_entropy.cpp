// Cross-entropy of rows of logits, and its gradient in their place, for CPUs. Called by cross_entropy.py.

#include <cmath>

#include "vectors.h"

namespace {

// A row in blocks of a vector. The last one may be shorter: it is worked on in `tail`, filled up with minus infinity.
template <typename Number>
struct Row {
    Number *data;
    int64_t n;
    Number tail[LANES];

    Row(Number *data, int64_t n) : data(data), n(n) {
        const vec nothing = vec{} + NOTHING;
        store(tail, nothing);
        if (n % LANES) std::memcpy(tail, data + n - n % LANES, n % LANES * sizeof(Number));
    }
    Number *block(int64_t i) { return i + LANES <= n ? data + i : tail; }
    void put_back() {
        if (n % LANES) std::memcpy(data + n - n % LANES, tail, n % LANES * sizeof(Number));
    }
};

// Returns the loss in nats; with a gradient the row becomes that of `scale` times the loss.
template <typename Number>
double differentiate(Number *logits, int64_t n, int64_t target, float scale, bool with_gradient) {
    Row<Number> row(logits, n);
    vec highest = vec{} + NOTHING;
    for (int64_t i = 0; i < n; i += LANES) {
        const vec x = load(row.block(i));
        highest = x > highest ? x : highest;
    }
    float top = highest[0];
    for (int lane = 1; lane < LANES; lane++) top = highest[lane] > top ? highest[lane] : top;
    vec total{};
    for (int64_t i = 0; i < n; i += LANES) total += power_of_two((load(row.block(i)) - top) * LOG2E);
    double sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += total[lane];
    Number around[LANES];  // the target alone, as a vector
    vec alone = vec{};
    store(around, alone);
    around[0] = logits[target];
    const vec chosen = load(around) - top;
    if (with_gradient) {
        const float factor = static_cast<float>(scale / sum);
        for (int64_t i = 0; i < n; i += LANES) {
            Number *block = row.block(i);
            store(block, power_of_two((load(block) - top) * LOG2E) * factor);
        }
        row.put_back();
        store(around, power_of_two(chosen * LOG2E) * factor - scale);
        logits[target] = around[0];
    }
    return std::log(sum) - chosen[0];
}

template <typename Number>
void differentiate_rows(Number *logits, int64_t n_rows, int64_t n, const int64_t *targets, float scale, bool with_gradient,
                        int64_t n_threads, double *losses) {
#pragma omp parallel for num_threads(static_cast<int>(n_threads)) schedule(static)
    for (int64_t i = 0; i < n_rows; i++) {
        Number *row = logits + i * n;
        losses[i] = targets[i] < 0 ? 0 : differentiate(row, n, targets[i], scale, with_gradient);
        if (targets[i] < 0 && with_gradient) std::memset(row, 0, n * sizeof(Number));
    }
}

}  // namespace

extern "C" {

// logits [n_rows, n] are float or bfloat16; a target below 0 does not count. losses [n_rows] are in nats.
void fewshot_cross_entropy(void *logits, int64_t is_bf16, int64_t n_rows, int64_t n, const int64_t *targets, float scale,
                           int64_t with_gradient, int64_t n_threads, double *losses) {
    if (is_bf16)
        differentiate_rows(static_cast<uint16_t *>(logits), n_rows, n, targets, scale, with_gradient, n_threads, losses);
    else
        differentiate_rows(static_cast<float *>(logits), n_rows, n, targets, scale, with_gradient, n_threads, losses);
}

}  // extern "C"
