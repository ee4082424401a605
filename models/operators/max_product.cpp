// SPDX-License-Identifier: Apache-2.0
// The maximum-of-products convolution on the CPU, forward with winners and backward through winners. Each output has one
// maximum a group of input channels, number o * groups + g, whose taps lie behind each other. With `pairs` set, outputs o
// and o + outputs / 2 are the two sides of one value, the sum of its groups' differences.
// Contract: plain_forward and plain_backward in operators.py. Compiled by native_build.py; called through ctypes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "registers.h"

namespace {

constexpr int kLanes = kRegisterBytes / sizeof(float);
// Registers of columns in a panel, as many chains as hide the latency of one; with its winners each takes two of the
// processor's registers, which are 32 of 512 bits, else 16.
constexpr int kVectors = kRegisterBytes == 64 ? 4 : 3;
constexpr int kColumns = kLanes * kVectors;
// The gradient of the weights is the sum of so many sums over images, whatever the number of threads.
constexpr int64_t kParts = 16;
// Taps of a group up to which, and positions from which on, the gradients are found tap by tap.
constexpr int64_t kFewTaps = 16, kManyPositions = 256;

typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef float UnalignedFloats __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int32_t Ints __attribute__((vector_size(kLanes * sizeof(int32_t))));
typedef int16_t Shorts __attribute__((vector_size(kLanes * sizeof(int16_t))));

struct Shape {
    int64_t batch, channels, height, width, outputs, kernel_height, kernel_width, stride, padding, out_height, out_width;
    int64_t groups;
    int64_t taps() const { return channels * kernel_height * kernel_width; }
    int64_t maxima() const { return outputs * groups; }
    int64_t positions() const { return out_height * out_width; }
    int64_t padded_height() const { return height + 2 * padding; }
    int64_t padded_width() const { return width + 2 * padding; }
};

struct Tap { float weight; int32_t index; };

// The taps of each maximum that can win, in their order: with x >= 0 those of a weight above 0, so that an output and
// its negated twin (layout signed) together cost what one of them would.
struct Rows {
    std::vector<Tap> taps;
    std::vector<int64_t> start;

