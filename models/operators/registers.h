// SPDX-License-Identifier: Apache-2.0
// How wide a vector register of the processor is that this is compiled for. Wider vector types are legal, but then the
// compiler goes lane by lane through comparisons and choices.

#pragma once

#if defined(__AVX512BW__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;       // SSE, NEON
#endif
