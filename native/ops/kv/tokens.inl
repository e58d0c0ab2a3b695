// kv_encode_token, kv_encode_page and kv_decode_token for one level, over its Vec, its conversions (store_codes,
// load_half, store_half) and places.inl. The steps are those of kv_page.cc. What is not finite is left to it: then the
// loops here need no care for NaN. Included inside a region, once.

namespace {

constexpr int64_t kMaxRow = kMaxKvDim;

struct Codes {
  alignas(64) uint8_t bytes[2 * kMaxRow];
};

// Of whole vectors, as all rows are. x * 0 is NaN where x is not finite.
inline bool all_finite(const float* x, int64_t count) {
  const Vec zero = Vec::set(0);
  Vec sum = zero;
  for (int64_t i = 0; i < count; i += Vec::kLanes) sum = fma(Vec::load(x + i), zero, sum);
  return sum.reduce_add() == 0;
}

inline float largest_of(const float* x, int64_t count) {
  Vec largest = Vec::set(0);
  for (int64_t i = 0; i < count; i += Vec::kLanes) largest = max(abs(Vec::load(x + i)), largest);
  return largest.reduce_max();
}

inline Vec limited(Vec x, float low, float high) { return min(max(x, Vec::set(low)), Vec::set(high)); }

// ---- Codes of a row

// As f32_to_f8e4m3 and f32_to_bf16, without branches, so that loops become vectors.
inline uint8_t f8e4m3_code(float x) {
  const int32_t bits = std::bit_cast<int32_t>(x);
  const int32_t magnitude = bits & 0x7fffffff;
  const int32_t subnormal = std::bit_cast<int32_t>(std::bit_cast<float>(magnitude) + 0x1p14f) - 0x46800000;
  const int32_t normal = (magnitude - 0x3c000000 + 0x7ffff + (magnitude >> 20 & 1)) >> 20;
  int32_t code = magnitude < 0x3c800000 ? subnormal : normal;
  code = magnitude >= 0x43e00000 ? 0x7e : code;
  code = magnitude >= 0x7f800000 ? 0x7f : code;
  return static_cast<uint8_t>(code | (bits >> 24 & 0x80));
}
inline uint16_t bf16_code(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  const bool nan = static_cast<int32_t>(bits & 0x7fffffff) > 0x7f800000;
  return static_cast<uint16_t>(nan ? bits >> 16 | 0x40 : rounded);
}

inline void float_codes(int32_t format, const float* __restrict row, int64_t count, Codes& codes) {
  uint8_t* __restrict bytes = codes.bytes;
  uint16_t* __restrict halves = reinterpret_cast<uint16_t*>(codes.bytes);
  switch (format) {
    case BL_KV_FORMAT_f16:
      for (int64_t i = 0; i < count; i += Vec::kLanes) store_half(Vec::load(row + i), halves + i);
      return;
    case BL_KV_FORMAT_bf16:
      for (int64_t i = 0; i < count; ++i) halves[i] = bf16_code(row[i]);
      return;
    default:
      for (int64_t i = 0; i < count; ++i) bytes[i] = f8e4m3_code(row[i]);
  }
}

inline void token_codes(const float* row, int64_t count, uint8_t* header, Codes& codes) {
  const float scale = kv_token_scale(std::bit_cast<uint32_t>(largest_of(row, count)));
  std::memcpy(header, &scale, sizeof(scale));
  const Vec inverse = Vec::set(scale > 0 ? 1 / scale : 0);
  for (int64_t i = 0; i < count; i += Vec::kLanes) store_codes(Vec::load(row + i) * inverse, codes.bytes + i);
}

template <int kBits>
void block_codes(const float* row, int64_t count, uint8_t* header, Codes& codes) {
  constexpr float kLargest = (1 << (kBits - 1)) - 1;
  for (int64_t first = 0; first < count; first += kKvBlock) {
    const uint32_t largest = std::bit_cast<uint32_t>(largest_of(row + first, kKvBlock));
    const uint8_t exponent = kv_block_exponent(largest, kBits);
    header[first / kKvBlock] = exponent;
    const Vec inverse = Vec::set(kv_block_inverse(exponent));
    for (int64_t i = first; i < first + kKvBlock; i += Vec::kLanes) {
      store_codes(limited(Vec::load(row + i) * inverse, -kLargest, kLargest), codes.bytes + i);
    }
  }
  if constexpr (kBits == 4) {
    for (int64_t i = 0; i < count; ++i) codes.bytes[i] &= 15;
  }
}

// Scales of KvScale::channel for many groups at once: kv_affine_of and kv_affine_inverse in vectors.
struct Affine {
  alignas(64) float low[kMaxRow], high[kMaxRow];
  alignas(64) float offset[kMaxRow], inverse[kMaxRow];
  alignas(64) uint16_t scale_bits[kMaxRow], offset_bits[kMaxRow];

