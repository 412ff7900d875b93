// Attention as in attention.cpp, with products of bfloat16 numbers by the processor's own instruction. Included there.
//
// The instruction multiplies pairs: a word holds two neighbours along the depth of the product, the first in its lower
// half. So each tile is there as words along its rows, and as words that pair two rows. Sums and softmax are float.

#pragma once

#include <immintrin.h>

#include "tiles.h"

namespace {

constexpr int PAIRS = TILE / 2;

template <int COLUMNS, int ROWS>
inline void word_product_block(int pairs, const uint32_t *a, int a_row, int a_pair, const uint32_t *b, int b_row, float *c,
                               int c_row, bool add, float factor) {
    __m512 sum[ROWS][COLUMNS];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) sum[i][j] = add ? _mm512_loadu_ps(c + i * c_row + j * 16) : _mm512_setzero_ps();
    for (int p = 0; p < pairs; p++) {
        __m512bh right[COLUMNS];
        for (int j = 0; j < COLUMNS; j++) right[j] = (__m512bh)_mm512_loadu_si512(b + p * b_row + j * 16);
        for (int i = 0; i < ROWS; i++) {
            const __m512bh left = (__m512bh)_mm512_set1_epi32(static_cast<int>(a[i * a_row + p * a_pair]));
            for (int j = 0; j < COLUMNS; j++) sum[i][j] = _mm512_dpbf16_ps(sum[i][j], left, right[j]);
        }
    }
    const __m512 scale = _mm512_set1_ps(factor);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++)
            _mm512_storeu_ps(c + i * c_row + j * 16, add ? sum[i][j] : _mm512_mul_ps(sum[i][j], scale));
}

// c[rows, columns] = factor a b, or += a b; rows is a multiple of HIGH, columns of 16.
void word_product(int rows, int columns, int pairs, const uint32_t *a, int a_row, int a_pair, const uint32_t *b, int b_row,
                  float *c, int c_row, bool add, float factor) {
    for (int j = 0; j < columns;) {
        const int left = (columns - j) / 16, wide = left < 4 ? left : 4;
        for (int i = 0; i < rows; i += HIGH) {
            const uint32_t *a_i = a + i * a_row;
            float *c_ij = c + i * c_row + j;
            switch (wide) {
                case 4: word_product_block<4, HIGH>(pairs, a_i, a_row, a_pair, b + j, b_row, c_ij, c_row, add, factor); break;
                case 3: word_product_block<3, HIGH>(pairs, a_i, a_row, a_pair, b + j, b_row, c_ij, c_row, add, factor); break;
                case 2: word_product_block<2, HIGH>(pairs, a_i, a_row, a_pair, b + j, b_row, c_ij, c_row, add, factor); break;
                default: word_product_block<1, HIGH>(pairs, a_i, a_row, a_pair, b + j, b_row, c_ij, c_row, add, factor);
            }
        }
        j += wide * 16;
    }
}

inline __m256i narrowed(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

inline __m512i paired(__m256i first, __m256i second) {
    return _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
}

// The rows at these positions, zeros up to `padded` columns and up to whole grains of rows.
void gather_words(const View &from, int64_t b, int64_t h, const int32_t *positions, int64_t shift, int count, int width,
                  int padded, uint32_t *to) {
    uint16_t *row = reinterpret_cast<uint16_t *>(to);
    const uint16_t *base = static_cast<const uint16_t *>(from.data) + b * from.row + h * from.head;
    for (int i = 0; i < count; i++, row += padded) {
        std::memcpy(row, base + (positions[i] - shift) * from.position, width * 2);
        std::memset(row + width, 0, (padded - width) * 2);
    }
    const int more = (GRAIN - count % GRAIN) % GRAIN;
    std::memset(row, 0, static_cast<size_t>(more) * padded * 2);
}

// to[w][i] = from[i][w]
void turn_words(const uint32_t *from, int rows, int words, uint32_t *to) {
    for (int i = 0; i < rows; i++)
        for (int w = 0; w < words; w++) to[w * TILE + i] = from[i * words + w];
}

// to[j][d] is the word of rows 2 j and 2 j + 1 in column d.
void pair_rows(const uint32_t *from, int rows, int padded, uint32_t *to) {
    const uint16_t *row = reinterpret_cast<const uint16_t *>(from);
    for (int j = 0; j < rows; j += 2, row += 2 * padded)
        for (int d = 0; d < padded; d += 16) {
            const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(row + d));
            const __m256i second = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(row + padded + d));
            _mm512_storeu_si512(to + j / 2 * padded + d, paired(first, second));
        }
}

