// Decoders and encoders of the GGUF block types (gguf_blocks.h) and of plain floats.
#pragma once

#include <cstdint>

#include "../include/bitloom.h"

namespace bitloom {

// values[0, count) = the first `count` weights of the block at `bytes`, exact. `format` is a bl_format
// of kind BL_KIND_block.
void decode_gguf_block(int32_t format, const uint8_t* bytes, int64_t count, float* values);

// Encodes a whole block of finite values. Under BL_QUANTIZE_minmax, q4_0, q4_1, q5_0, q5_1, q8_0, tq1_0
// and tq2_0 follow ggml's reference and give its bytes; iq4_nl and the K types search their scales.
// BL_QUANTIZE_mse searches wider and never has a larger squared error than BL_QUANTIZE_minmax.
// What 16-bit numbers cannot hold saturates: every block decodes to finite weights. Weights whose scale
// underflows to zero decode to zero.
void encode_gguf_block(int32_t format, const float* values, int32_t method, uint8_t* bytes);

// mxfp4's and nvfp4's part of encode_gguf_block: values[32], values[64]. Scales as encode_grouped chooses
// them for e2m1_g32 and nvfp4_g16, ties towards the smaller element as ggml does.
void encode_fp4_block(int32_t format, const float* values, int32_t method, uint8_t* bytes);

// The K types' part of encode_gguf_block: values[256].
void encode_k_block(int32_t format, const float* values, int32_t method, uint8_t* bytes);

}  // namespace bitloom
