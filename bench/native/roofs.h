// The machine's limits, measured: bytes per second that threads can read, operations per second that
// they can do in registers (AMX: with the tile loads of a matrix product).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "../../native/include/bitloom.h"

namespace bitloom::bench {

// Bytes per second, one figure per round of about `seconds`, of `threads` threads that together read
// `bytes` bytes, each its own part in 8 streams: one stream does not keep enough cache misses in flight
// (measured: 10 GB/s with one, 14 to 16 with 8, no more with 16). Empty if there is no
// memory.
std::vector<double> read_roof(int32_t isa, int32_t threads, size_t bytes, double seconds, int32_t rounds);

// Scratch of a multiply roof: one thread's operands.
struct MultiplyOperands {
  uint8_t* a;  // kMultiplyBytesA, stays in L2
  uint8_t* b;  // kMultiplyBytesB, stays in L1
};
constexpr size_t kMultiplyBytesA = 512 * 1024;
constexpr size_t kMultiplyBytesB = 16 * 1024;

struct MultiplyRoof {
  const char* name;   // "i8_avx512"
  const char* type;   // "f32", "bf16" or "i8": of the operands
  int32_t isa;        // bl_isa it needs
  double operations;  // per iteration; a multiply-add is two
  void (*run)(int64_t iterations, const MultiplyOperands& operands);
};
extern const MultiplyRoof kMultiplyRoofs[];
extern const int32_t kMultiplyRoofCount;

// Operations per second, one figure per round of about `seconds`. The roof's ISA must be available.
std::vector<double> multiply_roof(const MultiplyRoof& roof, int32_t threads, double seconds, int32_t rounds);

}  // namespace bitloom::bench
