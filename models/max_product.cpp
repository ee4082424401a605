// SPDX-License-Identifier: Apache-2.0
// The maximum-of-products convolution on the CPU, forward with winners and backward through winners.
// Contract: plain_forward and plain_backward in operators.py. Compiled by native_build.py; called through ctypes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int kLanes = 16;             // one 512-bit register; the compiler splits it where there is none
constexpr int kVectors = 4;            // registers of columns in a panel: as many chains hide the latency of one
constexpr int kColumns = kLanes * kVectors;

typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
typedef float UnalignedFloats __attribute__((vector_size(kLanes * sizeof(float)), aligned(sizeof(float)), may_alias));
typedef int32_t Ints __attribute__((vector_size(kLanes * sizeof(int32_t))));
typedef int16_t Shorts __attribute__((vector_size(kLanes * sizeof(int16_t))));

struct Shape {
    int64_t batch, channels, height, width, outputs, kernel_height, kernel_width, stride, padding, out_height, out_width;
    int64_t taps() const { return channels * kernel_height * kernel_width; }
    int64_t positions() const { return out_height * out_width; }
    int64_t padded_height() const { return height + 2 * padding; }
    int64_t padded_width() const { return width + 2 * padding; }
};

struct Tap { float weight; int32_t index; };

// The taps of each output that can win, in their order: with x >= 0 those of a weight above 0, so that an output and
// its negated twin (layout signed) together cost what one of them would.
struct Rows {
    std::vector<Tap> taps;
    std::vector<int64_t> start;

    Rows(const Shape &s, const float *w, bool nonnegative) : start(s.outputs + 1, 0) {
        taps.reserve(s.outputs * s.taps());
        for (int64_t o = 0; o < s.outputs; ++o) {
            for (int64_t i = 0; i < s.taps(); ++i, ++w)
                if (nonnegative ? *w > 0 : *w != 0) taps.push_back({*w, static_cast<int32_t>(i)});
            start[o + 1] = taps.size();
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

}  // namespace

extern "C" void max_product_forward(const int64_t *shape, const float *x, const float *w, float *values,
                                    int16_t *winners, int threads) {
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
        Floats best[kVectors];
        Ints winner[kVectors];
        int64_t place[kColumns], target[kColumns];
#pragma omp for schedule(static)
        for (int64_t first = 0; first < columns; first += kColumns) {
            for (int64_t j = 0; j < kColumns; ++j) {
                const int64_t column = std::min(first + j, columns - 1);    // the last one fills up the panel
                const int64_t b = column / positions, position = column % positions;
                place[j] = b * image + (position / s.out_width * s.padded_width() + position % s.out_width) * s.stride;
                target[j] = b * s.outputs * positions + position;
            }
            fill_panel(s, x, place, panel.data());
            for (int64_t o = 0; o < s.outputs; ++o) {
                tile(&rows.taps[rows.start[o]], rows.taps.data() + rows.start[o + 1], panel.data(), best, winner);
                for (int v = 0; v < kVectors; ++v) {
                    const int64_t *to = target + v * kLanes;
                    if (to[kLanes - 1] - to[0] == kLanes - 1) {
                        const Shorts narrow = __builtin_convertvector(winner[v], Shorts);
                        std::memcpy(values + to[0] + o * positions, &best[v], sizeof best[v]);
                        std::memcpy(winners + to[0] + o * positions, &narrow, sizeof narrow);
                    } else {
                        for (int j = 0; j < kLanes; ++j) {
                            values[to[j] + o * positions] = best[v][j];
                            winners[to[j] + o * positions] = static_cast<int16_t>(winner[v][j]);
                        }
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
    std::vector<int64_t> offset(taps);
    for (int64_t i = 0; i < taps; ++i) {
        const int64_t kernel = s.kernel_height * s.kernel_width, ky = i % kernel / s.kernel_width, kx = i % s.kernel_width;
        offset[i] = i / kernel * plane + (ky - s.padding) * s.width + (kx - s.padding);
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
                        const int64_t place = offset[i] + (oy * s.width + ox) * s.stride;
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
