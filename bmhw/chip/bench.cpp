// SPDX-License-Identifier: Apache-2.0
// A network's bench: images in, every part's numbers compared with what the integer network has there.
//
// Usage: bench FOLDER IMAGES SEED GAPS; the folder holds pixels.bin (a byte each) and of each tap N the file N.bin
// (int32, those of one image after another). GAPS: per cent of cycles in which each end pauses.
// Prints one line for each image that is done, "image NUMBER CYCLE", and one for what went wrong.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "taps.h"  // of the network: struct Tap, TAPS, read_tap
#include "verilated.h"

template <typename T> static std::vector<T> read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) { std::printf("missing %s\n", path.c_str()); std::exit(3); }
    std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const T *first = reinterpret_cast<const T *>(bytes.data());
    return std::vector<T>(first, first + bytes.size() / sizeof(T));
}

static uint64_t state;
static bool paused(int gaps) {  // xorshift64
    if (!gaps) return false;
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return static_cast<int>(state % 100) < gaps;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    const std::string folder = argv[1];
    const long images = std::atol(argv[2]);
    state = std::strtoull(argv[3], nullptr, 10) * 2654435761u + 88172645463325252ull;
    const int gaps = std::atoi(argv[4]);
    const std::vector<uint8_t> pixels = read<uint8_t>(folder + "/pixels.bin");
    const int taps = sizeof(TAPS) / sizeof(TAPS[0]);
    std::vector<std::vector<int32_t>> expected;
    for (int n = 0; n < taps; n++) expected.push_back(read<int32_t>(folder + "/" + std::to_string(n) + ".bin"));
    const std::vector<int32_t> classes = read<int32_t>(folder + "/classes.bin");
    const size_t pixels_per_image = pixels.size() / images;

    auto top = std::make_unique<Vtop>();
    top->clk = 0; top->rst = 1; top->in_valid = 0; top->in_data = 0; top->out_ready = 0;
    auto tick = [&] { top->clk = 1; top->eval(); top->clk = 0; top->eval(); };
    for (int n = 0; n < 4; n++) tick();
    top->rst = 0; top->eval();

    std::vector<size_t> at(taps, 0);
    size_t sent = 0, done = 0;
    long cycle = 0, last = 0;
    const long patience = 50000000;
    while (done < static_cast<size_t>(images)) {
        if (!top->in_valid && sent < pixels.size() && !paused(gaps)) {
            top->in_valid = 1; top->in_data = pixels[sent];
        }
        top->out_ready = !paused(gaps);
        top->eval();
        const bool takes = top->in_valid && top->in_ready;
        for (int n = 0; n < taps; n++) {
            bool moves;
            const uint64_t raw = read_tap(*top, n, moves);
            if (!moves) continue;
            const int bits = TAPS[n].bits;
            const uint64_t mask = (uint64_t{1} << bits) - 1;
            if (at[n] >= expected[n].size() || (static_cast<uint64_t>(static_cast<int64_t>(expected[n][at[n]])) & mask) != raw) {
                const long want = at[n] < expected[n].size() ? expected[n][at[n]] : 0;
                const long long got = bits > 1 && TAPS[n].is_signed && raw >> (bits - 1) & 1
                    ? static_cast<long long>(raw) - (1ll << bits) : static_cast<long long>(raw);
                std::printf("difference %s %zu %ld %lld %ld\n", TAPS[n].name, at[n], want, got, cycle);
                return 1;
            }
            at[n]++;
        }
        if (top->out_valid && top->out_ready) {
            if (static_cast<int32_t>(top->out_data) != classes[done]) {
                std::printf("difference class %zu %d %d %ld\n", done, classes[done], static_cast<int>(top->out_data), cycle);
                return 1;
            }
            std::printf("image %zu %ld\n", done++, cycle);
            std::fflush(stdout);
            last = cycle;
        }
        tick();
        if (takes) {
            sent++;
            top->in_valid = 0;
        }
        cycle++;
        if (cycle - last > patience) {
            std::printf("stuck %ld", cycle);
            for (int n = 0; n < taps; n++) std::printf(" %s:%zu", TAPS[n].name, at[n]);
            std::printf("\n");
            return 1;
        }
    }
    return 0;
}