  template <int kBits>
  void fit(int64_t count) {
    constexpr float kLimit = 65504;
    const Vec zero = Vec::set(0);
    for (int64_t i = 0; i < count; i += Vec::kLanes) {
      store_half(limited(Vec::load(low + i), -kLimit, kLimit) + zero, offset_bits + i);
      const Vec from = load_half(offset_bits + i);
      from.store(offset + i);
      const Vec span = max(Vec::load(high + i) - from, zero);
      store_half(min(span / Vec::set((1 << kBits) - 1), Vec::set(kLimit)), scale_bits + i);
      const Vec scale = load_half(scale_bits + i);
      // 2^-24 is the smallest scale that is not 0.
      if_negative(scale - Vec::set(0x1p-25f), zero, Vec::set(1) / scale).store(inverse + i);
    }
  }
};

template <int kBits>
Vec affine_codes(const float* x, Vec offset, Vec inverse) {
  return limited((Vec::load(x) - offset) * inverse, 0, (1 << kBits) - 1);
}

// Values: a scale and offset for 32 channels of the token.
template <int kBits>
void group_codes(const KvPage& layout, const float* row, uint8_t* header, Codes& codes) {
  Affine affine;
  const int64_t groups = layout.groups;
  // The last group is made whole by repeating a channel, which changes none of its extremes.
  alignas(64) float last[kKvValueGroup];
  const int64_t whole = layout.dim / kKvValueGroup;
  for (int64_t c = 0; whole < groups && c < kKvValueGroup; ++c) {
    last[c] = row[std::min<int64_t>(whole * kKvValueGroup + c, layout.dim - 1)];
  }
  const auto group_of = [&](int64_t group) { return group < whole ? row + group * kKvValueGroup : last; };
  for (int64_t group = 0; group < groups; ++group) {
    const float* x = group_of(group);
    const Vec zero = Vec::set(0);
    Vec high = Vec::load(x);
    Vec minus_low = zero - high;
    for (int64_t i = Vec::kLanes; i < kKvValueGroup; i += Vec::kLanes) {
      high = max(Vec::load(x + i), high);
      minus_low = max(zero - Vec::load(x + i), minus_low);
    }
    affine.high[group] = high.reduce_max();
    affine.low[group] = -minus_low.reduce_max();
  }
  // Whole vectors: what memory holds by chance may be subnormal, and slow to divide.
  for (int64_t group = groups; group % Vec::kLanes != 0; ++group) affine.low[group] = affine.high[group] = 0;
  affine.template fit<kBits>(groups);
  for (int64_t group = 0; group < groups; ++group) {
    const KvAffine scales{affine.scale_bits[group], affine.offset_bits[group]};
    std::memcpy(header + 4 * group, &scales, sizeof(scales));
    const float* x = group_of(group);
    uint8_t* to = codes.bytes + group * kKvValueGroup;
    const Vec offset = Vec::set(affine.offset[group]);
    const Vec inverse = Vec::set(affine.inverse[group]);
    for (int64_t i = 0; i < kKvValueGroup; i += Vec::kLanes) {
      store_codes(affine_codes<kBits>(x + i, offset, inverse), to + i);
    }
  }
  std::memset(codes.bytes + layout.dim, 0, static_cast<size_t>(groups * kKvValueGroup - layout.dim));
}

template <int kBits>
void encode_page(const KvPage& layout, uint8_t* page, const float* rows, int64_t stride) {
  Affine affine;
  Codes codes;
  const int64_t count = kv_row_floats(layout.dim);
  for (int64_t c = 0; c < count; c += Vec::kLanes) {
    Vec low = Vec::load(rows + c);
    Vec high = low;
    for (int64_t t = 1; t < layout.page_size; ++t) {
      const Vec x = Vec::load(rows + t * stride + c);
      low = min(x, low);
      high = max(x, high);
    }
    low.store(affine.low + c);
    high.store(affine.high + c);
  }
  affine.template fit<kBits>(count);
  std::memcpy(page, affine.scale_bits, static_cast<size_t>(layout.dim) * 2);
  std::memcpy(page + 2 * layout.dim, affine.offset_bits, static_cast<size_t>(layout.dim) * 2);
  for (int64_t t = 0; t < layout.page_size; ++t) {
    const float* x = rows + t * stride;
    for (int64_t c = 0; c < count; c += Vec::kLanes) {
      store_codes(affine_codes<kBits>(x + c, Vec::load(affine.offset + c), Vec::load(affine.inverse + c)),
                  codes.bytes + c);
    }
    place_key<kBits>(layout, page, t, codes.bytes);
  }
}

// ---- Rows of codes

inline void codes_to_floats(const KvPage& layout, const Codes& codes, int64_t count, float* row) {
  switch (layout.format) {
    case BL_KV_FORMAT_f16:
      return load_values(BL_DTYPE_f16, codes.bytes, 1, count, row);
    case BL_KV_FORMAT_bf16:
      return load_values(BL_DTYPE_bf16, codes.bytes, 1, count, row);
    case BL_KV_FORMAT_f8e4m3:
      for (int64_t i = 0; i < count; ++i) {
        // The exponent of an f32 counts from 127, not 7; the product is exact, also of subnormals.
        const uint32_t code = codes.bytes[i];
        const float scaled = std::bit_cast<float>((code & 0x7f) << 20) * 0x1p120f;
        const uint32_t bits = (code & 0x7f) == 0x7f ? 0x7fc00000u : std::bit_cast<uint32_t>(scaled);
        row[i] = std::bit_cast<float>(bits | (code & 0x80) << 24);
      }
      return;
    default:
      return;  // f32 is there already
  }
}

template <int kBits>
void scale_signed(const uint8_t* codes, int64_t count, float scale, float* row) {
  for (int64_t i = 0; i < count; ++i) {
    const int32_t code = static_cast<int32_t>(static_cast<uint32_t>(codes[i]) << (32 - kBits)) >> (32 - kBits);
    row[i] = static_cast<float>(code) * scale;
  }
}

inline void scale_affine(const KvPage& layout, const uint8_t* page, int64_t token, const uint8_t* codes, float* row) {
  if (!layout.values) {
    alignas(64) float scale[kMaxRow], offset[kMaxRow];
    load_values(BL_DTYPE_f16, page, 1, layout.dim, scale);
    load_values(BL_DTYPE_f16, page + 2 * layout.dim, 1, layout.dim, offset);
    for (int64_t c = 0; c < layout.dim; ++c) row[c] = static_cast<float>(codes[c]) * scale[c] + offset[c];
    return;
  }
  for (int64_t group = 0; group < layout.groups; ++group) {
    const KvAffine scales = kv_affine(layout, page, token, group * kKvValueGroup);
    const float scale = f16_to_f32(scales.scale);
    const float offset = f16_to_f32(scales.offset);
    const int64_t end = std::min((group + 1) * kKvValueGroup, layout.lanes);
    for (int64_t c = group * kKvValueGroup; c < end; ++c) {
      row[c] = static_cast<float>(codes[c]) * scale + offset;
    }
  }
}

}  // namespace

