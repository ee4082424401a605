// SPDX-License-Identifier: Apache-2.0
// The values of linear integers' codes, and the gradient. Contract: encoding.py. Compiled by native_build.py; called through
// ctypes.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

// Of each channel: how what enters becomes an integer (`scale`, of signed ones), from where on integers look alike
// (`cap`), what of them the table sees (`shift`), its first entry (`row`), and what is added to its code.
struct Channels {
    const float *scale, *cap;
    const int32_t *shift, *row, *offset;
};

template <bool kSigned>
inline float integer(const Channels &of, int64_t c, float y) {
    return kSigned ? std::floor(y * of.scale[c] + 0.5f) : y;
}

template <bool kSigned>
void forward(int64_t pixels, int64_t channels, const float *y, const Channels &of, const int32_t *table,
             const float *values, int32_t largest, float *result, int threads) {
    const float smallest = values[0];
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t at = 0; at < pixels; ++at) {
        const float *from = y + at * channels;
        float *to = result + at * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; ++c) {
            const float x = integer<kSigned>(of, c, from[c]), magnitude = kSigned ? std::fabs(x) : x;
            const float positive = magnitude > 0 ? magnitude : 0.0f;
            const int32_t seen = static_cast<int32_t>(positive < of.cap[c] ? positive : of.cap[c]) >> of.shift[c];
            const int32_t sum = table[of.row[c] + seen] + of.offset[c];
            const int32_t code = sum < 0 ? 0 : sum > largest ? largest : sum;
            float value = values[magnitude > 0 ? code : 0];
            if (kSigned) value = (x < 0) & (value > smallest) ? -value : value;
            to[c] = magnitude == magnitude ? value : magnitude;     // what is no number is seen in the loss
        }
    }
}

// factor_gradient (batch, channels): an image's pixels one after the other, so that threads and registers don't matter.
template <bool kSigned>
void backward(int64_t batch, int64_t positions, int64_t channels, const float *gradient, const float *y,
              const Channels &of, const float *factor, float unit, float *result, float *factor_gradient, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < batch; ++b) {
        float *sum = factor_gradient + b * channels;
        std::fill(sum, sum + channels, 0.0f);
        for (int64_t at = b * positions; at < (b + 1) * positions; ++at) {
            const float *from = y + at * channels, *came = gradient + at * channels;
            float *to = result + at * channels;
#pragma omp simd
            for (int64_t c = 0; c < channels; ++c) {
                const float x = integer<kSigned>(of, c, from[c]), magnitude = (kSigned ? std::fabs(x) : x) * unit;
                const bool inside = (magnitude > 0) & (magnitude * factor[c] <= 1);
                const float taken = inside ? came[c] : 0.0f, slope = taken * factor[c] * unit;
                const float part = taken * (inside ? magnitude : 0.0f);
                sum[c] += kSigned & (x < 0) ? -part : part;
                to[c] = kSigned ? slope * of.scale[c] : slope;
            }
        }
    }
}

}  // namespace

extern "C" void encoding_forward(int64_t pixels, int64_t channels, const float *y, const float *scale, const float *cap,
                                 const int32_t *shift, const int32_t *row, const int32_t *offset, const int32_t *table,
                                 const float *values, int64_t largest, float *result, int threads) {
    const auto work = scale == nullptr ? forward<false> : forward<true>;
    work(pixels, channels, y, {scale, cap, shift, row, offset}, table, values, static_cast<int32_t>(largest), result, threads);
}

extern "C" void encoding_backward(int64_t batch, int64_t positions, int64_t channels, const float *gradient, const float *y,
                                  const float *scale, const float *factor, float unit, float *result,
                                  float *factor_gradient, int threads) {
    const auto work = scale == nullptr ? backward<false> : backward<true>;
    work(batch, positions, channels, gradient, y, {scale, nullptr, nullptr, nullptr, nullptr}, factor, unit, result,
         factor_gradient, threads);
}
