// SPDX-License-Identifier: Apache-2.0
// A network's bench: images in, every part's numbers compared with what the integer network has there.
//
// Usage: bench NAME=VALUE ..., of
//   images     how many; their pixels are in pixels.bin (a byte each), their classes in classes.bin (int32), and what
//              tap N gives of them, one after the other, in N.bin (int32)
//   seed       of pauses, and of what registers without a reset hold in the beginning
//   gaps       per cent of cycles in which each end pauses
//   patience   cycles without a transfer after which the network is stuck
//   reset      a cycle at which it is reset; from there on the images come again from the first one
//   NAME       of a FIFO with a limit: its depth
//   load       how many images of weights it is given first, in weights.bin (uint32 words)
//   waves      a file of waves (VCD): nothing is compared then, they begin at the cycle `from` and end at `until`
//
// Prints a line for each image that is done, "image NUMBER CYCLE", one for what went wrong, "difference PART AT
// EXPECTED GOT CYCLE", "stuck CYCLE" or "refused IMAGE" (of weights), and in the end, for each tap, "moved PART
// NUMBERS", and for each gauge "fifo PART LARGEST WAITED": its largest filling and the cycles in which a number waited
// in front of it.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "Vtop.h"
#include "taps.h"  // of the network: TAPS and read_tap, GAUGES and read_gauge; LOAD_WORDS, offer_word and load_state
#include "verilated.h"
#if VM_TRACE
#include "verilated_vcd_c.h"
#endif

// Numbers of a file, one by one: those of many images need not be in memory.
template <typename T> class Numbers {
    std::FILE *file;
    T buffer[4096];
    size_t filled = 0, next = 0;
    bool ended = false;

public:
    size_t at = 0;

    explicit Numbers(const std::string &path) : file(std::fopen(path.c_str(), "rb")) {
        if (!file) { std::printf("missing %s\n", path.c_str()); std::exit(3); }
    }
    Numbers(const Numbers &) = delete;
    bool shows(T &value) {
        if (next == filled && !ended) {
            filled = std::fread(buffer, sizeof(T), 4096, file);
            next = 0;
            ended = !filled;
        }
        if (next < filled) value = buffer[next];
        return next < filled;
    }
    void take() { next++; at++; }
    void rewind() { std::rewind(file); filled = next = at = 0; ended = false; }
};

static uint64_t state;
static bool paused(int gaps) {  // xorshift64
    if (!gaps) return false;
    state ^= state << 13; state ^= state >> 7; state ^= state << 17;
    return static_cast<int>(state % 100) < gaps;
}

static const char *option(int argc, char **argv, const char *name, const char *otherwise) {
    const size_t length = std::strlen(name);
    for (int n = 1; n < argc; n++)
        if (!std::strncmp(argv[n], name, length) && argv[n][length] == '=') return argv[n] + length + 1;
    return otherwise;
}

