// Attention over intervals of keys, forward and backward, for CPUs. Called by native.py; needs no header but the standard's.
//
// An interval is a list of query positions and a list of key positions; query i reads keys low[i] to high[i] of that
// list, and both ends never fall with i (patterns/intervals.py). Intervals of one call share neither a query nor a key,
// so that each is worked on by one thread without locks.
//
// All tiles are stored transposed, keys down and queries across: the softmax then runs along vector lanes, and keys and
// values are used as they lie in memory. Work is skipped in blocks of 16 x 16 pairs.

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "tiles.h"
#ifdef __AVX512BF16__
#include "attention_bf16.h"
#endif

namespace {

// ---- small products ---------------------------------------------------------------------------------------------

template <int COLUMNS, int ROWS>
inline void product_block(int depth, const float *a, int a_row, int a_depth, const float *b, int b_row, float *c, int c_row,
                          bool add) {
    vec sum[ROWS][COLUMNS];
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++)
            sum[i][j] = add ? *reinterpret_cast<const vec *>(c + i * c_row + j * LANES) : vec{};
    for (int p = 0; p < depth; p++) {
        vec right[COLUMNS];
        for (int j = 0; j < COLUMNS; j++) right[j] = *reinterpret_cast<const vec *>(b + p * b_row + j * LANES);
        for (int i = 0; i < ROWS; i++) {
            const float left = a[i * a_row + p * a_depth];
            for (int j = 0; j < COLUMNS; j++) sum[i][j] += left * right[j];
        }
    }
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLUMNS; j++) *reinterpret_cast<vec *>(c + i * c_row + j * LANES) = sum[i][j];
}

// c[rows, columns] (+)= a[rows, depth] b[depth, columns]; rows is a multiple of HIGH, columns of 16.
void product(int rows, int columns, int depth, const float *a, int a_row, int a_depth, const float *b, int b_row, float *c,
             int c_row, bool add) {
    for (int j = 0; j < columns;) {
        const int left = (columns - j) / LANES, wide = left < WIDE ? left : WIDE;
        for (int i = 0; i < rows; i += HIGH) {
            const float *a_i = a + i * a_row;
            float *c_ij = c + i * c_row + j;
            switch (wide) {
                case 4: product_block<WIDE, HIGH>(depth, a_i, a_row, a_depth, b + j, b_row, c_ij, c_row, add); break;
                case 3: product_block<WIDE < 3 ? 1 : 3, HIGH>(depth, a_i, a_row, a_depth, b + j, b_row, c_ij, c_row, add); break;
                case 2: product_block<2, HIGH>(depth, a_i, a_row, a_depth, b + j, b_row, c_ij, c_row, add); break;
                default: product_block<1, HIGH>(depth, a_i, a_row, a_depth, b + j, b_row, c_ij, c_row, add);
            }
        }
        j += wide * LANES;
    }
}

// ---- tiles ------------------------------------------------------------------------------------------------------

// The rows at these positions as float, zeros up to `padded` columns and up to whole grains of rows.
void gather(const View &from, bool is_bf16, int64_t b, int64_t h, const int32_t *positions, int64_t shift, int count,
            int width, int padded, float *to) {
    const int64_t base = b * from.row + h * from.head;
    for (int i = 0; i < count; i++) {
        const int64_t offset = base + (positions[i] - shift) * from.position;
        float *row = to + i * padded;
        if (is_bf16) {
            const uint16_t *source = static_cast<const uint16_t *>(from.data) + offset;
            for (int d = 0; d < width; d++) row[d] = widened(source[d]);
        } else {
            std::memcpy(row, static_cast<const float *>(from.data) + offset, width * sizeof(float));
        }
        for (int d = width; d < padded; d++) row[d] = 0;
    }
    for (int i = count * padded; i < (count + GRAIN - 1) / GRAIN * GRAIN * padded; i++) to[i] = 0;
}

// to[d][i] = factor * from[i][d]
void transpose(const float *from, int rows, int padded, float factor, float *to) {
    for (int d = 0; d < padded; d += 16)
        for (int i = 0; i < rows; i++)
            for (int e = 0; e < 16; e++) to[(d + e) * TILE + i] = factor * from[i * padded + d + e];
}

