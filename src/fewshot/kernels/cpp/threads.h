// How many threads a loop is given. Included by the .cpp of generation, whose loops are often small.

#pragma once

#include <algorithm>
#include <cstdint>

namespace {

constexpr int64_t OPERATIONS = 1 << 20;  // that a thread should have: some ten microseconds

// Up to `n_threads`. A small loop is done sooner by one thread than others are woken; and where more threads want to run
// than there are cores, each end of a loop waits for one that does not, often a thousand times as long as the loop takes.
inline int useful_threads(int64_t n_threads, int64_t n_operations) {
    return static_cast<int>(std::clamp<int64_t>(n_operations / OPERATIONS, 1, n_threads));
}

}  // namespace
