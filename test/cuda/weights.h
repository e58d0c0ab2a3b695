// Canonical weight matrices on both sides, quantized by the CPU from deterministic values.
#pragma once

#include <vector>

#include "harness.h"
#include "test_queue.h"

namespace bitloom::cuda::testing {

class Weights {
 public:
  // random_bytes: any bytes instead, with scales that are NaN, infinite and denormal among them.
  Weights(TestQueue& queue, int32_t format, int64_t rows, int64_t cols, float tensor_scale = 0,
          bool random_bytes = false);

  const bl_weights& host() const { return host_; }
  const bl_weights& device() const { return device_; }

 private:
  std::vector<uint8_t> memory_;
  std::vector<float> codebook_;
  bl_weights host_{}, device_{};
};

// [2^bits] levels, or the tables of cbs<b>; empty for formats that need none.
std::vector<float> codebook_for(int32_t format);

}  // namespace bitloom::cuda::testing
