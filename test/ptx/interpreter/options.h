// How a launch is run and checked.
#pragma once

#include <cstdint>

namespace bitloom::ptx {

// When the bytes of a cp.async land. A right kernel computes the same in all three.
enum class CopyDelivery : uint8_t {
  poisoned,  // the target is filled with 0xff at issue, the source is copied at the wait
  early,     // the source is copied at issue
  late,      // the source is copied at the wait, the target keeps its bytes until then
};

struct Options {
  CopyDelivery copy_delivery = CopyDelivery::poisoned;
  // 0: products and sums of mma in double, rounded once. 4, 8, 16: as tensor cores do, so many products at a
  // time aligned to the largest exponent, cut below 2^-24 of it, and the sum cut to f32.
  uint32_t mma_block = 0;
  uint64_t seed = 0;             // 0: warps and blocks in order; else random order and random turns
  uint32_t resident_blocks = 4;  // blocks that run interleaved
  uint64_t max_warp_instructions = 20'000'000;  // of one warp, then it is called an endless loop
  bool check_memory = true;                     // unwritten reads and races
  bool count_requests = true;                   // sectors, lines and wavefronts
  int64_t drop_instruction = -1;                // this instruction does nothing (mutation tests)
};

}  // namespace bitloom::ptx
