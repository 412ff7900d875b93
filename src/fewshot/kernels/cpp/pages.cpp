// Attention over a KV cache in pages of 16 positions, for CPUs: a query's sums run over its keys in the order of their
// positions, whatever queries stand beside it. Called by invariant/attention.py.
//
// A page of one head holds 16 keys turned, [K][16], so that scores of 16 keys are computed at once, and then 16 values
// [16][K]. Queries of one text go in groups of up to GROUP, which read the same pages; each has a mask of the 16 keys.

#include <algorithm>
#include <vector>

#include "pages.h"
#include "threads.h"
#include "vectors.h"

namespace {

constexpr int PAGE = 16, VECTORS = PAGE / LANES, GROUP = 4, CHUNK = 4;  // CHUNK: vectors of values at once

template <typename T>
inline T *block(T *cache, const Pages &work, int64_t page, int64_t unit, int values) {
    return cache + ((page * work.n_units + unit) * 2 + values) * PAGE * work.padded;
}

inline vec masked(vec x, uint16_t mask, int vector) {
    ivec bit;
    for (int lane = 0; lane < LANES; lane++) bit[lane] = 1 << (vector * LANES + lane);
    return (bit & (ivec{} + mask)) != 0 ? x : vec{} + NOTHING;
}

// scores[g][page][16] of N queries, each scaled and base 2.
template <int N, typename T>
void score(const Pages &work, const T *cache, int64_t unit, const int32_t *pages, const uint16_t *masks, int64_t n_pages,
           const float *q, float *scores) {
    for (int64_t at = 0; at < n_pages; at++) {
        const T *keys = block(cache, work, pages[at], unit, 0);
        vec sum[N][VECTORS] = {};
        for (int64_t d = 0; d < work.width; d++)
            for (int v = 0; v < VECTORS; v++) {
                const vec key = load(keys + d * PAGE + v * LANES);
                for (int g = 0; g < N; g++) sum[g][v] += q[g * work.padded + d] * key;
            }
        for (int g = 0; g < N; g++) {
            const uint16_t mask = masks[at * GROUP + g];
            for (int v = 0; v < VECTORS; v++)
                store(scores + (g * n_pages + at) * PAGE + v * LANES, mask == 0xffff ? sum[g][v] : masked(sum[g][v], mask, v));
        }
    }
}

// The weights of one query in place of its scores; returns their sum, added in one order.
float soften(float *scores, int64_t n_pages) {
    vec high = vec{} + NOTHING;
    for (int64_t i = 0; i < n_pages * PAGE; i += LANES) high = load(scores + i) > high ? load(scores + i) : high;
    float top = NOTHING;
    for (int lane = 0; lane < LANES; lane++) top = high[lane] > top ? high[lane] : top;
    const vec base = vec{} + (top == NOTHING ? 0.0f : top);
    vec sum[VECTORS] = {};
    for (int64_t at = 0; at < n_pages; at++)
        for (int v = 0; v < VECTORS; v++) {
            float *s = scores + at * PAGE + v * LANES;
            const vec weight = power_of_two(load(s) - base);
            store(s, weight);
            sum[v] += weight;
        }
    float total = 0;
    for (int v = 0; v < VECTORS; v++)
        for (int lane = 0; lane < LANES; lane++) total += sum[v][lane];
    return total;
}

// Vectors first to first + N_VECTORS of the mixed values of N queries. A value that a query does not read is not
// multiplied by 0: it may be no number.
template <int N, int N_VECTORS, typename T>
void mix(const Pages &work, const T *cache, int64_t unit, const int32_t *pages, const uint16_t *masks, int64_t n_pages,
         const float *weights, int64_t first, float *mixed) {
    vec sum[N][N_VECTORS] = {};
    for (int64_t at = 0; at < n_pages; at++) {
        const T *values = block(cache, work, pages[at], unit, 1) + first * LANES;
        uint16_t all = 0xffff;
        for (int g = 0; g < N; g++) all &= masks[at * GROUP + g];
        for (int j = 0; j < PAGE; j++)
            for (int v = 0; v < N_VECTORS; v++) {
                const vec value = load(values + j * work.padded + v * LANES);
                for (int g = 0; g < N; g++)
                    if (all == 0xffff || masks[at * GROUP + g] >> j & 1)
                        sum[g][v] += weights[(g * n_pages + at) * PAGE + j] * value;
            }
    }
    for (int g = 0; g < N; g++)
        for (int v = 0; v < N_VECTORS; v++) store(mixed + g * work.padded + (first + v) * LANES, sum[g][v]);
}

template <int N, typename T>
void attend(const Pages &work, const float *q, int64_t q_row, const T *cache, int64_t group, int64_t nth, float *memory,
            float *out) {
    const int64_t first_query = group ? work.group_ends[group - 1] : 0, n = work.group_ends[group] - first_query;
    const int64_t first_page = group ? work.page_ends[group - 1] : 0, n_pages = work.page_ends[group] - first_page;
    const int64_t head = work.head_first + nth * work.head_step, unit = work.first_unit + nth;
    const int32_t *pages = work.pages + first_page;
    const float scale = LOG2E / __builtin_sqrtf(static_cast<float>(work.width));
    float *scaled = memory, *mixed = scaled + GROUP * work.padded, *scores = mixed + GROUP * work.padded;
    std::fill(scaled, scaled + N * work.padded, 0.0f);
    for (int64_t g = 0; g < n; g++)
        for (int64_t d = 0; d < work.width; d++)
            scaled[g * work.padded + d] = q[(first_query + g) * q_row + head * work.width + d] * scale;
    const uint16_t *masks = work.masks + first_page * GROUP;
    score<N>(work, cache, unit, pages, masks, n_pages, scaled, scores);
    float sums[N];
    for (int g = 0; g < N; g++) sums[g] = soften(scores + g * n_pages * PAGE, n_pages);
    int64_t v = 0;
    for (; v + CHUNK <= work.padded / LANES && LANES == 16; v += CHUNK) mix<N, CHUNK>(work, cache, unit, pages, masks, n_pages, scores, v, mixed);
    for (; v < work.padded / LANES; v += VECTORS) mix<N, VECTORS>(work, cache, unit, pages, masks, n_pages, scores, v, mixed);
    for (int64_t g = 0; g < n; g++)
        for (int64_t d = 0; d < work.width; d++)
            out[((first_query + g) * work.n_heads + head) * work.width + d] = mixed[g * work.padded + d] / sums[g];
}

template <typename T>
void attend_all(const Pages &work, const float *q, int64_t q_row, const T *cache, float *out) {
    const int64_t n_heads = (work.n_heads - work.head_first + work.head_step - 1) / work.head_step;
    int64_t most = 0;
    for (int64_t group = 0; group < work.n_groups; group++)
        most = std::max(most, work.page_ends[group] - (group ? work.page_ends[group - 1] : 0));
    const int64_t n_pages = work.n_groups ? work.page_ends[work.n_groups - 1] : 0;
#pragma omp parallel num_threads(useful_threads(work.n_threads, n_pages * n_heads * PAGE * work.padded * 8))
    {
        std::vector<float> memory(GROUP * (2 * work.padded + most * PAGE));
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t group = 0; group < work.n_groups; group++)
            for (int64_t nth = 0; nth < n_heads; nth++) {
                const int64_t n = work.group_ends[group] - (group ? work.group_ends[group - 1] : 0);
                if (n == 1) attend<1>(work, q, q_row, cache, group, nth, memory.data(), out);
                else attend<GROUP>(work, q, q_row, cache, group, nth, memory.data(), out);
            }
    }
}

