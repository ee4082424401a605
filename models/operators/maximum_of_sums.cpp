// SPDX-License-Identifier: Apache-2.0
// The maxima of sums of a whole layer in 16-bit integers. Contract: maxima_of_rows in maximum_of_sums.py.
// Compiled by native_build.py; called through ctypes.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "registers.h"

namespace {

constexpr int kLanes = kRegisterBytes / sizeof(int16_t);
constexpr int kVectors = 4;
constexpr int kColumns = kLanes * kVectors;

typedef int16_t Shorts __attribute__((vector_size(kLanes * sizeof(int16_t))));
typedef int16_t UnalignedShorts
    __attribute__((vector_size(kLanes * sizeof(int16_t)), aligned(sizeof(int16_t)), may_alias));

}  // namespace

// candidates[candidate][column]; terms start[o] .. start[o + 1] of output o: maximum[o][column] is the largest of 0 and
// candidates[index[t]][column] + k[t].
extern "C" void maxima_of_rows(int64_t count, int64_t columns, int64_t outputs, const int16_t *candidates,
                               const int64_t *start, const int32_t *index, const int16_t *k, int16_t *maximum,
                               int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<int16_t> panel(count * kColumns, 0);
#pragma omp for schedule(static)
        for (int64_t first = 0; first < columns; first += kColumns) {
            const int64_t width = std::min<int64_t>(kColumns, columns - first);
            for (int64_t i = 0; i < count; ++i)
                std::memcpy(&panel[i * kColumns], candidates + i * columns + first, width * sizeof(int16_t));
            for (int64_t o = 0; o < outputs; ++o) {
                Shorts best[kVectors] = {};
                for (int64_t t = start[o]; t < start[o + 1]; ++t) {
                    const auto *codes = reinterpret_cast<const UnalignedShorts *>(&panel[int64_t{index[t]} * kColumns]);
                    const Shorts weight = Shorts{} + k[t];
                    for (int v = 0; v < kVectors; ++v) {
                        const Shorts sum = codes[v] + weight;
                        best[v] = sum > best[v] ? sum : best[v];
                    }
                }
                std::memcpy(maximum + o * columns + first, best, width * sizeof(int16_t));
            }
        }
    }
}
