// Rows times a matrix, for CPUs: every output is one sum over the inputs in their order, whatever rows stand beside it,
// so that a row's result is the same to the bit in any batch. Called by invariant/linear.py, which packs the matrix:
// 16 outputs side by side, below each other their weights for input 0, 1, 2, ...; bfloat16 in pairs of inputs.

#include <algorithm>
#include <vector>

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

inline int64_t n_pairs(const Rows &work) { return (work.n_inputs + 1) / 2; }

// The inputs as bfloat16, two in a word, zero after an odd last one.
std::vector<uint32_t> in_pairs(const Rows &work) {
    const int64_t pairs = n_pairs(work);
    std::vector<uint32_t> words(work.n_rows * pairs);
    for (int64_t row = 0; row < work.n_rows; row++) {
        const float *x = work.x + row * work.n_inputs;
        uint32_t *to = words.data() + row * pairs;
        for (int64_t k = 0; k < work.n_inputs; k++)
            to[k / 2] |= static_cast<uint32_t>(narrowed<uint16_t>(x[k])) << (k % 2 * 16);
    }
    return words;
}

template <int ROWS, int WIDTH>
struct Sums {
    vec at[ROWS][WIDTH] = {};
};

// ---- one kind of weights each: the sums of ROWS rows and BLOCKS blocks of outputs -----------------------------------

template <int ROWS, int BLOCKS>
inline void add_float32(const Rows &work, const float *const *x, int64_t block, Sums<ROWS, BLOCKS * VECTORS> &sums) {
    const float *w = static_cast<const float *>(work.packed) + block * work.n_inputs * COLUMNS;
    for (int64_t k = 0; k < work.n_inputs; k++)
        for (int b = 0; b < BLOCKS; b++)
            for (int v = 0; v < VECTORS; v++) {
                const vec weight = load(w + (b * work.n_inputs + k) * COLUMNS + v * LANES);
                for (int r = 0; r < ROWS; r++) sums.at[r][b * VECTORS + v] += x[r][k] * weight;
            }
}

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

template <int ROWS, int BLOCKS>
inline void add_int8(const Rows &work, const float *const *x, int64_t block, Sums<ROWS, BLOCKS * VECTORS> &sums) {
    const int8_t *w = static_cast<const int8_t *>(work.packed) + block * work.n_inputs * COLUMNS;
    for (int64_t k = 0; k < work.n_inputs; k++)
        for (int b = 0; b < BLOCKS; b++)
            for (int v = 0; v < VECTORS; v++) {
                const vec weight = widened(w + (b * work.n_inputs + k) * COLUMNS + v * LANES);
                for (int r = 0; r < ROWS; r++) sums.at[r][b * VECTORS + v] += x[r][k] * weight;
            }
}

template <int ROWS, int BLOCKS>
inline void add_bfloat16(const Rows &work, const uint32_t *const *x, int64_t block, Sums<ROWS, BLOCKS * VECTORS> &sums) {
    const int64_t pairs = n_pairs(work);
    const uint32_t *w = static_cast<const uint32_t *>(work.packed) + block * pairs * COLUMNS;
    for (int64_t k = 0; k < pairs; k++)
        for (int b = 0; b < BLOCKS; b++)
            for (int v = 0; v < VECTORS; v++) {
                const uint32_t *from = w + (b * pairs + k) * COLUMNS + v * LANES;
#if defined(__AVX512BF16__)
                const __m512bh weight = (__m512bh)_mm512_loadu_si512(from);
                for (int r = 0; r < ROWS; r++) {
                    vec &sum = sums.at[r][b];
                    sum = (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)x[r][k]), weight);
                }
#else
                const bits_vec both = *reinterpret_cast<const bits_vec *>(from), low = both << 16, high = both & 0xffff0000u;
                for (int r = 0; r < ROWS; r++) {
                    vec &sum = sums.at[r][b * VECTORS + v];
                    sum += widened(static_cast<uint16_t>(x[r][k])) * reinterpret_cast<const vec &>(low);
                    sum += widened(static_cast<uint16_t>(x[r][k] >> 16)) * reinterpret_cast<const vec &>(high);
                }
