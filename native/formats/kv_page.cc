#include "kv_page.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "../base/float16.h"
#include "elements.h"

namespace bitloom {

namespace {

constexpr struct {
  const char* name;
  int32_t bits;
  KvScale scale;
} kFormats[] = {
#define BL_KV_FORMAT(name, bits, scale) {#name, bits, KvScale::scale},
#include "kv_formats.inc"
#undef BL_KV_FORMAT
};

constexpr int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// An element: channel c of token t of a page.
uint32_t element(const KvPage& layout, const uint8_t* page, int64_t token, int64_t channel) {
  const KvPlace place = kv_place(layout, token, channel);
  const uint32_t dword = load_as<uint32_t>(page + place.offset);
  return layout.bits == 32 ? dword : dword >> place.shift & ((1u << layout.bits) - 1);
}

void set_element(const KvPage& layout, uint8_t* page, int64_t token, int64_t channel, uint32_t code) {
  const KvPlace place = kv_place(layout, token, channel);
  const uint32_t mask = layout.bits == 32 ? ~0u : (1u << layout.bits) - 1;
  const uint32_t dword =
      (load_as<uint32_t>(page + place.offset) & ~(mask << place.shift)) | (code & mask) << place.shift;
  std::memcpy(page + place.offset, &dword, sizeof(dword));
}

int32_t sign_extended(uint32_t code, int32_t bits) {
  return static_cast<int32_t>(code << (32 - bits)) >> (32 - bits);
}

float float_value(int32_t format, uint32_t code) {
  switch (format) {
    case BL_KV_FORMAT_f16:
      return f16_to_f32(static_cast<uint16_t>(code));
    case BL_KV_FORMAT_bf16:
      return bf16_to_f32(static_cast<uint16_t>(code));
    case BL_KV_FORMAT_f8e4m3:
      return f8e4m3_to_f32(static_cast<uint8_t>(code));
    default:
      return std::bit_cast<float>(code);
  }
}

uint32_t float_code(int32_t format, float value) {
  switch (format) {
    case BL_KV_FORMAT_f16:
      return f32_to_f16(value);
    case BL_KV_FORMAT_bf16:
      return f32_to_bf16(value);
    case BL_KV_FORMAT_f8e4m3:
      return f32_to_f8e4m3(value);
    default:
      return std::bit_cast<uint32_t>(value);
  }
}

float decode_element(const KvPage& layout, const uint8_t* page, int64_t token, int64_t channel) {
  const uint32_t code = element(layout, page, token, channel);
  switch (layout.scale) {
    case KvScale::none:
      return float_value(layout.format, code);
    case KvScale::token:
      return static_cast<float>(sign_extended(code, layout.bits)) * load_as<float>(page + 4 * token);
    case KvScale::channel: {
      const KvAffine scales = kv_affine(layout, page, token, channel);
      return static_cast<float>(code) * f16_to_f32(scales.scale) + f16_to_f32(scales.offset);
    }
    case KvScale::block:
      return static_cast<float>(sign_extended(code, layout.bits)) *
             e8m0_to_f32(page[token * layout.groups + channel / kKvBlock]);
  }
  return 0;
}

// The largest magnitude of values[0, count) as bits: an order in which infinity and then NaN come last.
uint32_t largest_magnitude(const float* values, int64_t count, int64_t stride = 1) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(values[i * stride]) & 0x7fffffffu);
  }
  return largest;
}

void encode_token(const KvPage& layout, uint8_t* page, int64_t token, const float* input) {
  const float scale = kv_token_scale(largest_magnitude(input, layout.dim));
  const float inverse = scale > 0 ? 1 / scale : 0;  // NaN: 0 as well
  std::memcpy(page + 4 * token, &scale, sizeof(scale));
  for (int64_t c = 0; c < layout.dim; ++c) {
    // 0 * infinity, where the scale is NaN, is no code.
    const float code = inverse == 0 ? 0 : std::nearbyint(input[c] * inverse);
    set_element(layout, page, token, c, static_cast<uint32_t>(static_cast<int32_t>(code)));
  }
}

void encode_block(const KvPage& layout, uint8_t* page, int64_t token, const float* input) {
  const float largest_code = static_cast<float>((1 << (layout.bits - 1)) - 1);
  for (int64_t group = 0; group < layout.groups; ++group) {
    const int64_t first = group * kKvBlock;
    const int64_t end = std::min<int64_t>(first + kKvBlock, layout.dim);
    const uint8_t exponent = kv_block_exponent(largest_magnitude(input + first, end - first), layout.bits);
    const float inverse = kv_block_inverse(exponent);
    page[token * layout.groups + group] = exponent;
    for (int64_t c = first; c < end; ++c) {
      const float code = inverse == 0 ? 0 : std::nearbyint(input[c] * inverse);
      set_element(layout, page, token, c,
                  static_cast<uint32_t>(static_cast<int32_t>(std::clamp(code, -largest_code, largest_code))));
    }
  }
}

// The scale and offset of `count` values at a stride.
KvAffine fit_affine(const KvPage& layout, const float* values, int64_t count, int64_t stride) {
  float low = values[0];
  float high = values[0];
  for (int64_t i = 1; i < count; ++i) {
    low = std::min(low, values[i * stride]);
    high = std::max(high, values[i * stride]);
  }
  return kv_affine_of(largest_magnitude(values, count, stride), low, high, layout.bits);
}

