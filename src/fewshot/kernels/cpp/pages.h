// What pages.cpp is told of the pages that some heads of one layer read and write.

#pragma once

#include <cstdint>

struct Pages {
    int64_t n_heads, width, padded;       // K, and K in the cache: a multiple of 16
    int64_t head_first, head_step;        // the heads of this call
    int64_t n_units, first_unit;          // heads of all layers in a page; the first of this call
    int64_t is_bf16, n_groups, n_threads;
    const int64_t *group_ends, *page_ends;  // of each group: in the queries, in `pages`
    const int32_t *pages;
    const uint16_t *masks;  // [pages of all groups][GROUP]
};
