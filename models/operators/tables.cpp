// SPDX-License-Identifier: Apache-2.0
// Functions of products, looked up by their highest bits. Contract: tables.py. Compiled by native_build.py; called through
// ctypes.

#include <algorithm>
#include <cstdint>
#include <cstring>

// products (batch, 2, half, groups, positions), values (batch, positions, half). Of kOutputs outputs at a time, so that
// what is written beside each other is found in the nearest cache.
extern "C" void table_differences(int64_t batch, int64_t half, int64_t groups, int64_t positions, const float *products,
                                  const float *table, float *values, int shift, int threads) {
    constexpr int64_t kOutputs = 16, kPositions = 256;
    const auto found = [&](const float *from) {
        uint32_t bits;
        std::memcpy(&bits, from, sizeof bits);
        return table[(bits & 0x7fffffff) >> shift];     // 0 may have a sign
    };
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t b = 0; b < batch; ++b)
        for (int64_t j = 0; j < positions; j += kPositions)
            for (int64_t o = 0; o < half; o += kOutputs) {
                const int64_t outputs = std::min(kOutputs, half - o), count = std::min(kPositions, positions - j);
                float totals[kPositions][kOutputs], total[kPositions];
                for (int64_t k = 0; k < outputs; ++k) {
                    const float *first = products + (b * 2 * half + o + k) * groups * positions + j;
                    const float *second = first + half * groups * positions;
                    for (int64_t i = 0; i < count; ++i) total[i] = found(first + i) - found(second + i);
                    for (int64_t g = 1; g < groups; ++g) {
                        first += positions;
                        second += positions;
                        for (int64_t i = 0; i < count; ++i) total[i] += found(first + i) - found(second + i);
                    }
                    for (int64_t i = 0; i < count; ++i) totals[i][k] = total[i];
                }
                float *value = values + (b * positions + j) * half + o;
                for (int64_t i = 0; i < count; ++i, value += half) std::copy(totals[i], totals[i] + outputs, value);
            }
}
