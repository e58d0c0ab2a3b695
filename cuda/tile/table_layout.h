// Pair tables in shared memory: every pair of codes has an entry of two f16, `copies` times, side by side.
// Lanes i and i + copies share one, so that 32 / copies lanes meet in 32 / copies banks: with 32 copies never
// two in one.
#pragma once

namespace bitloom::cuda {

constexpr int pair_table_bytes(int bits, int copies) { return (4 << 2 * bits) * copies; }

}  // namespace bitloom::cuda
