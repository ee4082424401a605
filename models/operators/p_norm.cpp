// SPDX-License-Identifier: Apache-2.0
// What lies around the convolution of a p-norm, each in one pass over the memory, for float32 and bfloat16 powers;
// channels lie last. Contract: the plain functions in smoothed.py. Compiled by native_build.py; called through ctypes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

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

// The quotient norm / sum of sums: their power 1 / p - 1.
inline Floats quotient(Floats sums, float exponent) { return power(sums + kSmallest, exponent); }

// The quotients of many sums.
template <typename Real>
struct Quotients {
    float exponent;

    Quotients(float exponent, int64_t) : exponent(exponent) {}

    void operator()(const Real *sums, int64_t length, float *result) const {
        blocks(length, [&](int64_t i, auto count) { store(quotient(load(sums + i, count), exponent), result + i, count); });
    }
};

// bfloat16 has fewer numbers of 0 and more than a layer has sums: what all of them give is looked up.
template <>
struct Quotients<uint16_t> {
    static constexpr int kNumbers = 1 << 15;
    std::vector<float> table;

    Quotients(float exponent, int64_t) : table(kNumbers) {
        uint16_t numbers[kLanes];
        for (int first = 0; first < kNumbers; first += kLanes) {
            for (int j = 0; j < kLanes; ++j) numbers[j] = static_cast<uint16_t>(first + j);
            store(quotient(load(numbers, kLanes), exponent), &table[first], kLanes);
        }
    }

    void operator()(const uint16_t *sums, int64_t length, float *result) const {
        for (int64_t i = 0; i < length; ++i) result[i] = table[sums[i] & (kNumbers - 1)];
    }
};

// sums (batch, positions, groups, 2, half) become quotients norm / sum; values (batch, positions, half): the sums over the
// groups of the differences of the norms, in the scales of images and outputs.
template <typename Real>
void difference(int64_t batch, int64_t positions, int64_t groups, int64_t half, Real *sums, float p, const float *x_scale,
                const float *w_scale, float *values, int threads) {
    const Quotients<Real> quotients(1 / p - 1, batch * positions * groups * 2 * half);
#pragma omp parallel num_threads(threads)
    {
        const int64_t length = groups * 2 * half;
        std::vector<float> found(length);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < batch; ++b)
            for (int64_t at = b * positions; at < (b + 1) * positions; ++at) {
                Real *row = sums + at * length;
                quotients(row, length, found.data());
                blocks(half, [&](int64_t o, auto count) {
                    Floats total;
                    for (int64_t g = 0; g < groups; ++g) {
                        const int64_t i = g * 2 * half + o, j = i + half;
                        const Floats a = load(row + i, count), c = load(row + j, count);
                        const Floats q = load(&found[i], count), r = load(&found[j], count);
                        const Floats value = load(w_scale + i, count) * (a * q) - load(w_scale + j, count) * (c * r);
                        total = g == 0 ? value : total + value;
                        store(q, row + i, count);
                        store(r, row + j, count);
                    }
                    store(x_scale[b] * total, values + at * half + o, count);
                });
            }
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

// The gradient of the weights is the sum of so many sums over pixels, whatever the number of threads.
constexpr int64_t kParts = 16;

// Rows of weights (groups, rows, kMembers) as (groups, kMembers, rows), which registers of rows are taken from.
template <typename Real>
std::vector<float> by_member(int64_t groups, int64_t rows, int members, const Real *w) {
    std::vector<float> result(groups * rows * members);
    for (int64_t g = 0; g < groups; ++g)
        for (int64_t r = 0; r < rows; ++r)
            for (int m = 0; m < members; ++m)
                result[(g * members + m) * rows + r] = load(w + (g * rows + r) * members + m, 1)[0];
    return result;
}

// Products of matrices, one a group of few channels: x (pixels, groups, kMembers), w (groups, rows, kMembers), sums
// (pixels, groups, rows).
template <int kMembers, typename Real>
void products(int64_t pixels, int64_t groups, int64_t rows, const Real *x, const Real *w, Real *sums, int threads) {
    const std::vector<float> weights = by_member(groups, rows, kMembers, w);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t at = 0; at < pixels * groups; ++at) {
        const float *weight = &weights[at % groups * kMembers * rows];
        float values[kMembers];
        for (int m = 0; m < kMembers; ++m) values[m] = load(x + at * kMembers + m, 1)[0];
        blocks(rows, [&](int64_t r, auto count) {
            Floats sum = values[0] * load(weight + r, count);
            for (int m = 1; m < kMembers; ++m) sum += values[m] * load(weight + m * rows + r, count);
            store(sum, sums + at * rows + r, count);
        });
    }
}

// kWide lanes, of as many registers as that takes: what is summed up lane by lane has the same bits on every processor.
constexpr int kWide = 16, kVectors = kWide / kLanes;

inline float sum_of(const Floats (&lanes)[kVectors]) {
    float wide[kWide];
    std::memcpy(wide, lanes, sizeof wide);
    for (int half = kWide / 2; half > 0; half /= 2)
        for (int j = 0; j < half; ++j) wide[j] += wide[j + half];
    return wide[0];
}