template <typename T>
void write_all(const Pages &work, const float *k, const float *v, int64_t row, T *cache, const int64_t *slots, int64_t n) {
    const int64_t n_heads = (work.n_heads - work.head_first + work.head_step - 1) / work.head_step;
    for (int64_t i = 0; i < n; i++)
        for (int64_t nth = 0; nth < n_heads; nth++) {
            const int64_t page = slots[i] / PAGE, lane = slots[i] % PAGE, from = i * row + (work.head_first + nth * work.head_step) * work.width;
            T *keys = block(cache, work, page, work.first_unit + nth, 0), *values = block(cache, work, page, work.first_unit + nth, 1);
            for (int64_t d = 0; d < work.width; d++) {
                keys[d * PAGE + lane] = narrowed<T>(k[from + d]);
                values[lane * work.padded + d] = narrowed<T>(v[from + d]);
            }
        }
}

}  // namespace

extern "C" {

// q has rows of `q_row` floats, of which the first n_heads * K count; out [queries, n_heads, K].
void fewshot_attend_pages(const Pages *work, const float *q, int64_t q_row, const void *cache, float *out) {
    if (work->is_bf16) attend_all(*work, q, q_row, static_cast<const uint16_t *>(cache), out);
    else attend_all(*work, q, q_row, static_cast<const float *>(cache), out);
}

// Puts the keys and values of n tokens, in rows of `row` floats, into their slots (16 times the page, and the place in it).
void fewshot_write_pages(const Pages *work, const float *k, const float *v, int64_t row, void *cache, const int64_t *slots,
                         int64_t n) {
    if (work->is_bf16) write_all(*work, k, v, row, static_cast<uint16_t *>(cache), slots, n);
    else write_all(*work, k, v, row, static_cast<float *>(cache), slots, n);
}

}  // extern "C"