inline int whole_grains(int n) { return (n + GRAIN - 1) / GRAIN * GRAIN; }

// scores[j][i] = factor k_j . q_i, masked, as `score` of attention.cpp
void score_words(const Tile &tile, const Grid &grid, int words, const uint32_t *k, const uint32_t *q_turned,
                 const int64_t *documents, float factor, float *scores) {
    for (int y = 0; y * GRAIN < tile.n_keys; y++) {
        const int first = grid.first_query[y], last = grid.last_query[y];
        if (first >= last) continue;
        word_product(GRAIN, (last - first) * GRAIN, words, k + y * GRAIN * words, words, 1, q_turned + first * GRAIN, TILE,
                     scores + y * GRAIN * TILE + first * GRAIN, TILE, false, factor);
        for (int x = first; x < last; x++) {
            const bool any = grid.first_key[x] <= y && y < grid.last_key[x];
            if (!any || !grid.whole[y][x]) forbid(tile, y, x, documents, scores);
        }
    }
}

// c[i][d] += sum over keys j of weights[j][i] * rows[j][d], both in pairs of keys
void mix_words(const Tile &tile, const Grid &grid, int padded, const uint32_t *weights, const uint32_t *rows, float *c) {
    for (int x = 0; x * GRAIN < tile.n_queries; x++) {
        const int first = grid.first_key[x] * GRAIN / 2, last = grid.last_key[x] * GRAIN / 2;
        if (first < last)
            word_product(GRAIN, padded, last - first, weights + first * TILE + x * GRAIN, 1, TILE, rows + first * padded,
                         padded, c + x * GRAIN * padded, padded, true, 1);
    }
}

