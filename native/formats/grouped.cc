#include "grouped.h"

#include "../base/float16.h"
#include "elements.h"

namespace bitloom {
namespace {

// values[i] = scale * level(code of weight first + i)
template <typename Level>
void decode_codes(const uint8_t* codes, int bits, int64_t first, int64_t count, float scale, float* values,
                  Level level) {
  for (int64_t i = 0; i < count; ++i) {
    values[i] = scale * level(read_code(codes, first + i, bits));
  }
}

}  // namespace

void decode_grouped(const bl_format_info& info, const uint8_t* bytes, int64_t first, int64_t count,
                    const Codebooks& codebook, float* values) {
  if (count <= 0) return;
  const int bits = info.bits;
  const uint8_t* codes = bytes + grouped_header_bytes(info);
  if (info.kind == BL_KIND_row_codebook) {
    return decode_codes(codes, bits, first, count, 1.0f, values, [=, &info](uint32_t code) {
      return scale_value(info.scale_dtype, bytes + 2 * code);
    });
  }
  const float scale = scale_value(info.scale_dtype, bytes);
  const float zero_point = info.has_zero_point != 0 ? scale_value(info.scale_dtype, bytes + 2) : 0.0f;

  switch (info.kind) {
    case BL_KIND_unsigned_int:
      if (info.has_zero_point != 0) {
        return decode_codes(codes, bits, first, count, scale, values,
                            [=](uint32_t code) { return static_cast<float>(code) - zero_point; });
      }
      if (bits == 1) {
        return decode_codes(codes, bits, first, count, scale, values,
                            [](uint32_t code) { return code != 0 ? 1.0f : -1.0f; });
      }
      return decode_codes(codes, bits, first, count, scale, values, [=](uint32_t code) {
        return static_cast<float>(static_cast<int>(code) - (1 << (bits - 1)));
      });
    case BL_KIND_signed_int:
      if (bits == 1 && info.has_zero_point == 0) {
        return decode_codes(codes, bits, first, count, scale, values,
                            [](uint32_t code) { return code != 0 ? -1.0f : 1.0f; });
      }
      return decode_codes(codes, bits, first, count, scale, values, [=](uint32_t code) {
        return static_cast<float>(sign_extend(code, bits)) - zero_point;
      });
    case BL_KIND_ternary:
      return decode_codes(codes, bits, first, count, scale, values,
                          [](uint32_t code) { return static_cast<float>(static_cast<int>(code) - 1); });
    case BL_KIND_bfp:
      return decode_codes(codes, bits, first, count, scale, values,
                          [=](uint32_t code) { return static_cast<float>(sign_extend(code, bits)); });
    case BL_KIND_mxint8:
      return decode_codes(codes, bits, first, count, scale, values, [=](uint32_t code) {
        return static_cast<float>(sign_extend(code, bits)) * 0x1p-6f;
      });
    case BL_KIND_nf4:
    case BL_KIND_fp4:
    case BL_KIND_codebook:
    case BL_KIND_e2m1:
    case BL_KIND_e2m3:
    case BL_KIND_e3m2:
    case BL_KIND_e4m3:
    case BL_KIND_e5m2:
      return decode_codes(codes, bits, first, count, scale, values,
                          [&](uint32_t code) { return codebook.values[code]; });
    case BL_KIND_codebooks: {
      const float* table = codebook.table(bytes[2], bits);
      return decode_codes(codes, bits, first, count, scale, values,
                          [=](uint32_t code) { return table[code]; });
    }
    default:
      return;
  }
}

}  // namespace bitloom