    Rows(const Shape &s, const float *w, bool nonnegative) : start(s.maxima() + 1, 0) {
        taps.reserve(s.outputs * s.taps());
        const int64_t group = s.taps() / s.groups;
        for (int64_t m = 0; m < s.maxima(); ++m) {
            for (int64_t i = m % s.groups * group, end = i + group; i < end; ++i, ++w)
                if (nonnegative ? *w > 0 : *w != 0) taps.push_back({*w, static_cast<int32_t>(i)});
            start[m + 1] = taps.size();
        }
    }
};

std::vector<float> padded_images(const Shape &s, const float *x) {
    std::vector<float> result(s.batch * s.channels * s.padded_height() * s.padded_width(), 0.0f);
    float *plane = result.data();
    for (int64_t c = 0; c < s.batch * s.channels; ++c, plane += s.padded_height() * s.padded_width())
        for (int64_t y = 0; y < s.height; ++y, x += s.width)
            std::copy(x, x + s.width, plane + (y + s.padding) * s.padded_width() + s.padding);
    return result;
}

// Copies the inputs of kColumns neighbouring columns (image, position) into panel[tap][column]; place[j] is where the
// first tap of column j lies in the padded images.
void fill_panel(const Shape &s, const float *x, const int64_t (&place)[kColumns], float *panel) {
    const bool together = place[kColumns - 1] - place[0] == kColumns - 1;
    for (int64_t c = 0; c < s.channels; ++c)
        for (int64_t ky = 0; ky < s.kernel_height; ++ky)
            for (int64_t kx = 0; kx < s.kernel_width; ++kx, panel += kColumns) {
                const float *from = x + (c * s.padded_height() + ky) * s.padded_width() + kx;
                if (together)
                    std::memcpy(panel, from + place[0], kColumns * sizeof(float));
                else
                    for (int j = 0; j < kColumns; ++j) panel[j] = from[place[j]];
            }
}

// The values alone.
void tile(const Tap *tap, const Tap *end, const float *panel, Floats (&values)[kVectors]) {
    Floats best[kVectors] = {};
    for (; tap != end; ++tap) {
        const auto *x = reinterpret_cast<const UnalignedFloats *>(panel + static_cast<int64_t>(tap->index) * kColumns);
        const Floats weight = Floats{} + tap->weight;
        for (int v = 0; v < kVectors; ++v) {
            const Floats product = x[v] * weight;
            best[v] = product > best[v] ? product : best[v];
        }
    }
    for (int v = 0; v < kVectors; ++v) values[v] = best[v];
}

void tile(const Tap *tap, const Tap *end, const float *panel, Floats (&values)[kVectors], Ints (&winners)[kVectors]) {
    Floats best[kVectors];              // of its own: what others can see, the compiler stores after every tap
    Ints winner[kVectors];
    for (int v = 0; v < kVectors; ++v) {
        best[v] = Floats{};             // starts at 0, as the operator does
        winner[v] = Ints{} - 1;
    }
    for (; tap != end; ++tap) {
        // loaded in whole registers: memcpy would go through memory in halves
        const auto *x = reinterpret_cast<const UnalignedFloats *>(panel + static_cast<int64_t>(tap->index) * kColumns);
        const Floats weight = Floats{} + tap->weight;
        const Ints index = Ints{} + tap->index;
        for (int v = 0; v < kVectors; ++v) {
            const Floats product = x[v] * weight;
            const Ints better = product > best[v];
            best[v] = better ? product : best[v];
            winner[v] = better ? index : winner[v];
        }
    }
    for (int v = 0; v < kVectors; ++v) {
        values[v] = best[v];
        winners[v] = winner[v];
    }
}

// Writes one register of columns to result[image][output][position].
template <typename Vector, typename Element>
void store(const Vector &vector, Element *result, int v, const int64_t (&image_of)[kColumns],
           const int64_t (&position)[kColumns], int64_t output, int64_t outputs, int64_t positions) {
    const int64_t *b = image_of + v * kLanes, *p = position + v * kLanes;
    if (b[0] == b[kLanes - 1] && p[kLanes - 1] - p[0] == kLanes - 1) {
        std::memcpy(result + (b[0] * outputs + output) * positions + p[0], &vector, sizeof vector);
    } else {
        for (int j = 0; j < kLanes; ++j) result[(b[j] * outputs + output) * positions + p[j]] = vector[j];
    }
}

// Of one tap of an output over an image's positions, where it has won: adds the gradient to that of the input, and returns
// that of the weight. The sum is of kWide sums, whatever the processor's registers are.
float tap_gradients(int64_t positions, int16_t index, float side, float weight, const int16_t *winners,
                    const float *gradient, const float *x, float *x_gradient) {
    constexpr int kWide = 16, kVectorsOf = kWide / kLanes;
    Floats sums[kVectorsOf] = {};
    int64_t j = 0;
    for (; j + kWide <= positions; j += kWide)
        for (int v = 0; v < kVectorsOf; ++v) {
            const int64_t at = j + v * kLanes;
            Shorts narrow;
            Floats came, value, to;
            std::memcpy(&narrow, winners + at, sizeof narrow);
            std::memcpy(&came, gradient + at, sizeof came);
            std::memcpy(&value, x + at, sizeof value);
            std::memcpy(&to, x_gradient + at, sizeof to);
            const Floats taken = __builtin_convertvector(narrow, Ints) == index ? came * side : Floats{};
            to += taken * weight;
            sums[v] += taken * value;
            std::memcpy(x_gradient + at, &to, sizeof to);
        }
    float lanes[kWide];
    std::memcpy(lanes, sums, sizeof lanes);
    for (int lane = 0; j < positions; ++j, ++lane)
        if (winners[j] == index) {
            const float taken = side * gradient[j];
            x_gradient[j] += taken * weight;
            lanes[lane] += taken * x[j];
        }
    float sum = 0;
    for (float lane : lanes) sum += lane;
    return sum;
}

}  // namespace

// Without `winners` (null), the values only.
extern "C" void max_product_forward(const int64_t *shape, const float *x, const float *w, float *values,
                                    int16_t *winners, int pairs, int threads) {
    Shape s;
    std::memcpy(&s, shape, sizeof s);
    const int64_t positions = s.positions(), columns = s.batch * positions;
    const int64_t image = s.channels * s.padded_height() * s.padded_width();
    const int64_t size = s.batch * s.channels * s.height * s.width;
    const Rows rows(s, w, std::all_of(x, x + size, [](float value) { return value >= 0; }));
    std::vector<float> padded;
    if (s.padding > 0) {
        padded = padded_images(s, x);
        x = padded.data();
    }
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> panel(s.taps() * kColumns);
        Floats best[kVectors], second[kVectors], other[kVectors];
        int64_t place[kColumns], image_of[kColumns], position[kColumns];
        const int64_t half = s.maxima() / 2, distinct = pairs ? s.outputs / 2 : s.maxima();

        // runs one maximum on the panel and writes its winners
        const auto winners_of = [&](int64_t m, Floats (&values_of)[kVectors]) {
            const Tap *tap = rows.taps.data() + rows.start[m], *end = rows.taps.data() + rows.start[m + 1];
            if (winners == nullptr) return tile(tap, end, panel.data(), values_of);
            Ints winner[kVectors];
            tile(tap, end, panel.data(), values_of, winner);
            for (int v = 0; v < kVectors; ++v)
                store(__builtin_convertvector(winner[v], Shorts), winners, v, image_of, position, m, s.maxima(), positions);
        };
        const auto difference_of = [&](int64_t m, Floats (&values_of)[kVectors]) {
            winners_of(m, values_of);
            winners_of(m + half, second);
            for (int v = 0; v < kVectors; ++v) values_of[v] -= second[v];
        };
#pragma omp for schedule(static)
        for (int64_t first = 0; first < columns; first += kColumns) {
            for (int64_t j = 0; j < kColumns; ++j) {
                const int64_t column = std::min(first + j, columns - 1);    // the last one fills up the panel
                image_of[j] = column / positions;
                position[j] = column % positions;
                place[j] = image_of[j] * image +
                           (position[j] / s.out_width * s.padded_width() + position[j] % s.out_width) * s.stride;
            }
            fill_panel(s, x, place, panel.data());
            for (int64_t o = 0; o < distinct; ++o) {
                if (pairs) {
                    difference_of(o * s.groups, best);
                    for (int64_t g = 1; g < s.groups; ++g) {
                        difference_of(o * s.groups + g, other);
                        for (int v = 0; v < kVectors; ++v) best[v] += other[v];
                    }
                } else {
                    winners_of(o, best);
                }
                for (int v = 0; v < kVectors; ++v)
                    store(best[v], values, v, image_of, position, o, distinct, positions);
            }
        }
    }
}

