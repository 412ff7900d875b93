// What both ways to compute attention share: tiles of queries and keys, and what of them is allowed. For attention.cpp.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "vectors.h"

namespace {

constexpr int GRAIN = 16;  // pairs are skipped in blocks of GRAIN x GRAIN
constexpr int TILE = 64;   // queries, and keys, of one tile
constexpr int GRAINS = TILE / GRAIN;
constexpr int HIGH = 4;  // rows of the inner product

struct Work {
    int64_t n_rows, n_heads, width;            // B, H, K
    int64_t head_first, head_step;             // heads head_first, head_first + head_step, ... are computed
    int64_t q_start;                           // position of query row 0
    int64_t is_bf16;                           // type of q, k, v and of the gradient of the result
    int64_t n_intervals, n_threads;
    float scale;                               // 1/sqrt(K)
    const int64_t *query_ends, *key_ends;      // where the lists of interval s end; it begins where s - 1 ends
    const int32_t *queries, *keys, *low, *high;
    const int64_t *documents;                  // [B, S] or null
    int64_t n_keys;                            // S
    uint8_t *query_seen, *key_seen;            // [B, H, T], [B, H, S]: rows of the gradients that hold something yet
};

struct View {  // a tensor [B, H, T, K] whose last stride is 1
    void *data;
    int64_t row, head, position;  // strides in elements

    float *at(int64_t b, int64_t h, int64_t t) const {
        return static_cast<float *>(data) + b * row + h * head + t * position;
    }
};

struct Grid {  // which 16 x 16 blocks of a tile hold any pair
    int first_query[GRAINS], last_query[GRAINS];  // for each grain of keys: grains of queries [first, last)
    int first_key[GRAINS], last_key[GRAINS];      // for each grain of queries: grains of keys [first, last)
    bool whole[GRAINS][GRAINS];                   // [keys][queries]: every pair is allowed
};

// One tile: queries i0, i0 + 1, ... of an interval against its keys from j0 on.
struct Tile {
    const int32_t *queries, *keys;  // positions
    int n_queries, n_keys;
    int32_t low[TILE], high[TILE];  // of each query, relative to the tile's first key
};

void lay_grid(const Tile &tile, bool documents, Grid &grid) {
    const int n_q = (tile.n_queries + GRAIN - 1) / GRAIN, n_k = (tile.n_keys + GRAIN - 1) / GRAIN;
    for (int y = 0; y < n_k; y++) grid.first_query[y] = GRAINS, grid.last_query[y] = 0;
    for (int x = 0; x < n_q; x++) {
        const int from = x * GRAIN, to = std::min(from + GRAIN, tile.n_queries);
        const int low = std::max(0, tile.low[from]), high = std::min(tile.n_keys, tile.high[to - 1]);
        grid.first_key[x] = low / GRAIN;
        grid.last_key[x] = high > low ? (high + GRAIN - 1) / GRAIN : grid.first_key[x];
        for (int y = grid.first_key[x]; y < grid.last_key[x]; y++) {
            grid.first_query[y] = std::min(grid.first_query[y], x);
            grid.last_query[y] = std::max(grid.last_query[y], x + 1);
            grid.whole[y][x] = !documents && to - from == GRAIN && tile.low[to - 1] <= y * GRAIN &&
                               tile.high[from] >= (y + 1) * GRAIN;
        }
    }
}

// Minus infinity wherever a pair of block (y, x) is not allowed.
void forbid(const Tile &tile, int y, int x, const int64_t *documents, float *scores) {
    for (int j = y * GRAIN; j < (y + 1) * GRAIN; j++) {
        float *row = scores + j * TILE;
        for (int i = x * GRAIN; i < (x + 1) * GRAIN; i++) {
            bool allowed = i < tile.n_queries && tile.low[i] <= j && j < tile.high[i];
            if (allowed && documents) allowed = documents[tile.queries[i]] == documents[tile.keys[j]];
            row[i] = allowed ? row[i] : NOTHING;
        }
    }
}

struct Scratch {
    float *memory;
    float *next;

    explicit Scratch(size_t floats) {
        memory = static_cast<float *>(std::aligned_alloc(64, (floats * sizeof(float) + 63) / 64 * 64));
        next = memory;
    }
    ~Scratch() { std::free(memory); }
    Scratch(const Scratch &) = delete;
    float *take(size_t floats) {
        float *mine = next;
        next += floats;
        return mine;
    }
};

// What a thread works in, at most.
inline size_t scratch_floats(size_t padded) { return 8 * TILE * padded + 4 * TILE * TILE + 3 * TILE; }

struct Interval {
    const int32_t *queries, *keys, *low, *high;
    int64_t n_queries, n_keys;
};

Interval interval_of(const Work &work, int64_t s) {
    const int64_t q = s ? work.query_ends[s - 1] : 0, k = s ? work.key_ends[s - 1] : 0;
    return {work.queries + q, work.keys + k, work.low + q, work.high + q, work.query_ends[s] - q, work.key_ends[s] - k};
}

void cut_tile(const Interval &interval, int64_t i0, int n_queries, int64_t j0, int64_t j_end, Tile &tile) {
    tile.queries = interval.queries + i0;
    tile.keys = interval.keys + j0;
    tile.n_queries = n_queries;
    tile.n_keys = static_cast<int>(std::min<int64_t>(TILE, j_end - j0));
    for (int i = 0; i < n_queries; i++) {
        tile.low[i] = static_cast<int32_t>(std::max<int64_t>(interval.low[i0 + i] - j0, 0));
        tile.high[i] = static_cast<int32_t>(std::min<int64_t>(interval.high[i0 + i] - j0, tile.n_keys));
    }
}

// Joins the softmax of n queries over some keys, whose highest scores and sums are known, with what `out` and `lse` hold.
void join(const Work &work, const View &out, float *lse, int64_t b, int64_t h, const int32_t *queries, int n,
          int64_t n_positions, const float *top, const float *sum, const float *mixed, int padded) {
    const int width = static_cast<int>(work.width);
    for (int i = 0; i < n; i++) {
        if (sum[i] == 0) continue;
        const int64_t t = queries[i] - work.q_start;
        float *target = out.at(b, h, t), *known = lse + (b * work.n_heads + h) * n_positions + t;
        const float mine = top[i] + std::log2(sum[i]);
        float keep = 0, joined = mine;
        if (*known != NOTHING) {
            const float most = std::max(mine, *known);
            joined = most + std::log2(std::exp2(mine - most) + std::exp2(*known - most));
            keep = std::exp2(*known - joined);
        }
        const float factor = std::exp2(mine - joined) / sum[i];
        for (int d = 0; d < width; d++) target[d] = (keep != 0 ? keep * target[d] : 0.0f) + factor * mixed[i * padded + d];
        *known = joined;
    }
}

// Adds a row to a gradient, or is its first row: gradients are never filled with zeros beforehand.
inline void gather_up(float *to, const float *row, int width, bool seen) {
    if (seen)
        for (int d = 0; d < width; d++) to[d] += row[d];
    else
        std::memcpy(to, row, width * sizeof(float));
}

// Does that for the rows at these positions; after the last of several gradients of them they count as seen.
void gather_up_rows(const View &to, int64_t b, int64_t h, const int32_t *positions, int64_t shift, int count, const float *rows,
                    int padded, int width, uint8_t *seen, bool is_last) {
    for (int i = 0; i < count; i++) {
        const int64_t at = positions[i] - shift;
        gather_up(to.at(b, h, at), rows + i * padded, width, seen[at]);
        if (is_last) seen[at] = 1;
    }
}

}  // namespace
