// Decodes one weight of a canonical matrix, in the CPU decoder's order of operations and so with its bits
// (native/formats: gguf_decode.cc, grouped.cc). For embedding and dequantize; matmul has unpacking of its own. All reads
// of packed data are single bytes: blocks of 18, 22 or 34 bytes put nothing at multiples of 4.
#pragma once

#include "../../native/formats/gguf_blocks.h"
#include "../../native/include/bitloom.h"
#include "../ptx/convert_halves.cuh"
#include "weights.h"

namespace bitloom::cuda {

__device__ __forceinline__ uint16_t read_u16(const uint8_t* at) {
  return static_cast<uint16_t>(at[0] | at[1] << 8);
}
__device__ __forceinline__ float read_f16(const void* at) {
  return ptx::cvt_f32_f16(read_u16(static_cast<const uint8_t*>(at)));
}

// A zero point or an entry of a row's table: f16 or bf16.
__device__ __forceinline__ float read_half(int32_t type, const uint8_t* at) {
  return type == BL_SCALE_f16 ? read_f16(at) : __uint_as_float(static_cast<uint32_t>(read_u16(at)) << 16);
}

// A scale: bl_scale_dtype.
__device__ __forceinline__ float read_scale(int32_t type, const uint8_t* at) {
  if (type == BL_SCALE_f16 || type == BL_SCALE_bf16) return read_half(type, at);
  const uint32_t byte = *at;
  if (type == BL_SCALE_e8m0) {
    return __uint_as_float(byte == 255 ? 0x7fc00000u : byte == 0 ? 0x00400000u : byte << 23);
  }
  const uint32_t exponent = byte >> 3 & 15, mantissa = byte & 7;  // e4m3 without its sign
  if (exponent == 15 && mantissa == 7) return __uint_as_float(0x7fc00000u);
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-9f;
  return __uint_as_float((exponent + 120) << 23 | mantissa << 20);
}

// Code `index` of a bit stream of 1 to 8 bits each, least significant bit first.
__device__ __forceinline__ uint32_t read_code(const uint8_t* codes, int64_t index, int bits) {
  const int64_t position = index * bits;
  const int shift = static_cast<int>(position & 7);
  uint32_t word = codes[position >> 3];
  if (shift + bits > 8) word |= static_cast<uint32_t>(codes[(position >> 3) + 1]) << 8;
  return word >> shift & ((1u << bits) - 1);
}

__device__ __forceinline__ int sign_extended(uint32_t code, int bits) {
  const int sign = 1 << (bits - 1);
  return (static_cast<int>(code) ^ sign) - sign;
}

// Weight i of the group at `bytes`.
__device__ __forceinline__ float decode_grouped(const WeightsParams& w, const uint8_t* bytes, int64_t i) {
  const int bits = w.bits;
  const uint32_t code = read_code(bytes + w.header_bytes, i, bits);
  if (w.kind == BL_KIND_row_codebook) return read_half(w.scale_dtype, bytes + 2 * code);
  const float scale = read_scale(w.scale_dtype, bytes);
  const float zero_point = w.has_zero_point != 0 ? read_half(w.scale_dtype, bytes + 2) : 0.0f;
  switch (w.kind) {
    case BL_KIND_unsigned_int:
      if (w.has_zero_point != 0) return scale * (static_cast<float>(code) - zero_point);
      if (bits == 1) return scale * (code != 0 ? 1.0f : -1.0f);
      return scale * static_cast<float>(static_cast<int>(code) - (1 << (bits - 1)));
    case BL_KIND_signed_int:
      if (bits == 1 && w.has_zero_point == 0) return scale * (code != 0 ? -1.0f : 1.0f);
      return scale * (static_cast<float>(sign_extended(code, bits)) - zero_point);
    case BL_KIND_ternary:
      return scale * static_cast<float>(static_cast<int>(code) - 1);
    case BL_KIND_bfp:
      return scale * static_cast<float>(sign_extended(code, bits));
    case BL_KIND_mxint8:
      return scale * (static_cast<float>(sign_extended(code, bits)) * 0x1p-6f);
    case BL_KIND_codebooks: {
      const int number = min(static_cast<int>(bytes[2]), w.table_count - 1);
      return scale * w.table[(number << bits) + code];
    }
    default:
      return scale * w.table[code];
  }
}

// The parts of GGUF blocks: see native/formats/gguf_blocks.h for their pictures.
__device__ __forceinline__ int nibble(const uint8_t* codes, int i) {
  return i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
}
__device__ __forceinline__ int fifth_bit(const uint8_t* high_bits, int i) {
  return (high_bits[i / 8] >> (i % 8) & 1) << 4;
}
__device__ __forceinline__ int two_bits(const uint8_t* codes, int i) {
  return codes[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3;
}
__device__ __forceinline__ int four_bits(const uint8_t* codes, int i) {
  const uint8_t byte = codes[32 * (i / 64) + i % 32];
  return i % 64 < 32 ? byte & 15 : byte >> 4;
}
__device__ __forceinline__ int trit(uint8_t byte, int n) {
  const int power = n == 0 ? 1 : n == 1 ? 3 : n == 2 ? 9 : n == 3 ? 27 : 81;
  return static_cast<uint8_t>(byte * power) * 3 >> 8;
}

// super_scale * scale * code - super_min * min, of q4_k and q5_k; both begin with the same three members.
__device__ __forceinline__ float with_packed_min(const BlockQ4K& block, int s, int code) {
  const uint8_t* packed = block.scales;
  const int scale = s < 4 ? packed[s] & 63 : (packed[s + 4] & 15) | packed[s - 4] >> 6 << 4;
  const int min = s < 4 ? packed[s + 4] & 63 : packed[s + 4] >> 4 | packed[s] >> 6 << 4;
  return read_f16(&block.super_scale) * static_cast<float>(scale) * static_cast<float>(code) -
         read_f16(&block.super_min) * static_cast<float>(min);
}

__device__ __forceinline__ float decode_q3_k(const BlockQ3K& block, int i) {
  const int s = i / 16, high = block.high_bits[i % 32] >> (i / 32) & 1;
  const int low_part = s < 8 ? block.scales[s] & 15 : block.scales[s - 8] >> 4;
  const int scale = (low_part | (block.scales[8 + s % 4] >> (2 * (s / 4)) & 3) << 4) - 32;
  return read_f16(&block.super_scale) * static_cast<float>(scale) *
         static_cast<float>((two_bits(block.codes, i) | high << 2) - 4);
}

__device__ __forceinline__ float decode_q6_k(const BlockQ6K& block, int i) {
  const int half = i / 128, plane = i / 32 % 4;
  const uint8_t byte = block.codes[64 * half + 32 * (plane % 2) + i % 32];
  const int low = plane < 2 ? byte & 15 : byte >> 4;
  const int high = block.high_bits[32 * half + i % 32] >> (2 * plane) & 3;
  return read_f16(&block.super_scale) * static_cast<float>(block.scales[i / 16]) *
         static_cast<float>((low | high << 4) - 32);
}

__device__ __forceinline__ float decode_tq1_0(const BlockTQ1_0& block, int i) {
  const uint8_t byte = i < 160 ? block.codes[i % 32] : i < 240 ? block.codes[32 + i % 16] : block.tail_codes[i % 4];
  const int n = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
  return read_f16(&block.scale) * static_cast<float>(trit(byte, n) - 1);
}

// Weight i of the GGUF block at `bytes`.
__device__ __forceinline__ float decode_block(const WeightsParams& w, const uint8_t* bytes, int i) {
  switch (w.format) {
    case BL_FORMAT_f32:
      return *reinterpret_cast<const float*>(bytes);
    case BL_FORMAT_f16:
      return ptx::cvt_f32_f16(*reinterpret_cast<const uint16_t*>(bytes));
    case BL_FORMAT_bf16:
      return __uint_as_float(static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(bytes)) << 16);
    case BL_FORMAT_q8_0:
      return read_f16(bytes) * static_cast<float>(reinterpret_cast<const BlockQ8_0*>(bytes)->codes[i]);
    case BL_FORMAT_q4_0:
      return read_f16(bytes) * static_cast<float>(nibble(bytes + 2, i) - 8);
    case BL_FORMAT_q4_1:
      return read_f16(bytes) * static_cast<float>(nibble(bytes + 4, i)) + read_f16(bytes + 2);
    case BL_FORMAT_q5_0:
      return read_f16(bytes) * static_cast<float>((nibble(bytes + 6, i) | fifth_bit(bytes + 2, i)) - 16);
    case BL_FORMAT_q5_1:
      return read_f16(bytes) * static_cast<float>(nibble(bytes + 8, i) | fifth_bit(bytes + 4, i)) +
             read_f16(bytes + 2);
    case BL_FORMAT_q2_k: {
      const BlockQ2K& block = *reinterpret_cast<const BlockQ2K*>(bytes);
      const int packed = block.scales_and_mins[i / 16];
      return read_f16(&block.super_scale) * static_cast<float>(packed & 15) *
                 static_cast<float>(two_bits(block.codes, i)) -
             read_f16(&block.super_min) * static_cast<float>(packed >> 4);
    }
    case BL_FORMAT_q3_k:
      return decode_q3_k(*reinterpret_cast<const BlockQ3K*>(bytes), i);
    case BL_FORMAT_q4_k: {
      const BlockQ4K& block = *reinterpret_cast<const BlockQ4K*>(bytes);
      return with_packed_min(block, i / 32, four_bits(block.codes, i));
    }
    case BL_FORMAT_q5_k: {
      const BlockQ5K& block = *reinterpret_cast<const BlockQ5K*>(bytes);
      const int high = block.high_bits[i % 32] >> (i / 32) & 1;
      return with_packed_min(*reinterpret_cast<const BlockQ4K*>(bytes), i / 32, four_bits(block.codes, i) | high << 4);
    }
    case BL_FORMAT_q6_k:
      return decode_q6_k(*reinterpret_cast<const BlockQ6K*>(bytes), i);
    case BL_FORMAT_tq1_0:
      return decode_tq1_0(*reinterpret_cast<const BlockTQ1_0*>(bytes), i);
    case BL_FORMAT_tq2_0:
      return read_f16(bytes + 64) * static_cast<float>(two_bits(bytes, i) - 1);
    case BL_FORMAT_iq4_nl:
      return read_f16(bytes) * w.table[nibble(bytes + 2, i)];
    case BL_FORMAT_mxfp4:
      return read_scale(BL_SCALE_e8m0, bytes) * w.table[nibble(bytes + 1, i)];
    default: {  // nvfp4
      const uint8_t byte = bytes[4 + 8 * (i / 16) + i % 8];
      return read_scale(BL_SCALE_e4m3, bytes + i / 16) * w.table[i % 16 < 8 ? byte & 15 : byte >> 4];
    }
  }
}

__device__ __forceinline__ float decode_weight(const WeightsParams& w, int64_t row, int64_t col) {
  const int64_t block = col / w.block_elements, i = col - block * w.block_elements;
  const uint8_t* bytes = w.data + row * w.row_bytes + block * w.block_bytes;
  const float value =
      w.kind == BL_KIND_block ? decode_block(w, bytes, static_cast<int>(i)) : decode_grouped(w, bytes, i);
  return value * w.tensor_scale;
}

}  // namespace bitloom::cuda
