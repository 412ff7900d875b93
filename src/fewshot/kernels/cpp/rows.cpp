// Rows times a matrix, for CPUs: every output is one sum over the inputs in their order, whatever rows stand beside it,
// so that a row's result is the same to the bit in any batch. Called by invariant/linear.py, which packs the matrix:
// 16 outputs side by side, below each other their weights for input 0, 1, 2, ...; bfloat16 in pairs of inputs.

#include <algorithm>
#include <type_traits>
#include <vector>

#include "threads.h"
#include "vectors.h"
#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

constexpr int COLUMNS = 16, VECTORS = COLUMNS / LANES;  // of a block of outputs

enum Kind { FLOAT32 = 0, BFLOAT16 = 1, INT8 = 2 };

struct Rows {
    const float *x;  // [n_rows, n_inputs]
    int64_t n_rows, n_inputs, n_outputs;
    const void *packed;
    const float *scale, *bias;  // of each output, or null
    float *out;                 // [n_rows, n_outputs]
};

// What a row is read as: its inputs, or for bfloat16 on a processor that has its instructions pairs of them in a word.
#if defined(__AVX512BF16__)
template <Kind KIND> using Input = std::conditional_t<KIND == BFLOAT16, uint32_t, float>;
#else
template <Kind KIND> using Input = float;
#endif

// Steps of an inner loop: one reads as many bytes of every output's weights as its type has, for bfloat16 two of them.
template <Kind KIND>
inline int64_t n_steps(const Rows &work) { return KIND == BFLOAT16 ? (work.n_inputs + 1) / 2 : work.n_inputs; }
template <Kind KIND>
constexpr int STEP_INPUTS = KIND == BFLOAT16 && std::is_same_v<Input<KIND>, float> ? 2 : 1;  // of a row, in a step

// Rows that are computed together, `n` of them (those beyond `count` are copies of the first), and where their inputs
// begin, which stand side by side: of all rows the first, of all rows the second, ...
struct Group {
    int64_t first, count, n, inputs;
};

// ---- weights as vectors: WIDTH of them at one step ------------------------------------------------------------------

inline vec widened(const int8_t *from) {
#if defined(__AVX512F__)
    return (vec)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from))));
#elif defined(__AVX2__)
    return (vec)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from))));
#else
    vec wide;
    for (int lane = 0; lane < LANES; lane++) wide[lane] = from[lane];
    return wide;
#endif
}

inline vec first_of_pair(const uint32_t *from) {
    const bits_vec bits = *reinterpret_cast<const bits_vec *>(from) << 16;
    return reinterpret_cast<const vec &>(bits);
}
inline vec second_of_pair(const uint32_t *from) {
    const bits_vec bits = *reinterpret_cast<const bits_vec *>(from) & 0xffff0000u;
    return reinterpret_cast<const vec &>(bits);
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// All weights of a step are loaded before the rows are gone through: so 6 rows of 16 outputs stay in 16 registers.
template <int ROWS, int WIDTH, typename Weight>
inline void add(vec (&sums)[ROWS][WIDTH], const float *x, Weight weight_at) {
    vec weight[WIDTH];
    for (int v = 0; v < WIDTH; v++) weight[v] = weight_at(v);
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < WIDTH; v++) sums[r][v] += x[r] * weight[v];
}

// With `ahead` the weights of the next block are fetched meanwhile: memory would rest while further groups use these.
template <Kind KIND, int ROWS, int BLOCKS>
void tile(const Rows &work, const Input<KIND> *x, int64_t block, int64_t first, int64_t count, bool ahead) {
    constexpr int WIDTH = BLOCKS * VECTORS;
    vec sums[ROWS][WIDTH] = {};
    const int64_t steps = n_steps<KIND>(work);
    const int64_t jump = ahead ? steps * COLUMNS * (KIND == INT8 ? 1 : 4) : 0;  // bytes
    const auto fetch = [&](const void *w) {
        if constexpr (ROWS >= 4) __builtin_prefetch(static_cast<const char *>(w) + jump, 0, 2);
    };
    // The vector v of a step: blocks are `steps` times 16 weights apart.
    const auto at = [&](int v) { return v / VECTORS * steps * COLUMNS + v % VECTORS * LANES; };
    if constexpr (KIND == FLOAT32) {
        const float *w = static_cast<const float *>(work.packed) + block * steps * COLUMNS;
        for (int64_t k = 0; k < steps; k++, w += COLUMNS, x += ROWS) {
            fetch(w);
            add<ROWS, WIDTH>(sums, x, [&](int v) { return load(w + at(v)); });
        }
    }
    if constexpr (KIND == INT8) {
        const int8_t *w = static_cast<const int8_t *>(work.packed) + block * steps * COLUMNS;
        for (int64_t k = 0; k < steps; k++, w += COLUMNS, x += ROWS) {
            fetch(w);
            add<ROWS, WIDTH>(sums, x, [&](int v) { return widened(w + at(v)); });
        }
    }
    if constexpr (KIND == BFLOAT16) {
        const uint32_t *w = static_cast<const uint32_t *>(work.packed) + block * steps * COLUMNS;
#if defined(__AVX512BF16__)
        for (int64_t k = 0; k < steps; k++, w += COLUMNS, x += ROWS) {
            fetch(w);
            __m512bh weight[WIDTH];
            for (int v = 0; v < WIDTH; v++) weight[v] = (__m512bh)_mm512_loadu_si512(w + at(v));
            for (int r = 0; r < ROWS; r++)
                for (int v = 0; v < WIDTH; v++)
                    sums[r][v] = (vec)_mm512_dpbf16_ps((__m512)sums[r][v], (__m512bh)_mm512_set1_epi32((int)x[r]), weight[v]);
        }
#else
        for (int64_t k = 0; k < steps; k++, w += COLUMNS, x += 2 * ROWS) {
            fetch(w);
            add<ROWS, WIDTH>(sums, x, [&](int v) { return first_of_pair(w + at(v)); });
            add<ROWS, WIDTH>(sums, x + ROWS, [&](int v) { return second_of_pair(w + at(v)); });
        }
#endif
    }
    for (int r = 0; r < count; r++) {
        float values[BLOCKS * COLUMNS];
        std::memcpy(values, sums[r], sizeof(values));
        const int64_t start = block * COLUMNS, end = std::min<int64_t>(start + BLOCKS * COLUMNS, work.n_outputs);
        for (int64_t n = start; n < end; n++) {
            float value = values[n - start];
            if (work.scale) value *= work.scale[n];
            work.out[(first + r) * work.n_outputs + n] = work.bias ? value + work.bias[n] : value;
        }
    }
}