void kv_encode_token(const KvPage& layout, uint8_t* page, int64_t token, const float* row) {
  Codes codes;
  const int64_t count = kv_row_floats(layout.dim);
  if (layout.scale != KvScale::none && !all_finite(row, count)) return encode_kv(layout, page, token, 1, row);
  switch (layout.format) {
    case BL_KV_FORMAT_f32:
      return place<32>(layout, page, token, reinterpret_cast<const uint8_t*>(row));
    case BL_KV_FORMAT_f16:
    case BL_KV_FORMAT_bf16:
      float_codes(layout.format, row, count, codes);
      return place<16>(layout, page, token, codes.bytes);
    case BL_KV_FORMAT_f8e4m3:
      float_codes(layout.format, row, count, codes);
      return place<8>(layout, page, token, codes.bytes);
    case BL_KV_FORMAT_i8:
      token_codes(row, count, page + 4 * token, codes);
      return place<8>(layout, page, token, codes.bytes);
    case BL_KV_FORMAT_i4:
      group_codes<4>(layout, row, page + 4 * token * layout.groups, codes);
      return place<4>(layout, page, token, codes.bytes);
    case BL_KV_FORMAT_i2:
      group_codes<2>(layout, row, page + 4 * token * layout.groups, codes);
      return place<2>(layout, page, token, codes.bytes);
    case BL_KV_FORMAT_bfp8:
      block_codes<8>(row, count, page + token * layout.groups, codes);
      return place<8>(layout, page, token, codes.bytes);
    default:
      block_codes<4>(row, count, page + token * layout.groups, codes);
      return place<4>(layout, page, token, codes.bytes);
  }
}

void kv_encode_page(const KvPage& layout, uint8_t* page, const float* rows, int64_t stride) {
  const int64_t count = kv_row_floats(layout.dim);
  for (int64_t t = 0; t < layout.page_size; ++t) {
    if (!all_finite(rows + t * stride, count)) return encode_kv(layout, page, 0, layout.page_size, rows, stride);
  }
  if (layout.bits == 4) {
    encode_page<4>(layout, page, rows, stride);
  } else {
    encode_page<2>(layout, page, rows, stride);
  }
}

void kv_decode_token(const KvPage& layout, const uint8_t* page, int64_t token, float* row) {
  Codes codes;
  const int64_t count = kv_row_floats(layout.dim);
  fetch_any(layout, page, token, layout.bits == 32 ? reinterpret_cast<uint8_t*>(row) : codes.bytes);
  switch (layout.scale) {
    case KvScale::none:
      return codes_to_floats(layout, codes, count, row);
    case KvScale::token:
      return scale_signed<8>(codes.bytes, count, load_as<float>(page + 4 * token), row);
    case KvScale::channel:
      return scale_affine(layout, page, token, codes.bytes, row);
    case KvScale::block:
      for (int64_t group = 0; group < layout.groups; ++group) {
        const float scale = e8m0_to_f32(page[token * layout.groups + group]);
        const uint8_t* from = codes.bytes + group * kKvBlock;
        if (layout.bits == 8) {
          scale_signed<8>(from, kKvBlock, scale, row + group * kKvBlock);
        } else {
          scale_signed<4>(from, kKvBlock, scale, row + group * kKvBlock);
        }
      }
  }
}