// scores[j][i] = k_j . q_i, masked; blocks without a pair are left alone unless they lie between others.
void score(const Tile &tile, const Grid &grid, int padded, const float *k, const float *q_turned, const int64_t *documents,
           float *scores) {
    for (int y = 0; y * GRAIN < tile.n_keys; y++) {
        const int first = grid.first_query[y], last = grid.last_query[y];
        if (first >= last) continue;
        product(GRAIN, (last - first) * GRAIN, padded, k + y * GRAIN * padded, padded, 1, q_turned + first * GRAIN, TILE,
                scores + y * GRAIN * TILE + first * GRAIN, TILE, false);
        for (int x = first; x < last; x++) {
            const bool any = grid.first_key[x] <= y && y < grid.last_key[x];
            if (!any || !grid.whole[y][x]) forbid(tile, y, x, documents, scores);
        }
    }
}

// c[i][d] += sum over keys j of weights[j][i] * rows[j][d]
void mix(const Tile &tile, const Grid &grid, int padded, const float *weights, const float *rows, float *c) {
    for (int x = 0; x * GRAIN < tile.n_queries; x++) {
        const int first = grid.first_key[x] * GRAIN, last = grid.last_key[x] * GRAIN;
        if (first < last)
            product(GRAIN, padded, last - first, weights + first * TILE + x * GRAIN, 1, TILE, rows + first * padded, padded,
                    c + x * GRAIN * padded, padded, true);
    }
}

// ---- forward ----------------------------------------------------------------------------------------------------

// Queries i0 to i0 + n of an interval: their softmax over its keys, joined with what `out` and `lse` hold of others.
void attend_queries(const Work &work, const View &q, const View &k, const View &v, const View &out, float *lse, int64_t b,
                    int64_t h, const Interval &interval, int64_t i0, int n, int64_t n_positions, float *memory) {
    const int width = static_cast<int>(work.width), padded = (width + 15) / 16 * 16;
    float *rows = memory, *q_turned = rows + TILE * padded, *keys = q_turned + TILE * padded, *values = keys + TILE * padded;
    float *mixed = values + TILE * padded, *scores = mixed + TILE * padded, *top = scores + TILE * TILE, *sum = top + TILE;
    float *shrink = sum + TILE;
    const int64_t *documents = work.documents ? work.documents + b * work.n_keys : nullptr;
    const int whole = (n + GRAIN - 1) / GRAIN * GRAIN;
    gather(q, work.is_bf16, b, h, interval.queries + i0, work.q_start, n, width, padded, rows);
    transpose(rows, whole, padded, work.scale * LOG2E, q_turned);
    std::fill(mixed, mixed + TILE * padded, 0.0f);
    std::fill(top, top + TILE, NOTHING);
    std::fill(sum, sum + TILE, 0.0f);
    Tile tile;
    Grid grid;
    for (int64_t j0 = interval.low[i0]; j0 < interval.high[i0 + n - 1]; j0 += TILE) {
        cut_tile(interval, i0, n, j0, interval.high[i0 + n - 1], tile);
        lay_grid(tile, documents != nullptr, grid);
        gather(k, work.is_bf16, b, h, tile.keys, 0, tile.n_keys, width, padded, keys);
        gather(v, work.is_bf16, b, h, tile.keys, 0, tile.n_keys, width, padded, values);
        score(tile, grid, padded, keys, q_turned, documents, scores);
        for (int i = 0; i < whole; i += LANES) {
            const int x = i / GRAIN, first = grid.first_key[x] * GRAIN, last = grid.last_key[x] * GRAIN;
            vec &top_i = *reinterpret_cast<vec *>(top + i), &sum_i = *reinterpret_cast<vec *>(sum + i);
            vec high = top_i;
            for (int j = first; j < last; j++) {
                const vec s = *reinterpret_cast<vec *>(scores + j * TILE + i);
                high = s > high ? s : high;
            }
            const vec none = vec{} + NOTHING;
            const vec base = high == none ? vec{} : high;  // a query that has read nothing yet
            const vec less = power_of_two(top_i - base);
            vec total = sum_i * less;
            for (int j = first; j < last; j++) {
                vec &s = *reinterpret_cast<vec *>(scores + j * TILE + i);
                s = power_of_two(s - base);
                total += s;
            }
            top_i = high, sum_i = total;
            *reinterpret_cast<vec *>(shrink + i) = less;
        }
        for (int i = 0; i < n; i++)
            for (int d = 0; d < padded; d++) mixed[i * padded + d] *= shrink[i];
        mix(tile, grid, padded, scores, values, mixed);
    }
    join(work, out, lse, b, h, interval.queries + i0, n, n_positions, top, sum, mixed, padded);
}

