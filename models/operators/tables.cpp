// SPDX-License-Identifier: Apache-2.0
// Functions of products, looked up by their highest bits. Contract: tables.py. Compiled by native_build.py; called through
// ctypes.

#include <cstdint>
#include <cstring>

// products (batch, 2, half, groups, positions), values (batch, half, positions).
extern "C" void table_differences(int64_t batch, int64_t half, int64_t groups, int64_t positions, const float *products,
                                  const float *table, float *values, int shift, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < batch * half; ++row) {
        const int64_t b = row / half, o = row % half;
        const float *first = products + (b * 2 * half + o) * groups * positions;
        const float *second = first + half * groups * positions;
        float *value = values + row * positions;
        const auto found = [&](const float *from) {
            uint32_t bits;
            std::memcpy(&bits, from, sizeof bits);
            return table[(bits & 0x7fffffff) >> shift];  // 0 may have a sign
        };
        for (int64_t j = 0; j < positions; ++j) value[j] = found(first + j) - found(second + j);
        for (int64_t g = 1; g < groups; ++g)
            for (int64_t j = g * positions; j < (g + 1) * positions; ++j)
                value[j - g * positions] += found(first + j) - found(second + j);
    }
}