uint32_t affine_code(const KvPage& layout, const KvAffine& scales, float value) {
  const float inverse = kv_affine_inverse(scales);
  if (inverse == 0) return 0;
  const float code = std::nearbyint((value - f16_to_f32(scales.offset)) * inverse);
  return static_cast<uint32_t>(std::clamp(code, 0.0f, static_cast<float>((1 << layout.bits) - 1)));
}

void encode_affine_keys(const KvPage& layout, uint8_t* page, const float* input, int64_t stride) {
  for (int64_t c = 0; c < layout.dim; ++c) {
    const KvAffine scales = fit_affine(layout, input + c, layout.page_size, stride);
    std::memcpy(page + 2 * c, &scales.scale, 2);
    std::memcpy(page + 2 * (layout.dim + c), &scales.offset, 2);
    for (int64_t t = 0; t < layout.page_size; ++t) {
      set_element(layout, page, t, c, affine_code(layout, scales, input[t * stride + c]));
    }
  }
}

void encode_affine_values(const KvPage& layout, uint8_t* page, int64_t token, const float* input) {
  for (int64_t group = 0; group < layout.groups; ++group) {
    const int64_t first = group * kKvValueGroup;
    const int64_t end = std::min<int64_t>(first + kKvValueGroup, layout.dim);
    const KvAffine scales = fit_affine(layout, input + first, end - first, 1);
    std::memcpy(page + 4 * (token * layout.groups + group), &scales, sizeof(scales));
    for (int64_t c = first; c < end; ++c) {
      set_element(layout, page, token, c, affine_code(layout, scales, input[c]));
    }
  }
}

// Elements beyond dim: the rest of a dword of a key, the lanes that values are rounded up by.
void clear_beyond(const KvPage& layout, uint8_t* page, int64_t token) {
  const int64_t end = layout.values ? layout.lanes : layout.rows * layout.per_dword;
  for (int64_t c = layout.dim; c < end; ++c) set_element(layout, page, token, c, 0);
}

}  // namespace

bool kv_page(int32_t format, bool values, int32_t page_size, int32_t dim, KvPage* page) {
  if (format < 0 || format >= BL_KV_FORMAT_count || page_size < 8 || page_size > kMaxKvPageSize ||
      page_size % 8 != 0 || dim < 1 || dim > kMaxKvDim) {
    return false;
  }
  KvPage p{};
  p.format = format;
  p.bits = kFormats[format].bits;
  p.scale = kFormats[format].scale;
  p.values = values;
  p.page_size = page_size;
  p.dim = dim;
  p.per_dword = 32 / p.bits;
  p.units = (page_size + kKvUnit - 1) / kKvUnit;
  p.lanes = round_up(dim, 16);
  p.rows = values ? kKvUnit / p.per_dword : (dim + p.per_dword - 1) / p.per_dword;
  const int64_t tokens = p.units * kKvUnit;
  int64_t header = 0;
  switch (p.scale) {
    case KvScale::none:
      break;
    case KvScale::token:
      header = tokens * 4;
      break;
    case KvScale::channel:
      p.groups = values ? (dim + kKvValueGroup - 1) / kKvValueGroup : 0;
      header = values ? tokens * p.groups * 4 : int64_t{dim} * 4;
      break;
    case KvScale::block:
      p.groups = (dim + kKvBlock - 1) / kKvBlock;
      header = tokens * p.groups;
      break;
  }
  p.header_bytes = round_up(header, 64);
  p.unit_bytes = p.rows * (values ? p.lanes : kKvUnit) * 4;
  p.bytes = p.header_bytes + p.units * p.unit_bytes;
  *page = p;
  return true;
}

void decode_kv(const KvPage& layout, const uint8_t* page, int64_t begin, int64_t count, float* output) {
  for (int64_t t = 0; t < count; ++t) {
    for (int64_t c = 0; c < layout.dim; ++c) {
      output[t * layout.dim + c] = decode_element(layout, page, begin + t, c);
    }
  }
}

void encode_kv(const KvPage& layout, uint8_t* page, int64_t begin, int64_t count, const float* input,
               int64_t stride) {
  if (stride == 0) stride = layout.dim;
  const bool keys_by_channel = layout.scale == KvScale::channel && !layout.values;
  if (keys_by_channel) encode_affine_keys(layout, page, input, stride);
  for (int64_t t = 0; t < count; ++t) {
    const float* row = input + t * stride;
    const int64_t token = begin + t;
    switch (layout.scale) {
      case KvScale::none:
        for (int64_t c = 0; c < layout.dim; ++c) {
          set_element(layout, page, token, c, float_code(layout.format, row[c]));
        }
        break;
      case KvScale::token:
        encode_token(layout, page, token, row);
        break;
      case KvScale::channel:
        if (!keys_by_channel) encode_affine_values(layout, page, token, row);
        break;
      case KvScale::block:
        encode_block(layout, page, token, row);
        break;
    }
    clear_beyond(layout, page, token);
  }
}

}  // namespace bitloom

extern "C" const char* bl_kv_format_name(int32_t format) {
  return format >= 0 && format < BL_KV_FORMAT_count ? bitloom::kFormats[format].name : nullptr;
}

extern "C" uint64_t bl_kv_page_bytes(int32_t format, int32_t is_values, int32_t page_size, int32_t dim) {
  bitloom::KvPage page;
  return bitloom::kv_page(format, is_values != 0, page_size, dim, &page) ? static_cast<uint64_t>(page.bytes)
                                                                         : 0;
}
