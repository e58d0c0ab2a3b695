// Pair tables in shared memory: every pair of codes has an entry of two f16, kTableCopies times, so that lanes i and i + 8
// share a copy and few meet in a bank.
#pragma once

namespace bitloom::cuda {

constexpr int kTableCopies = 8;
constexpr int pair_table_bytes(int bits) { return (4 << 2 * bits) * kTableCopies; }

}  // namespace bitloom::cuda