int main(int argc, char **argv) {
    const auto number = [&](const char *name, const char *otherwise) {
        return std::strtoll(option(argc, argv, name, otherwise), nullptr, 10);
    };
    const size_t images = number("images", "0");
    const uint64_t seed = number("seed", "0");
    state = seed * 2654435761u + 88172645463325252ull;
    const int gaps = number("gaps", "0");
    const long patience = number("patience", "100000"), reset = number("reset", "-1");
    const long from = number("from", "0"), until = number("until", "-1");
    const std::string waves = option(argc, argv, "waves", "");

    Numbers<uint8_t> pixels("pixels.bin");
    Numbers<int32_t> classes("classes.bin");
    const int taps = sizeof(TAPS) / sizeof(TAPS[0]), gauges = sizeof(GAUGES) / sizeof(GAUGES[0]) - 1;
    std::vector<std::unique_ptr<Numbers<int32_t>>> expected;
    for (int n = 0; n < taps; n++) expected.push_back(std::make_unique<Numbers<int32_t>>(std::to_string(n) + ".bin"));
    std::vector<long> largest(gauges, 0), waited(gauges, 0);

    VerilatedContext context;
    context.randReset(2);
    context.randSeed(static_cast<int>(seed & 0x3fffffff) + 1);
    context.traceEverOn(!waves.empty());
    Vtop top(&context);
#if VM_TRACE
    VerilatedVcdC dump;
    if (!waves.empty()) { top.trace(&dump, 99); dump.open(waves.c_str()); }
#endif
    long cycle = 0, last = 0;  // the last one with a transfer
    top.clk = 0; top.rst = 1; top.in_valid = 0; top.in_data = 0; top.out_ready = 0;
    set_limits(top, number);
    const auto tick = [&] { top.clk = 1; top.eval(); top.clk = 0; top.eval(); };
    for (int n = 0; n < 4; n++) tick();
    top.rst = 0;

    bool fine = true;
    for (long loads = number("load", "0"), n = 0; n < loads && fine; n++) {
        Numbers<uint32_t> words("weights.bin");
        uint32_t word = 0;
        for (long at = 0; at < n * LOAD_WORDS && words.shows(word); at++) words.take();
        for (long at = 0; at < LOAD_WORDS; at++) {
            if (!words.shows(word)) { std::printf("missing weights.bin\n"); return 3; }
            while (paused(gaps)) tick();
            bool takes = false;
            while (!takes) {
                takes = offer_word(top, word, at == LOAD_WORDS - 1);
                tick();
            }
            offer_word(top, 0, false, false);
            words.take();
        }
        for (int behind = 0; behind < 4; behind++) tick();
        if (load_state(top) != 1) { std::printf("refused %ld\n", n); fine = false; }
    }
    while (fine && (waves.empty() ? classes.at < images : cycle < until)) {
        uint8_t pixel;
        if (!top.in_valid && !paused(gaps) && pixels.shows(pixel)) { top.in_valid = 1; top.in_data = pixel; }
        top.out_ready = !paused(gaps);
        if (cycle == reset) {
            top.rst = 1; top.in_valid = 0; top.out_ready = 0;
            tick();
            top.rst = 0;
            pixels.rewind(); classes.rewind();
            for (auto &numbers : expected) numbers->rewind();
            last = cycle++;
            continue;
        }
        top.eval();
        const bool takes = top.in_valid && top.in_ready;
        if (takes) last = cycle;
        for (int n = 0; n < taps && waves.empty(); n++) {
            bool moves;
            const uint64_t raw = read_tap(top, n, moves);
            if (!moves) continue;
            last = cycle;
            const int bits = TAPS[n].bits;
            const uint64_t mask = (uint64_t{1} << bits) - 1;
            int32_t want = 0;
            if (!expected[n]->shows(want) || (static_cast<uint64_t>(static_cast<int64_t>(want)) & mask) != raw) {
                const long long got = bits > 1 && TAPS[n].is_signed && raw >> (bits - 1) & 1
                    ? static_cast<long long>(raw) - (1ll << bits) : static_cast<long long>(raw);
                std::printf("difference %s %zu %d %lld %ld\n", TAPS[n].name, expected[n]->at, want, got, cycle);
                fine = false;
                break;
            }
            expected[n]->take();
        }
        for (int n = 0; n < gauges; n++) {
            bool waits;
            const long level = read_gauge(top, n, waits);
            if (level > largest[n]) largest[n] = level;
            waited[n] += waits;
        }
        if (fine && waves.empty() && top.out_valid && top.out_ready) {
            int32_t want = 0;
            if (!classes.shows(want) || static_cast<int32_t>(top.out_data) != want) {
                std::printf("difference class %zu %d %d %ld\n", classes.at, want, static_cast<int>(top.out_data), cycle);
                fine = false;
            } else {
                std::printf("image %zu %ld\n", classes.at, cycle);
                std::fflush(stdout);
                classes.take();
            }
        }
#if VM_TRACE
        // a cycle is two steps, from where its inputs are there to the clock's rising edge
        if (!waves.empty() && cycle >= from) dump.dump(static_cast<uint64_t>(2 * cycle));
        top.clk = 1; top.eval();
        if (!waves.empty() && cycle >= from) dump.dump(static_cast<uint64_t>(2 * cycle + 1));
        top.clk = 0; top.eval();
#else
        tick();
#endif
        if (takes) {
            pixels.take();
            top.in_valid = 0;
        }
        if (fine && waves.empty() && cycle - last > patience) {
            std::printf("stuck %ld\n", cycle);
            fine = false;
        }
        cycle++;
    }
#if VM_TRACE
    if (!waves.empty()) dump.close();
#endif
    for (int n = 0; n < taps; n++) std::printf("moved %s %zu\n", TAPS[n].name, expected[n]->at);
    for (int n = 0; n < gauges; n++) std::printf("fifo %s %ld %ld\n", GAUGES[n], largest[n], waited[n]);
    return fine ? 0 : 1;
}