// ---- backward ---------------------------------------------------------------------------------------------------

void differentiate_queries(const Work &work, const View &q, const View &k, const View &v, const View &out,
                           const View &grad_out, const float *lse, const View &grad_q, const View &grad_k,
                           const View &grad_v, int64_t b, int64_t h, const Interval &interval, int64_t i0, int n,
                           int64_t n_positions, float *memory) {
    const int width = static_cast<int>(work.width), padded = (width + 15) / 16 * 16, area = TILE * padded;
    float *rows = memory, *q_turned = rows + area, *outs = q_turned + area, *outs_turned = outs + area;
    float *keys = outs_turned + area, *values = keys + area, *to_q = values + area, *part = to_q + area;
    float *weights = part + area, *grad_scores = weights + TILE * TILE, *base = grad_scores + TILE * TILE, *shift = base + TILE;
    const int64_t *documents = work.documents ? work.documents + b * work.n_keys : nullptr;
    const int whole = (n + GRAIN - 1) / GRAIN * GRAIN;
    gather(q, work.is_bf16, b, h, interval.queries + i0, work.q_start, n, width, padded, rows);
    transpose(rows, whole, padded, work.scale * LOG2E, q_turned);
    gather(grad_out, work.is_bf16, b, h, interval.queries + i0, work.q_start, n, width, padded, outs);
    transpose(outs, whole, padded, 1.0f, outs_turned);
    std::fill(to_q, to_q + area, 0.0f);
    gather(out, work.is_bf16, b, h, interval.queries + i0, work.q_start, n, width, padded, keys);  // `keys` is free yet
    const int64_t first_row = (b * work.n_heads + h) * n_positions, first_key = (b * work.n_heads + h) * work.n_keys;
    for (int i = 0; i < TILE; i++) {
        base[i] = lse[first_row + (i < n ? interval.queries[i0 + i] - work.q_start : 0)];
        shift[i] = 0;  // the sum of the result times its gradient
        for (int d = 0; d < padded && i < n; d++) shift[i] += keys[i * padded + d] * outs[i * padded + d];
    }
    Tile tile;
    Grid grid;
    for (int64_t j0 = interval.low[i0]; j0 < interval.high[i0 + n - 1]; j0 += TILE) {
        cut_tile(interval, i0, n, j0, interval.high[i0 + n - 1], tile);
        lay_grid(tile, documents != nullptr, grid);
        gather(k, work.is_bf16, b, h, tile.keys, 0, tile.n_keys, width, padded, keys);
        gather(v, work.is_bf16, b, h, tile.keys, 0, tile.n_keys, width, padded, values);
        score(tile, grid, padded, keys, q_turned, documents, weights);
        for (int y = 0; y * GRAIN < tile.n_keys; y++) {
            const int first = grid.first_query[y] * GRAIN, last = grid.last_query[y] * GRAIN;
            if (first >= last) continue;
            product(GRAIN, last - first, padded, values + y * GRAIN * padded, padded, 1, outs_turned + first, TILE,
                    grad_scores + y * GRAIN * TILE + first, TILE, false);
            for (int j = y * GRAIN; j < (y + 1) * GRAIN; j++)
                for (int i = first; i < last; i += LANES) {
                    vec &p = *reinterpret_cast<vec *>(weights + j * TILE + i), &s = *reinterpret_cast<vec *>(grad_scores + j * TILE + i);
                    p = power_of_two(p - *reinterpret_cast<vec *>(base + i));
                    s = p * (s - *reinterpret_cast<vec *>(shift + i)) * work.scale;
                }
        }
        mix(tile, grid, padded, grad_scores, keys, to_q);
        for (int which = 0; which < 2; which++) {  // gradients of keys, then of values
            for (int y = 0; y * GRAIN < tile.n_keys; y++) {
                const int first = grid.first_query[y] * GRAIN, last = grid.last_query[y] * GRAIN;
                if (first >= last) continue;
                product(GRAIN, padded, last - first, (which ? weights : grad_scores) + y * GRAIN * TILE + first, TILE, 1,
                        (which ? outs : rows) + first * padded, padded, part, padded, false);
                gather_up_rows(which ? grad_v : grad_k, b, h, tile.keys + y * GRAIN, 0, std::min(GRAIN, tile.n_keys - y * GRAIN),
                               part, padded, width, work.key_seen + first_key, which);
            }
        }
    }
    gather_up_rows(grad_q, b, h, interval.queries + i0, work.q_start, n, to_q, padded, width, work.query_seen + first_row, true);
}

