// SPDX-License-Identifier: Apache-2.0
// What lies around the convolution of a p-norm, each in one pass over the memory, for float32 and bfloat16 powers;
// channels lie last. Contract: the plain functions in smoothed.py. Compiled by native_build.py; called through ctypes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "registers.h"

namespace {

constexpr float kSmallest = 1e-36f;      // SMALLEST in smoothed.py
constexpr float kSmallestScale = 1e-15f; // SMALLEST_SCALE there

constexpr int kLanes = kRegisterBytes / sizeof(float);

// a cast from one of these to another keeps the bits
typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(kLanes * sizeof(int32_t))));
typedef uint16_t Shorts __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// log2 of normal x > 0: x = 2^e m with m from 0.7 to 1.4, ln m = 2 artanh((m - 1) / (m + 1)); error below 1e-7 beyond
// the rounding.
inline Floats log2_of(Floats x) {
    const Ints bits = (Ints)(x), exponent = (bits - 0x3f3504f3) >> 23;
    const Ints mantissa = bits - (exponent << 23);
    const Floats m = (Floats)(mantissa), s = (m - 1) / (m + 1), z = s * s;
    const Floats series = 1 + z * (1 / 3.0f + z * (1 / 5.0f + z * (1 / 7.0f + z * (1 / 9.0f))));
    return __builtin_convertvector(exponent, Floats) + 2.885390081777927f * s * series;
}

// 2^y for y from -126 to 127: y = n + f with |f| <= 1/2; relative error below 1e-6.
inline Floats exp2_of(Floats y) {
    const Ints magic = Ints{} + 0x4b400000;              // 1.5 * 2^23: what is added to it is rounded to an integer
    const Floats rounder = (Floats)(magic), shifted = y + rounder;
    const Floats f = (y - (shifted - rounder)) * 0.6931471805599453f;
    const Floats series =
        1 + f * (1 + f * (1 / 2.0f + f * (1 / 6.0f + f * (1 / 24.0f + f * (1 / 120.0f + f * (1 / 720.0f))))));
    const Ints exponent = ((Ints)(shifted) - magic + 127) << 23;
    return series * (Floats)(exponent);
}

// x^p for x > 0; smaller results than 2^-126 give that.
inline Floats power(Floats x, float p) {
    const Floats least = Floats{} + 1.2e-38f;
    Floats y = p * log2_of(x > least ? x : least);
    y = y > -126.0f ? y : Floats{} - 126.0f;
    return exp2_of(y < 126.0f ? y : Floats{} + 126.0f);
}

// Runs `work(first, count)` on blocks of kLanes of `length` elements; the last one may be shorter.
template <typename Work>
inline void blocks(int64_t length, const Work &work) {
    int64_t i = 0;
    for (; i + kLanes <= length; i += kLanes) work(i, std::integral_constant<int, kLanes>{});
    if (i < length) work(i, static_cast<int>(length - i));
}

inline Floats load(const float *from, int count) {
    Floats result = {};
    std::memcpy(&result, from, count * sizeof(float));
    return result;
}

inline void store(const Floats &values, float *to, int count) { std::memcpy(to, &values, count * sizeof(float)); }

// bfloat16: the upper half of a float32.
inline Floats load(const uint16_t *from, int count) {
    Shorts narrow = {};
    std::memcpy(&narrow, from, count * sizeof(uint16_t));
    const Ints bits = __builtin_convertvector(narrow, Ints) << 16;
    return (Floats)(bits);
}

inline void store(const Floats &values, uint16_t *to, int count) {
    const Ints bits = (Ints)(values);
    const Shorts narrow = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, Shorts);
    std::memcpy(to, &narrow, count * sizeof(uint16_t));
}

// Of each row of `length` values: its largest value (`scale`), and the p-th powers of value / scale.
template <typename Real>
void powers(int64_t rows, int64_t length, const float *values, float p, float *scale, Real *result, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t r = 0; r < rows; ++r) {
        const float *row = values + r * length;
        float largest = kSmallestScale;
#pragma omp simd reduction(max : largest)
        for (int64_t i = 0; i < length; ++i) largest = std::max(largest, row[i]);
        scale[r] = largest;
        const float inverse = 1 / largest;
        blocks(length, [&](int64_t i, auto count) {
            const Floats x = load(row + i, count) * inverse, value = power(x, p);
            store(value >= kSmallest && x > 0 ? value : Floats{}, result + r * length + i, count);
        });
    }
}

