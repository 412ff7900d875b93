// x * sigmoid(x (p + q x^2)), which is GELU's tanh form or the Sparse Transformer's, and its derivative, for CPUs.
// Called by elementwise/gelu.py, and by invariant/gelu.py for float32, which has GELU itself and ReLU beside it. Whatever
// the numbers are, all is computed in float.

#include <cmath>

#include "threads.h"
#include "vectors.h"

namespace {

// sigmoid(z), computed with a power that cannot overflow.
inline vec sigmoid(vec z) {
    const vec zero{};
    const vec small = power_of_two((z < zero ? z : -z) * LOG2E);
    return (z < zero ? small : vec{} + 1.0f) / (1.0f + small);
}

inline vec gelu(vec x, float p, float q) { return x * sigmoid(x * (p + q * x * x)); }

inline vec slope(vec x, float p, float q) {
    const vec square = x * x, s = sigmoid(x * (p + q * square));
    return s + x * s * (1.0f - s) * (p + 3.0f * q * square);
}

// Calls compute(block of numbers) for every LANES of them; the last may be shorter, and is then worked on in a copy.
template <typename Compute>
void over_blocks(int64_t n, int64_t n_threads, Compute compute) {
    const int64_t whole = n / LANES;
#pragma omp parallel for num_threads(useful_threads(n_threads, n * 64)) schedule(static)
    for (int64_t i = 0; i < whole; i++) compute(i * LANES, LANES);
    if (n % LANES) compute(whole * LANES, n % LANES);
}

template <typename T>
inline vec load_some(const T *from, int64_t n) {
    if (n == LANES) return load(from);
    T block[LANES] = {};
    std::memcpy(block, from, n * sizeof(T));
    return load(block);
}

template <typename T>
inline void store_some(T *to, vec x, int64_t n) {
    if (n == LANES) return store(to, x);
    T block[LANES];
    store(block, x);
    std::memcpy(to, block, n * sizeof(T));
}

}  // namespace

extern "C" {

// Writes the values at the n numbers `x` to `out`.
void fewshot_gelu(const uint16_t *x, int64_t n, float p, float q, int64_t n_threads, uint16_t *out) {
    over_blocks(n, n_threads, [=](int64_t i, int64_t some) { store_some(out + i, gelu(load_some(x + i, some), p, q), some); });
}

// The same of float32, or what `form` says: 1 for GELU itself, x (1 + erf(x / sqrt 2)) / 2, 2 for ReLU.
void fewshot_activate_float32(const float *x, int64_t n, int64_t form, float p, float q, int64_t n_threads, float *out) {
    if (form == 0) {
        over_blocks(n, n_threads, [=](int64_t i, int64_t some) { store_some(out + i, gelu(load_some(x + i, some), p, q), some); });
        return;
    }
    over_blocks(n, n_threads, [=](int64_t i, int64_t some) {
        for (int64_t j = i; j < i + some; j++)
            out[j] = form == 1 ? 0.5f * x[j] * (1.0f + std::erf(x[j] * static_cast<float>(M_SQRT1_2))) : x[j] < 0.0f ? 0.0f : x[j];
    });
}

// Writes grad times the derivatives at `x` to `out`.
void fewshot_gelu_backward(const uint16_t *grad, const uint16_t *x, int64_t n, float p, float q, int64_t n_threads,
                           uint16_t *out) {
    over_blocks(n, n_threads, [=](int64_t i, int64_t some) {
        store_some(out + i, load_some(grad + i, some) * slope(load_some(x + i, some), p, q), some);
    });
}

}  // extern "C"