#endif
            }
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

// Rows first to first + count, count <= ROWS: those beyond are copies of the first and are dropped.
template <Kind KIND, int ROWS, int BLOCKS>
void tile(const Rows &work, const uint32_t *words, int64_t block, int64_t first, int64_t count) {
    Sums<ROWS, BLOCKS * VECTORS> sums;
    if constexpr (KIND == BFLOAT16) {
        const uint32_t *x[ROWS];
        for (int r = 0; r < ROWS; r++) x[r] = words + (first + (r < count ? r : 0)) * n_pairs(work);
        add_bfloat16<ROWS, BLOCKS>(work, x, block, sums);
    } else {
        const float *x[ROWS];
        for (int r = 0; r < ROWS; r++) x[r] = work.x + (first + (r < count ? r : 0)) * work.n_inputs;
        if constexpr (KIND == FLOAT32) add_float32<ROWS, BLOCKS>(work, x, block, sums);
        if constexpr (KIND == INT8) add_int8<ROWS, BLOCKS>(work, x, block, sums);
    }
    for (int r = 0; r < count; r++) {
        float values[BLOCKS * COLUMNS];
        std::memcpy(values, sums.at[r], sizeof(values));
        const int64_t start = block * COLUMNS, end = std::min<int64_t>(start + BLOCKS * COLUMNS, work.n_outputs);
        for (int64_t n = start; n < end; n++) {
            float value = values[n - start];
            if (work.scale) value *= work.scale[n];
            work.out[(first + r) * work.n_outputs + n] = work.bias ? value + work.bias[n] : value;
        }
    }
}

template <Kind KIND, int ROWS, int BLOCKS>
void panel(const Rows &work, const uint32_t *words, int64_t block, int64_t n_blocks, int64_t first, int64_t count) {
    if (n_blocks == BLOCKS) return tile<KIND, ROWS, BLOCKS>(work, words, block, first, count);
    for (int64_t b = 0; b < n_blocks; b++) tile<KIND, ROWS, 1>(work, words, block + b, first, count);
}

// Registers hold MOST rows of one block; fewer rows take several blocks, so that no sum waits for the one before it.
#ifdef __AVX512F__
constexpr int64_t MOST = 16, ALONE = 8, PAIR = 8, FOUR = 4;
#else
constexpr int64_t MOST = 6, ALONE = 4, PAIR = 2, FOUR = 1;
#endif

template <Kind KIND>
void product(const Rows &work, int64_t n_threads) {
    if (!work.n_rows) return;
    const std::vector<uint32_t> made = KIND == BFLOAT16 ? in_pairs(work) : std::vector<uint32_t>();
    const uint32_t *words = made.data();
    const int64_t n_blocks = (work.n_outputs + COLUMNS - 1) / COLUMNS, n = work.n_rows;
    const int64_t wide = n == 1 ? ALONE : n == 2 ? PAIR : n <= 4 ? FOUR : 1;
#pragma omp parallel for num_threads(static_cast<int>(n_threads)) schedule(static)
    for (int64_t block = 0; block < n_blocks; block += wide) {
        const int64_t some = std::min(wide, n_blocks - block);
        if (n == 1) panel<KIND, 1, ALONE>(work, words, block, some, 0, 1);
        else if (n == 2) panel<KIND, 2, PAIR>(work, words, block, some, 0, 2);
        else if (n <= 4) panel<KIND, 4, FOUR>(work, words, block, some, 0, n);
        else
            for (int64_t first = 0; first < n; first += MOST) {
                const int64_t count = std::min(MOST, n - first);
                if (count <= 4) tile<KIND, 4, 1>(work, words, block, first, count);
                else if (count <= MOST / 2) tile<KIND, MOST / 2, 1>(work, words, block, first, count);
                else tile<KIND, MOST, 1>(work, words, block, first, count);
            }
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