// sums (batch, positions, groups, 2, half) become quotients norm / sum; values (batch, positions, half): the sums over the
// groups of the differences of the norms, in the scales of images and outputs.
template <typename Real>
void difference(int64_t batch, int64_t positions, int64_t groups, int64_t half, Real *sums, float p, const float *x_scale,
                const float *w_scale, float *values, int threads) {
    const float exponent = 1 / p - 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t at = b * positions; at < (b + 1) * positions; ++at) {
            Real *row = sums + at * groups * 2 * half;
            blocks(half, [&](int64_t o, auto count) {
                Floats total;
                for (int64_t g = 0; g < groups; ++g) {
                    Real *first = row + g * 2 * half + o, *second = first + half;
                    const float *scale = w_scale + g * 2 * half + o;
                    const Floats a = load(first, count), c = load(second, count);
                    const Floats q = power(a + kSmallest, exponent), r = power(c + kSmallest, exponent);
                    const Floats value = load(scale, count) * (a * q) - load(scale + half, count) * (c * r);
                    total = g == 0 ? value : total + value;
                    store(q, first, count);
                    store(r, second, count);
                }
                store(x_scale[b] * total, values + at * half + o, count);
            });
        }
}

// The gradient of the sums: (batch, positions, groups, 2, half).
template <typename Real>
void sums_gradient(int64_t batch, int64_t positions, int64_t groups, int64_t half, const float *gradient,
                   const Real *quotients, const float *x_scale, const float *w_scale, Real *result, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t at = b * positions; at < (b + 1) * positions; ++at)
            for (int64_t g = 0; g < groups; ++g) {
                const float *scale = w_scale + g * 2 * half;
                const Real *first = quotients + (at * groups + g) * 2 * half, *second = first + half;
                Real *to_first = result + (at * groups + g) * 2 * half, *to_second = to_first + half;
                blocks(half, [&](int64_t o, auto count) {
                    const Floats scaled = x_scale[b] * load(gradient + at * half + o, count);
                    store(scaled * load(scale + o, count) * load(first + o, count), to_first + o, count);
                    store(-scaled * load(scale + half + o, count) * load(second + o, count), to_second + o, count);
                });
            }
}

// The gradient of values from that of their powers (without the factor p).
template <typename Real>
void values_gradient(int64_t length, const Real *gradient, const Real *powers, const float *values, float *result,
                     int threads) {
    constexpr int64_t kBlock = 1 << 14;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t first = 0; first < length; first += kBlock)
        blocks(std::min(kBlock, length - first), [&](int64_t j, auto count) {
            const int64_t i = first + j;
            const Floats power = load(powers + i, count), value = load(values + i, count);
            store(power > 0 ? load(gradient + i, count) * (power / value) : Floats{}, result + i, count);
        });
}

}  // namespace

#define P_NORM(Real, suffix)                                                                                          \
    extern "C" void p_norm_powers_##suffix(int64_t rows, int64_t length, const float *values, float p, float *scale,  \
                                           Real *result, int threads) {                                               \
        powers(rows, length, values, p, scale, result, threads);                                                      \
    }                                                                                                                 \
    extern "C" void p_norm_difference_##suffix(int64_t batch, int64_t positions, int64_t groups, int64_t half,        \
                                               Real *sums, float p, const float *x_scale, const float *w_scale,       \
                                               float *values, int threads) {                                          \
        difference(batch, positions, groups, half, sums, p, x_scale, w_scale, values, threads);                       \
    }                                                                                                                 \
    extern "C" void p_norm_sums_gradient_##suffix(int64_t batch, int64_t positions, int64_t groups, int64_t half,     \
                                                  const float *gradient, const Real *quotients, const float *x_scale, \
                                                  const float *w_scale, Real *result, int threads) {                  \
        sums_gradient(batch, positions, groups, half, gradient, quotients, x_scale, w_scale, result, threads);        \
    }                                                                                                                 \
    extern "C" void p_norm_values_gradient_##suffix(int64_t length, const Real *gradient, const Real *powers,         \
                                                    const float *values, float *result, int threads) {                \
        values_gradient(length, gradient, powers, values, result, threads);                                           \
    }

P_NORM(float, float32)
P_NORM(uint16_t, bfloat16)
