// SPDX-License-Identifier: Apache-2.0
// The maximum-of-products convolution on the CPU, forward with winners and backward through winners.
// Contract: plain_forward and plain_backward in operators.py. Compiled by native.py; called through ctypes.

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kLanes = 16;             // one 512-bit register; the compiler splits it where there is none
constexpr int kVectors = 2;            // registers of positions in a tile
constexpr int kColumns = kLanes * kVectors;
constexpr int kRows = 4;               // outputs in a tile: kRows * kVectors maxima and winners stay in registers

typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef int32_t Ints __attribute__((vector_size(kLanes * sizeof(int32_t))));

struct Shape {
    int64_t batch, channels, height, width, outputs, kernel_height, kernel_width, stride, padding, out_height, out_width;
    int64_t taps() const { return channels * kernel_height * kernel_width; }
    int64_t positions() const { return out_height * out_width; }
};

// Copies the inputs of `count` neighbouring positions of one image into panel[tap][column].
void fill_panel(const Shape &s, const float *image, int64_t first, int64_t count, float *panel) {
    int64_t row[kColumns], column[kColumns];
    for (int64_t j = 0; j < kColumns; ++j) {
        const int64_t position = first + (j < count ? j : 0);
        row[j] = position / s.out_width * s.stride - s.padding;
        column[j] = position % s.out_width * s.stride - s.padding;
    }
    for (int64_t c = 0; c < s.channels; ++c, image += s.height * s.width)
        for (int64_t ky = 0; ky < s.kernel_height; ++ky)
            for (int64_t kx = 0; kx < s.kernel_width; ++kx, panel += kColumns)
                for (int64_t j = 0; j < kColumns; ++j) {
                    const int64_t y = row[j] + ky, x = column[j] + kx;
                    const bool inside = y >= 0 && y < s.height && x >= 0 && x < s.width;
                    panel[j] = inside ? image[y * s.width + x] : 0.0f;
                }
}

// kRows outputs on one panel; weights are interleaved: weights[tap][row].
void tile(const float *weights, const float *panel, int64_t taps, Floats (&best)[kRows][kVectors],
          Ints (&winner)[kRows][kVectors]) {
    for (int r = 0; r < kRows; ++r)
        for (int v = 0; v < kVectors; ++v) {
            best[r][v] = Floats{};      // starts at 0, as the operator does
            winner[r][v] = Ints{} - 1;
        }
    for (int64_t i = 0; i < taps; ++i, panel += kColumns, weights += kRows) {
        const Ints index = Ints{} + static_cast<int32_t>(i);
        Floats x[kVectors];
        std::memcpy(x, panel, sizeof x);
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v) {
                const Floats product = x[v] * weights[r];
                const Ints better = product > best[r][v];
                best[r][v] = better ? product : best[r][v];
                winner[r][v] = better ? index : winner[r][v];
            }
    }
}

}  // namespace

extern "C" void max_product_forward(const int64_t *shape, const float *x, const float *w, float *values,
                                    int16_t *winners, int threads) {
    Shape s;
    std::memcpy(&s, shape, sizeof s);
    const int64_t taps = s.taps(), positions = s.positions(), groups = (s.outputs + kRows - 1) / kRows;
    std::vector<float> interleaved(groups * taps * kRows, 0.0f);
    for (int64_t o = 0; o < s.outputs; ++o)
        for (int64_t i = 0; i < taps; ++i)
            interleaved[(o / kRows * taps + i) * kRows + o % kRows] = w[o * taps + i];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < s.batch; ++b) {
        std::vector<float> panel(taps * kColumns);
        Floats best[kRows][kVectors];
        Ints winner[kRows][kVectors];
        for (int64_t first = 0; first < positions; first += kColumns) {
            const int64_t count = positions - first < kColumns ? positions - first : kColumns;
            fill_panel(s, x + b * s.channels * s.height * s.width, first, count, panel.data());
            for (int64_t group = 0; group < groups; ++group) {
                tile(&interleaved[group * taps * kRows], panel.data(), taps, best, winner);
                for (int64_t r = 0; r < kRows && group * kRows + r < s.outputs; ++r) {
                    const int64_t at = (b * s.outputs + group * kRows + r) * positions + first;
                    for (int64_t j = 0; j < count; ++j) {
                        values[at + j] = best[r][j / kLanes][j % kLanes];
                        winners[at + j] = static_cast<int16_t>(winner[r][j / kLanes][j % kLanes]);
                    }
                }
            }
        }
    }
}

// Adds to x_gradient and w_gradient, which the caller has set to 0.
extern "C" void max_product_backward(const int64_t *shape, const float *gradient, const int16_t *winners, const float *x,
                                     const float *w, float *x_gradient, float *w_gradient, int threads) {
    Shape s;
    std::memcpy(&s, shape, sizeof s);
    const int64_t taps = s.taps(), positions = s.positions(), plane = s.height * s.width;
    struct Tap { int32_t y, x; int64_t offset; };
    std::vector<Tap> tap(taps);
    for (int64_t i = 0; i < taps; ++i) {
        const int64_t kernel = s.kernel_height * s.kernel_width, ky = i % kernel / s.kernel_width, kx = i % s.kernel_width;
        tap[i] = {static_cast<int32_t>(ky - s.padding), static_cast<int32_t>(kx - s.padding),
                  i / kernel * plane + (ky - s.padding) * s.width + (kx - s.padding)};
    }
#pragma omp parallel num_threads(threads)
    {
        // every thread has its own sum over its images; a fixed split keeps the result reproducible
        std::vector<float> sum(s.outputs * taps, 0.0f);
#pragma omp for schedule(static)
        for (int64_t b = 0; b < s.batch; ++b) {
            const float *image = x + b * s.channels * plane;
            float *image_gradient = x_gradient + b * s.channels * plane;
            for (int64_t o = 0; o < s.outputs; ++o) {
                const int64_t at = (b * s.outputs + o) * positions;
                const float *row = w + o * taps;
                float *row_sum = &sum[o * taps];
                for (int64_t oy = 0, j = 0; oy < s.out_height; ++oy)
                    for (int64_t ox = 0; ox < s.out_width; ++ox, ++j) {
                        const int i = winners[at + j];
                        if (i < 0) continue;
                        // a winner's product is above 0, so that it never lies in the padding
                        const int64_t place = tap[i].offset + (oy * s.width + ox) * s.stride;
                        const float g = gradient[at + j];
                        image_gradient[place] += g * row[i];
                        row_sum[i] += g * image[place];
                    }
            }
        }
#pragma omp critical
        for (int64_t i = 0; i < s.outputs * taps; ++i) w_gradient[i] += sum[i];
    }
}
