// Encoders of the GGUF types with four-bit floats.
#include <cstring>

#include "element_encode.h"
#include "elements.h"
#include "formats.h"
#include "gguf.h"
#include "gguf_blocks.h"

namespace bitloom {
namespace {

const CodebookLevels& levels() {
  static const CodebookLevels e2m1(kE2m1, 16);
  return e2m1;
}

void encode_mxfp4(const float* values, int32_t method, BlockMXFP4& block) {
  const float scale = fit_exponent(values, 32, levels(), 2, method).scale;
  block.exponent = e8m0_of_exponent(floor_log2(scale));
  for (int i = 0; i < 16; ++i) {
    const uint32_t low = levels().code(values[i], scale);
    block.codes[i] = static_cast<uint8_t>(low | levels().code(values[i + 16], scale) << 4);
  }
}

void encode_nvfp4(const float* values, int32_t method, BlockNVFP4& block) {
  for (int s = 0; s < 4; ++s, values += 16) {
    const float scale = fit_e4m3_scale(values, 16, levels(), method).scale;
    block.scales[s] = ue4m3_of(scale);
    for (int i = 0; i < 8; ++i) {
      const uint32_t low = levels().code(values[i], scale);
      block.codes[8 * s + i] = static_cast<uint8_t>(low | levels().code(values[i + 8], scale) << 4);
    }
  }
}

template <typename Block>
void store_block(const Block& block, uint8_t* bytes) {
  std::memcpy(bytes, &block, sizeof(block));
}

}  // namespace

void encode_fp4_block(int32_t format, const float* values, int32_t method, uint8_t* bytes) {
  if (format == BL_FORMAT_mxfp4) {
    BlockMXFP4 block;
    encode_mxfp4(values, method, block);
    store_block(block, bytes);
  } else {
    BlockNVFP4 block;
    encode_nvfp4(values, method, block);
    store_block(block, bytes);
  }
}

}  // namespace bitloom