// Calls `each` for up to `TILE` queries of every interval, row and head, on all threads, with memory of the thread's own.
template <typename Each>
void over_queries(const Work &work, Each each) {
    const int64_t n_heads = (work.n_heads - work.head_first + work.head_step - 1) / work.head_step;
    const size_t padded = (work.width + 15) / 16 * 16;
#pragma omp parallel num_threads(static_cast<int>(work.n_threads))
    {
        Scratch scratch(scratch_floats(padded));
#pragma omp for collapse(3) schedule(dynamic)
        for (int64_t b = 0; b < work.n_rows; b++)
            for (int64_t nth = 0; nth < n_heads; nth++)
                for (int64_t s = 0; s < work.n_intervals; s++) {
                    const Interval interval = interval_of(work, s);
                    for (int64_t i = 0; i < interval.n_queries; i += TILE)
                        each(b, work.head_first + nth * work.head_step, interval, i,
                             static_cast<int>(std::min<int64_t>(TILE, interval.n_queries - i)), scratch.memory);
                }
    }
}

}  // namespace

// ---- called from Python -------------------------------------------------------------------------------------------

extern "C" {

// Asks for large pages where memory was not touched yet: faults of 4 KB pages cost a third of a long text's time.
void fewshot_prefer_large_pages(void *memory, int64_t n_bytes) {
#ifdef __linux__
    constexpr uintptr_t page = 2 << 20;
    const uintptr_t from = (reinterpret_cast<uintptr_t>(memory) + page - 1) / page * page;
    const uintptr_t to = (reinterpret_cast<uintptr_t>(memory) + n_bytes) / page * page;
    if (from < to) madvise(reinterpret_cast<void *>(from), to - from, MADV_HUGEPAGE);  // advice: a refusal changes nothing
#else
    (void)memory, (void)n_bytes;
#endif
}

// lse [B, H, T] (base 2) holds minus infinity, or with out [B, H, T, K] what other intervals gave.
void fewshot_attend(const Work *work, const View *q, const View *k, const View *v, const View *out, float *lse,
                    int64_t n_positions) {
    auto *attend = attend_queries;
#ifdef __AVX512BF16__
    if (work->is_bf16) attend = attend_words;
#endif
    over_queries(*work, [&](int64_t b, int64_t h, const Interval &interval, int64_t i, int n, float *memory) {
        attend(*work, *q, *k, *v, *out, lse, b, h, interval, i, n, n_positions, memory);
    });
}

// The gradients are float [B, H, T or S, K]; rows that were not seen before are written, the others are added to.
void fewshot_differentiate(const Work *work, const View *q, const View *k, const View *v, const View *out,
                           const View *grad_out, const float *lse, const View *grad_q, const View *grad_k,
                           const View *grad_v, int64_t n_positions) {
    auto *differentiate = differentiate_queries;
#ifdef __AVX512BF16__
    if (work->is_bf16) differentiate = differentiate_words;
#endif
    over_queries(*work, [&](int64_t b, int64_t h, const Interval &interval, int64_t i, int n, float *memory) {
        differentiate(*work, *q, *k, *v, *out, *grad_out, lse, *grad_q, *grad_k, *grad_v, b, h, interval, i, n, n_positions,
                      memory);
    });
}

}  // extern "C"
