// Writing blocks of bitloom's grouped formats.
#pragma once

#include <cstdint>
#include <cstring>

#include "../base/float16.h"
#include "elements.h"
#include "formats.h"
#include "grouped.h"

namespace bitloom {

// `value` as a scale or zero point of a type that holds it exactly.
inline void store_scalar(uint8_t* bytes, float value, int32_t dtype) {
  if (dtype == BL_SCALE_e8m0) {
    *bytes = e8m0_of_exponent(floor_log2(value));
    return;
  }
  if (dtype == BL_SCALE_e4m3) {
    *bytes = ue4m3_of(value);
    return;
  }
  const uint16_t bits = dtype == BL_SCALE_bf16 ? f32_to_bf16(value) : f32_to_f16(value);
  std::memcpy(bytes, &bits, sizeof(bits));
}

// A block being written: zeros, then scale and codes.
class BlockWriter {
 public:
  BlockWriter(const bl_format_info& info, int64_t elements, uint8_t* bytes)
      : info_(info), bytes_(bytes), codes_(bytes + grouped_header_bytes(info)) {
    std::memset(bytes, 0, static_cast<size_t>(grouped_block_bytes(info, elements)));
  }
  void scale(float value) { store_scalar(bytes_, value, info_.scale_dtype); }
  // cbs<b>
  void table(int number) { bytes_[2] = static_cast<uint8_t>(number); }
  // lut<b>: entry `code` of the row's table.
  void entry(int64_t code, float value) { store_scalar(bytes_ + 2 * code, value, info_.scale_dtype); }
  void zero_point(float value) { store_scalar(bytes_ + 2, value, info_.scale_dtype); }
  // Keeps the low bits, so that negative integers become two's complement.
  void code(int64_t index, int value) {
    const uint32_t mask = (1u << info_.bits) - 1;
    write_code(codes_, index, info_.bits, static_cast<uint32_t>(value) & mask);
  }

 private:
  const bl_format_info& info_;
  uint8_t* bytes_;
  uint8_t* codes_;
};

}  // namespace bitloom