// As `attend_queries` of attention.cpp.
void attend_words(const Work &work, const View &q, const View &k, const View &v, const View &out, float *lse, int64_t b,
                  int64_t h, const Interval &interval, int64_t i0, int n, int64_t n_positions, float *memory) {
    const int width = static_cast<int>(work.width), padded = (width + 15) / 16 * 16, words = padded / 2;
    uint32_t *rows = reinterpret_cast<uint32_t *>(memory), *q_turned = rows + TILE * words, *keys = q_turned + TILE * words;
    uint32_t *values = keys + TILE * words, *weights = values + TILE * words;
    float *mixed = reinterpret_cast<float *>(weights + PAIRS * TILE), *scores = mixed + TILE * padded;
    float *top = scores + TILE * TILE, *sum = top + TILE, *shrink = sum + TILE;
    const int64_t *documents = work.documents ? work.documents + b * work.n_keys : nullptr;
    const int whole = whole_grains(n);
    gather_words(q, b, h, interval.queries + i0, work.q_start, n, width, padded, rows);
    turn_words(rows, whole, words, q_turned);
    std::fill(mixed, mixed + TILE * padded, 0.0f);
    std::fill(top, top + TILE, NOTHING);
    std::fill(sum, sum + TILE, 0.0f);
    Tile tile;
    Grid grid;
    for (int64_t j0 = interval.low[i0]; j0 < interval.high[i0 + n - 1]; j0 += TILE) {
        cut_tile(interval, i0, n, j0, interval.high[i0 + n - 1], tile);
        lay_grid(tile, documents != nullptr, grid);
        gather_words(k, b, h, tile.keys, 0, tile.n_keys, width, padded, keys);
        gather_words(v, b, h, tile.keys, 0, tile.n_keys, width, padded, rows);  // `rows` is free now
        pair_rows(rows, whole_grains(tile.n_keys), padded, values);
        score_words(tile, grid, words, keys, q_turned, documents, work.scale * LOG2E, scores);
        for (int i = 0; i < whole; i += 16) {
            const int x = i / GRAIN, first = grid.first_key[x] * GRAIN, last = grid.last_key[x] * GRAIN;
            const __m512 before = _mm512_loadu_ps(top + i);
            __m512 high = before;
            for (int j = first; j < last; j++) {
                const __m512 s = _mm512_loadu_ps(scores + j * TILE + i);
                high = _mm512_mask_blend_ps(_mm512_cmp_ps_mask(s, high, _CMP_GT_OQ), high, s);
            }
            const __mmask16 none = _mm512_cmp_ps_mask(high, _mm512_set1_ps(NOTHING), _CMP_EQ_OQ);
            const __m512 base = _mm512_mask_blend_ps(none, high, _mm512_setzero_ps());  // a query that has read nothing yet
            const __m512 less = power_of_two(_mm512_sub_ps(before, base));
            __m512 total = _mm512_mul_ps(_mm512_loadu_ps(sum + i), less);
            for (int j = first; j < last; j += 2) {
                const __m512 p = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + j * TILE + i), base));
                const __m512 r = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + (j + 1) * TILE + i), base));
                total = _mm512_add_ps(total, _mm512_add_ps(p, r));
                _mm512_storeu_si512(weights + j / 2 * TILE + i, paired(narrowed(p), narrowed(r)));
            }
            _mm512_storeu_ps(top + i, high);
            _mm512_storeu_ps(sum + i, total);
            _mm512_storeu_ps(shrink + i, less);
        }
        for (int i = 0; i < n; i++)
            for (int d = 0; d < padded; d++) mixed[i * padded + d] *= shrink[i];
        mix_words(tile, grid, padded, weights, values, mixed);
    }
    join(work, out, lse, b, h, interval.queries + i0, n, n_positions, top, sum, mixed, padded);
}