// Of kPixels neighbouring pixels and one group, see products_gradients: adds to `sum` (kMembers, rows). `step`: elements
// from pixel to pixel in x; `gradient_step`: in the gradient.
template <int kMembers, int kPixels, typename Real>
void group_gradients(int64_t rows, int64_t step, int64_t gradient_step, const Real *gradient, const Real *x,
                     const float *weight, Real *x_gradient, float *sum) {
    Floats lanes[kPixels][kMembers][kVectors] = {};
    float values[kPixels][kMembers];
    for (int i = 0; i < kPixels; ++i)
        for (int m = 0; m < kMembers; ++m) values[i][m] = load(x + i * step + m, 1)[0];
    const auto add = [&](int64_t r, int v, auto count) __attribute__((always_inline)) {
        Floats came[kPixels];
        for (int i = 0; i < kPixels; ++i) came[i] = load(gradient + i * gradient_step + r, count);
        for (int m = 0; m < kMembers; ++m) {
            const Floats w = load(weight + m * rows + r, count);
            Floats total = load(sum + m * rows + r, count);
            for (int i = 0; i < kPixels; ++i) {
                total += values[i][m] * came[i];
                lanes[i][m][v] += came[i] * w;
            }
            store(total, sum + m * rows + r, count);
        }
    };
    int64_t first = 0;
    for (; first + kWide <= rows; first += kWide)
        for (int v = 0; v < kVectors; ++v) add(first + v * kLanes, v, std::integral_constant<int, kLanes>{});
    for (int v = 0; v < kVectors; ++v) {
        const int64_t r = first + v * kLanes;
        if (r < rows) add(r, v, static_cast<int>(std::min<int64_t>(rows - r, kLanes)));
    }
    for (int i = 0; i < kPixels; ++i)
        for (int m = 0; m < kMembers; ++m) store(Floats{} + sum_of(lanes[i][m]), x_gradient + i * step + m, 1);
}

// The gradients of x and w from that of the sums.
template <int kMembers, typename Real>
void products_gradients(int64_t pixels, int64_t groups, int64_t rows, const Real *gradient, const Real *x, const Real *w,
                        Real *x_gradient, Real *w_gradient, int threads) {
    constexpr int kPixels = 4;
    const int64_t size = groups * rows * kMembers, step = groups * kMembers, gradient_step = groups * rows;
    const std::vector<float> weights = by_member(groups, rows, kMembers, w);
    std::vector<float> total(size, 0.0f);
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> sum(size);
#pragma omp for schedule(static, 1) ordered
        for (int64_t part = 0; part < kParts; ++part) {
            std::fill(sum.begin(), sum.end(), 0.0f);
            const int64_t last = (part + 1) * pixels / kParts;
            for (int64_t at = part * pixels / kParts; at < last;) {
                const bool several = at + kPixels <= last;
                const auto work = several ? group_gradients<kMembers, kPixels, Real> : group_gradients<kMembers, 1, Real>;
                for (int64_t g = 0; g < groups; ++g) {
                    const int64_t first = g * kMembers * rows;
                    work(rows, step, gradient_step, gradient + at * gradient_step + g * rows, x + at * step + g * kMembers,
                         &weights[first], x_gradient + at * step + g * kMembers, &sum[first]);
                }
                at += several ? kPixels : 1;
            }
#pragma omp ordered
            for (int64_t i = 0; i < size; ++i) total[i] += sum[i];
        }
    }
    for (int64_t g = 0; g < groups; ++g)
        for (int64_t r = 0; r < rows; ++r)
            for (int m = 0; m < kMembers; ++m)
                store(Floats{} + total[(g * kMembers + m) * rows + r], w_gradient + (g * rows + r) * kMembers + m, 1);
}

// Runs `work` with the number of a group's channels as a constant: 1 to kMostMembers.
constexpr int kMostMembers = 4;
template <int kMembers = 1, typename Work>
void with_members(int64_t members, const Work &work) {
    if (members == kMembers) work(std::integral_constant<int, kMembers>{});
    else if constexpr (kMembers < kMostMembers) with_members<kMembers + 1>(members, work);
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
    }                                                                                                                 \
    extern "C" void p_norm_products_##suffix(int64_t pixels, int64_t groups, int64_t rows, int64_t members,           \
                                             const Real *x, const Real *w, Real *sums, int threads) {                 \
        with_members(members, [&](auto m) { products<m>(pixels, groups, rows, x, w, sums, threads); });               \
    }                                                                                                                 \
    extern "C" void p_norm_products_gradients_##suffix(int64_t pixels, int64_t groups, int64_t rows, int64_t members, \
                                                       const Real *gradient, const Real *x, const Real *w,            \
                                                       Real *x_gradient, Real *w_gradient, int threads) {             \
        with_members(members, [&](auto m) {                                                                           \
            products_gradients<m>(pixels, groups, rows, gradient, x, w, x_gradient, w_gradient, threads);             \
        });                                                                                                           \
    }

P_NORM(float, float32)
P_NORM(uint16_t, bfloat16)