// Adds to x_gradient and w_gradient, which the caller has set to 0.
extern "C" void max_product_backward(const int64_t *shape, const float *gradient, const int16_t *winners, const float *x,
                                     const float *w, float *x_gradient, float *w_gradient, int pairs, int threads) {
    Shape s;
    std::memcpy(&s, shape, sizeof s);
    const int64_t taps = s.taps(), positions = s.positions(), plane = s.height * s.width, half = s.outputs / 2;
    const int64_t groups = s.groups, group = taps / groups;
    // Most maxima pass a tap by: where there are few, each looks for its maxima, else each maximum for its tap.
    const bool few = groups > 1 && group <= kFewTaps && positions >= kManyPositions && s.kernel_height == 1 &&
                     s.kernel_width == 1 && s.stride == 1 && s.padding == 0;
    const bool nonnegative =
        few && std::all_of(x, x + s.batch * s.channels * plane, [](float value) { return value >= 0; });
    std::vector<int64_t> offset(taps);
    for (int64_t i = 0; i < taps; ++i) {
        const int64_t kernel = s.kernel_height * s.kernel_width, ky = i % kernel / s.kernel_width, kx = i % s.kernel_width;
        offset[i] = i / kernel * plane + (ky - s.padding) * s.width + (kx - s.padding);
    }
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> sum(s.outputs * taps);
        // one part after the other is added, so that the result is the same with any number of threads
#pragma omp for schedule(static, 1) ordered
        for (int64_t part = 0; part < kParts; ++part) {
            const int64_t first = part * s.batch / kParts, last = (part + 1) * s.batch / kParts;
            if (first < last) std::fill(sum.begin(), sum.end(), 0.0f);
            for (int64_t b = first; b < last; ++b) {
                const float *image = x + b * s.channels * plane;
                float *image_gradient = x_gradient + b * s.channels * plane;
                for (int64_t o = 0; o < s.outputs; ++o) {
                    const int64_t at = (b * s.outputs + o) * groups * positions;
                    // the groups of a pair have one gradient, else each maximum has its own
                    const int64_t value = pairs ? (b * half + o % half) * positions : at, next = pairs ? 0 : positions;
                    const float side = pairs && o >= half ? -1.0f : 1.0f;
                    const float *row = w + o * taps;
                    float *row_sum = &sum[o * taps];
                    if (few) {
                        for (int64_t g = 0; g < groups; ++g)
                            for (int64_t i = g * group; i < (g + 1) * group; ++i)
                                if (nonnegative ? row[i] > 0 : row[i] != 0)
                                    row_sum[i] += tap_gradients(positions, static_cast<int16_t>(i), side, row[i],
                                                                winners + at + g * positions, gradient + value + g * next,
                                                                image + i * plane, image_gradient + i * plane);
                        continue;
                    }
                    for (int64_t oy = 0, j = 0; oy < s.out_height; ++oy)
                        for (int64_t ox = 0; ox < s.out_width; ++ox, ++j)
                            for (int64_t g = 0; g < groups; ++g) {
                                const int i = winners[at + g * positions + j];
                                if (i < 0) continue;
                                // a winner's product is above 0, so that it never lies in the padding
                                const int64_t place = offset[i] + (oy * s.width + ox) * s.stride;
                                const float came = side * gradient[value + g * next + j];
                                image_gradient[place] += came * row[i];
                                row_sum[i] += came * image[place];
                            }
                }
            }
#pragma omp ordered
            if (first < last)
                for (int64_t i = 0; i < s.outputs * taps; ++i) w_gradient[i] += sum[i];
        }
    }
}