// As `differentiate_queries` of attention.cpp.
void differentiate_words(const Work &work, const View &q, const View &k, const View &v, const View &out,
                         const View &grad_out, const float *lse, const View &grad_q, const View &grad_k,
                         const View &grad_v, int64_t b, int64_t h, const Interval &interval, int64_t i0, int n,
                         int64_t n_positions, float *memory) {
    const int width = static_cast<int>(work.width), padded = (width + 15) / 16 * 16, words = padded / 2, area = TILE * words;
    uint32_t *rows = reinterpret_cast<uint32_t *>(memory), *q_turned = rows + area, *q_pairs = q_turned + area;
    uint32_t *outs_turned = q_pairs + area, *outs_pairs = outs_turned + area, *keys = outs_pairs + area;
    uint32_t *key_pairs = keys + area, *values = key_pairs + area, *weights = values + area;  // [keys][pairs of queries]
    uint32_t *grad_weights = weights + TILE * PAIRS, *grad_pairs = grad_weights + TILE * PAIRS;  // [pairs of keys][queries]
    float *to_q = reinterpret_cast<float *>(grad_pairs + PAIRS * TILE), *part = to_q + TILE * padded;
    float *scores = part + GRAIN * padded, *grad_scores = scores + TILE * TILE, *base = grad_scores + TILE * TILE;
    float *shift = base + TILE;
    const int64_t *documents = work.documents ? work.documents + b * work.n_keys : nullptr;
    const int whole = whole_grains(n);
    gather_words(out, b, h, interval.queries + i0, work.q_start, n, width, padded, keys);  // `keys` is free yet
    gather_words(grad_out, b, h, interval.queries + i0, work.q_start, n, width, padded, rows);
    turn_words(rows, whole, words, outs_turned);
    pair_rows(rows, whole, padded, outs_pairs);
    const uint16_t *result = reinterpret_cast<const uint16_t *>(keys), *gradient = reinterpret_cast<const uint16_t *>(rows);
    const int64_t first_row = (b * work.n_heads + h) * n_positions, first_key = (b * work.n_heads + h) * work.n_keys;
    for (int i = 0; i < TILE; i++) {
        base[i] = lse[first_row + (i < n ? interval.queries[i0 + i] - work.q_start : 0)];
        shift[i] = 0;  // the sum of the result times its gradient
        for (int d = 0; d < padded && i < n; d++)
            shift[i] += widened(result[i * padded + d]) * widened(gradient[i * padded + d]);
    }
    gather_words(q, b, h, interval.queries + i0, work.q_start, n, width, padded, rows);
    turn_words(rows, whole, words, q_turned);
    pair_rows(rows, whole, padded, q_pairs);
    std::fill(to_q, to_q + TILE * padded, 0.0f);
    const __m512 scale = _mm512_set1_ps(work.scale);
    Tile tile;
    Grid grid;
    for (int64_t j0 = interval.low[i0]; j0 < interval.high[i0 + n - 1]; j0 += TILE) {
        cut_tile(interval, i0, n, j0, interval.high[i0 + n - 1], tile);
        lay_grid(tile, documents != nullptr, grid);
        gather_words(k, b, h, tile.keys, 0, tile.n_keys, width, padded, keys);
        gather_words(v, b, h, tile.keys, 0, tile.n_keys, width, padded, values);
        pair_rows(keys, whole_grains(tile.n_keys), padded, key_pairs);
        score_words(tile, grid, words, keys, q_turned, documents, work.scale * LOG2E, scores);
        for (int y = 0; y * GRAIN < tile.n_keys; y++) {
            const int first = grid.first_query[y] * GRAIN, last = grid.last_query[y] * GRAIN;
            if (first >= last) continue;
            word_product(GRAIN, last - first, words, values + y * GRAIN * words, words, 1, outs_turned + first, TILE,
                         grad_scores + y * GRAIN * TILE + first, TILE, false, 1);
            for (int j = y * GRAIN; j < (y + 1) * GRAIN; j += 2)
                for (int i = first; i < last; i += 16) {
                    __m256i grads[2];
                    for (int r = 0; r < 2; r++) {
                        const int at = (j + r) * TILE + i;
                        const __m512 p = power_of_two(_mm512_sub_ps(_mm512_loadu_ps(scores + at), _mm512_loadu_ps(base + i)));
                        const __m512 less = _mm512_sub_ps(_mm512_loadu_ps(grad_scores + at), _mm512_loadu_ps(shift + i));
                        grads[r] = narrowed(_mm512_mul_ps(_mm512_mul_ps(p, less), scale));
                        _mm256_storeu_si256(reinterpret_cast<__m256i *>(weights + at / 2), narrowed(p));
                        _mm256_storeu_si256(reinterpret_cast<__m256i *>(grad_weights + at / 2), grads[r]);
                    }
                    _mm512_storeu_si512(grad_pairs + j / 2 * TILE + i, paired(grads[0], grads[1]));
                }
        }
        mix_words(tile, grid, padded, grad_pairs, key_pairs, to_q);
        for (int which = 0; which < 2; which++) {  // gradients of keys, then of values
            for (int y = 0; y * GRAIN < tile.n_keys; y++) {
                const int first = grid.first_query[y] * GRAIN / 2, last = grid.last_query[y] * GRAIN / 2;
                if (first >= last) continue;
                word_product(GRAIN, padded, last - first, (which ? weights : grad_weights) + y * GRAIN * PAIRS + first, PAIRS,
                             1, (which ? outs_pairs : q_pairs) + first * padded, padded, part, padded, false, 1);
                gather_up_rows(which ? grad_v : grad_k, b, h, tile.keys + y * GRAIN, 0, std::min(GRAIN, tile.n_keys - y * GRAIN),
                               part, padded, width, work.key_seen + first_key, which);
            }
        }
    }
    gather_up_rows(grad_q, b, h, interval.queries + i0, work.q_start, n, to_q, padded, width, work.query_seen + first_row, true);
}

}  // namespace
