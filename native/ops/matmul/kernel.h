// The contract of matmul kernels.
#pragma once

#include <cstdint>

#include "../../formats/formats.h"
#include "../../include/bitloom.h"
#include "code_blocks.h"

namespace bitloom {

// A row of activations is padded with zeros to a multiple of kStep, so that kernels have no tails in K on
// that side, and quantized in groups of kGroup.
constexpr int64_t kStep = 64;
constexpr int64_t kGroup = 32;
// A tile has at most this many rows of a, so that kernels keep one per row on the stack.
constexpr int64_t kMaxTileM = 32;
constexpr int64_t padded_k(int64_t k) { return (k + kStep - 1) / kStep * kStep; }

// Activations as kernels read them. compute f32: values. compute i8: codes and scales,
// a[m][k] ~ scales[m][k / 32] * codes[m][k], |code| <= 127.
struct Activations {
  int64_t k_padded;
  const float* values;  // [M][k_padded]
  const int8_t* codes;  // [M][k_padded]
  const float* scales;  // [M][k_padded / 32]
  // [M][k_padded / 32][8], for q4_0 and q8_0: minus z times the sum of a group's codes, where z is the code
  // of the weight zero as the kernels read it (8, 128): what their products begin with. First the four sums
  // over codes {4i to 4i+3, 16+4i to 16+4i+3}, then the sum of all, four times.
  const int32_t* starts;
};

// Which part of c one call computes: rows of a in [m_begin, m_end), rows of b in [n_begin, n_end).
struct Tile {
  int64_t m_begin, m_end;
  int64_t n_begin, n_end;
  float* values;  // [m_end - m_begin][stride], written: sum_k a[m, k] * b[n, k]
  int64_t stride;
};

// Computes a tile. Pure: no allocation, no threads, no errors. Bits depend only on the kernel and on the
// rows of a and b concerned, never on the tile's bounds. b may have any alignment and is read only within
// its bytes.
//
// i8: per group of 32 activations and weights with integer codes w and one scale,
//   sum += a_scale * b_scale * (sum_32 w * a_code), the inner sum exact in int32:
//   |w| <= 255, |a_code| <= 127, 4 products per lane and at most 2^17 per 32 stay below 2^31.
using MatmulKernel = void (*)(const Activations& a, const WeightsView& b, const Tile& tile);

// Quantizes or copies one row: x[0, k) to the padded row. i8: scale = max|x| / 127 per group, code = x *
// (127 / max|x|) to nearest even; a group with a value that is not finite gets scale NaN and codes 0.
using PackActivations = void (*)(const float* x, int64_t k, int8_t* codes, float* scales);

struct MatmulKernelRow {
  const char* name;
  int32_t isa;
  int32_t compute;  // bl_compute
  bool (*takes)(const bl_format_info& info);
  bool lanes16;
  int32_t mr;
  int32_t nr;
  MatmulKernel run;
  PackActivations pack;  // i8 rows only
};

// Formats whose weights are scale * (integer - zero point) or scale * integer + min: u, i, t2 and the
// quantized GGUF types.
inline bool has_integer_codes(const bl_format_info& info) {
  return info.kind == BL_KIND_unsigned_int || info.kind == BL_KIND_signed_int ||
         info.kind == BL_KIND_ternary || info.gguf_type == 8 || info.gguf_type == 2 ||
         is_code_block_format(info);
}
inline bool has_any_format(const bl_format_info&) { return true; }

// How the codes of a grouped format become scale * (code - zero): (raw & mask ^ flip), raw taken so that
// its lowest bit lands at `shift`. One bit is read as {0, 2} with zero 1, so that u1 and i1 are the signs.
struct IntegerCodes {
  int32_t bits;
  int32_t shift;
  uint8_t mask;
  uint8_t flip;
  int32_t zero;  // where the format has no zero points of its own

  explicit IntegerCodes(const bl_format_info& info) : bits(info.bits) {
    const bool is_signed = info.kind == BL_KIND_signed_int;
    const bool sign_only = bits == 1 && !info.has_zero_point && info.kind != BL_KIND_codebook;
    shift = sign_only ? 1 : 0;
    mask = static_cast<uint8_t>(((1 << bits) - 1) << shift);
    const int32_t half = sign_only ? 2 : 1 << (bits - 1);
    flip = static_cast<uint8_t>(is_signed ? half : 0);
    zero = sign_only ? 1 : (info.kind == BL_KIND_ternary ? 1 : half);
    // Signed with zero points: scale * (code - z) = scale * ((code + half) - (z + half)).
    zero_shift = is_signed && info.has_zero_point ? static_cast<float>(half) : 0.0f;
  }
  float zero_shift;  // added to a stored zero point
};

// Where a step of a kernel finds its bytes in rows that lie `row_stride` apart: the block that holds the
// step and the next one, relative to the first row's first block, and the codes within the block.
// Advanced instead of computed: a division a step would cost more than the products.
struct Cursor {
  const uint8_t* block;  // of the first row
  int64_t row_stride;    // to the same block of the next row; rows of one panel only
  int64_t block_stride;
  int64_t code_offset = 0;  // into the block's codes
  int64_t block_code_bytes;
  const uint8_t* end;  // of the whole matrix: what lies before it may be read

  Cursor(const WeightsView& b, int64_t row)
      : block(b.block(row, 0)),
        row_stride(b.layout == BL_LAYOUT_panel8 ? b.block_bytes : b.row_bytes),
        block_stride(b.block_stride(row)),
        block_code_bytes(b.block_bytes - (b.info->has_zero_point ? 4 : 2)),
        end(b.data + b.rows * b.row_bytes) {}

  void next_blocks(int64_t count) { block += count * block_stride; }
  void next_codes(int64_t bytes) {
    code_offset += bytes;
    if (code_offset >= block_code_bytes) {
      code_offset = 0;
      block += block_stride;
    }
  }
};

#define BL_MATMUL_KERNEL(isa, compute, formats, lanes16, mr, nr)                       \
  namespace isa {                                                                      \
  void matmul_##compute(const Activations& a, const WeightsView& b, const Tile& tile); \
  }
#include "kernels.inc"
#undef BL_MATMUL_KERNEL

namespace scalar {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales);
}
namespace avx2 {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales);
}
namespace avx512 {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales);
}

}  // namespace bitloom