// Registers hold MOST rows of one block; fewer rows take several blocks, so that no sum waits for the one before it.
#ifdef __AVX512F__
constexpr int MOST = 16;
constexpr int64_t wide_for(int64_t rows) { return rows <= 2 ? 8 : rows <= 4 ? 4 : 1; }
inline int64_t computed(int64_t count) { return count <= 2 ? count : count <= 4 ? 4 : count <= 8 ? 8 : 16; }
#else
constexpr int MOST = 6;
constexpr int64_t wide_for(int64_t rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }
inline int64_t computed(int64_t count) { return count; }
#endif

// Computes `n_blocks` blocks of a group, whose number of rows becomes a constant.
template <Kind KIND, int ROWS = 1>
void blocks(const Rows &work, const Group &group, const Input<KIND> *inputs, int64_t block, int64_t n_blocks, bool ahead) {
    if constexpr (ROWS < MOST)
        if (group.n > ROWS) return blocks<KIND, ROWS == 1 || MOST == 6 ? ROWS + 1 : ROWS * 2>(work, group, inputs, block, n_blocks, ahead);
    const Input<KIND> *x = inputs + group.inputs;
    constexpr int WIDE = wide_for(ROWS);
    if (WIDE > 1 && n_blocks == WIDE) return tile<KIND, ROWS, WIDE>(work, x, block, group.first, group.count, ahead);
    for (int64_t b = 0; b < n_blocks; b++) tile<KIND, ROWS, 1>(work, x, block + b, group.first, group.count, ahead);
}

// Groups of nearly the same size: two of four rows take less time than one of six and one of two.
std::vector<Group> groups_of(int64_t n_rows, int64_t inputs_of_a_row) {
    std::vector<Group> groups;
    const int64_t n_groups = (n_rows + MOST - 1) / MOST;
    for (int64_t i = 0, inputs = 0; i < n_groups; i++) {
        const int64_t first = n_rows * i / n_groups, count = n_rows * (i + 1) / n_groups - first;
        groups.push_back({first, count, computed(count), inputs});
        inputs += groups.back().n * inputs_of_a_row;
    }
    return groups;
}

template <Kind KIND>
void put_side_by_side(const Rows &work, const Group &group, int64_t r, Input<KIND> *inputs) {
    const float *x = work.x + (group.first + (r < group.count ? r : 0)) * work.n_inputs;
    Input<KIND> *to = inputs + group.inputs + r;
    for (int64_t k = 0; k < work.n_inputs; k++) {
        if constexpr (KIND != BFLOAT16) to[k * group.n] = x[k];
        else if constexpr (STEP_INPUTS<KIND> == 2) to[k * group.n] = widened(narrowed<uint16_t>(x[k]));
        else to[k / 2 * group.n] |= static_cast<uint32_t>(narrowed<uint16_t>(x[k])) << (k % 2 * 16);
    }
}

template <Kind KIND>
void product(const Rows &work, int64_t n_threads) {
    const int64_t inputs_of_a_row = n_steps<KIND>(work) * STEP_INPUTS<KIND>;
    const std::vector<Group> groups = groups_of(work.n_rows, inputs_of_a_row);
    if (groups.empty()) return;
    std::vector<Input<KIND>> inputs(groups.back().inputs + groups.back().n * inputs_of_a_row);
    const int64_t n_blocks = (work.n_outputs + COLUMNS - 1) / COLUMNS;
    const int64_t wide = wide_for(groups[0].n);
    // A weight is read in the time of eight rows' products with it.
    const int n_useful = useful_threads(n_threads, work.n_inputs * work.n_outputs * (work.n_rows + 8));
#pragma omp parallel num_threads(n_useful)
    {
        for (const Group &group : groups) {
#pragma omp for schedule(static) nowait
            for (int64_t r = 0; r < group.n; r++) put_side_by_side<KIND>(work, group, r, inputs.data());
        }
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t block = 0; block < n_blocks; block += wide)
            for (size_t i = 0; i < groups.size(); i++)
                blocks<KIND>(work, groups[i], inputs.data(), block, std::min(wide, n_blocks - block), i == 1 && block + 1 < n_blocks);
    }
}

}  // namespace

extern "C" {

// out[row, n] = scale[n] * sum over k of x[row, k] * weight[n, k], + bias[n]; `kind` is that of the packed weights.
void fewshot_rows(const float *x, int64_t n_rows, int64_t n_inputs, int64_t n_outputs, const void *packed, int64_t kind,
                  const float *scale, const float *bias, int64_t n_threads, float *out) {
    const Rows work{x, n_rows, n_inputs, n_outputs, packed, scale, bias, out};
    if (kind == FLOAT32) product<FLOAT32>(work, n_threads);
    if (kind == BFLOAT16) product<BFLOAT16>(work, n_threads);
    if (kind == INT8) product<INT8>(work, n_threads);
}

}  // extern "C"
