// Vectors of floats, how they are read and written, and their powers. Included by every .cpp here.

#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

namespace {

constexpr float NOTHING = -std::numeric_limits<float>::infinity();
constexpr float LOG2E = 1.4426950408889634f;

#ifdef __AVX512F__
constexpr int LANES = 16, WIDE = 4;  // floats of a vector, vectors side by side in the inner product
#else
constexpr int LANES = 8, WIDE = 2;
#endif
typedef float vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

typedef uint16_t half_vec __attribute__((vector_size(LANES * 2), aligned(2), may_alias));
typedef uint32_t bits_vec __attribute__((vector_size(LANES * 4), aligned(4), may_alias));

inline vec load(const float *from) { return *reinterpret_cast<const vec *>(from); }
inline vec load(const uint16_t *from) {
    const bits_vec bits = __builtin_convertvector(*reinterpret_cast<const half_vec *>(from), bits_vec) << 16;
    return reinterpret_cast<const vec &>(bits);
}
inline void store(float *to, vec x) { *reinterpret_cast<vec *>(to) = x; }
inline void store(uint16_t *to, vec x) {  // rounded to the nearest bfloat16, ties to even
    bits_vec bits = reinterpret_cast<const bits_vec &>(x);
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    *reinterpret_cast<half_vec *>(to) = __builtin_convertvector(bits, half_vec);
}

// 2^x for x <= 0, relative error below 2e-7; minus infinity gives 0, no number gives no number.
inline vec power_of_two(vec x) {
    const vec floor_at = vec{} - 126.0f;
    x = x < floor_at ? floor_at : x;  // a comparison with no number is false
    const vec shifter = vec{} + 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    const vec shifted = x + shifter, f = x - (shifted - shifter);
    vec p = vec{} + 1.535336188319500e-4f;
    p = p * f + 1.339887440266574e-3f;
    p = p * f + 9.618437357674640e-3f;
    p = p * f + 5.550332471162809e-2f;
    p = p * f + 2.402264791363012e-1f;
    p = p * f + 6.931472028550421e-1f;
    p = p * f + 1.0f;
    const ivec bits = reinterpret_cast<const ivec &>(shifted) << 23;
    ivec result = reinterpret_cast<const ivec &>(p) + bits;
    const vec value = reinterpret_cast<const vec &>(result);
    const vec power = x <= floor_at ? vec{} : value;
    return x == x ? power : x;
}

inline float widened(uint16_t bits) {
    const uint32_t word = static_cast<uint32_t>(bits) << 16;
    float value;
    std::memcpy(&value, &word, 4);
    return value;
}

template <typename T>
T narrowed(float x);
template <>
inline float narrowed<float>(float x) {
    return x;
}
template <>
inline uint16_t narrowed<uint16_t>(float x) {  // rounded to the nearest bfloat16, ties to even
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return static_cast<uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

}  // namespace
