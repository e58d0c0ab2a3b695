// kv_encode_token, kv_encode_page and kv_decode_token for one level: plain loops over whole rows of codes, which the
// compiler turns into vectors of the region's width. Loops are written so that it can: no branches that may trap, floats
// compared as integers in reductions, rounding by an addition. The steps are those of kv_page.cc.
//
// A token's codes stand side by side (8 bits and less: a byte each), then go to their places in the page: keys a dword
// per `per_dword` channels, 64 bytes apart; values one field of each dword of a row.

namespace {

constexpr int64_t kMaxRow = kMaxKvDim;
constexpr int64_t kMaxGroups = kMaxKvDim / kKvValueGroup;

struct Codes {
  alignas(64) uint8_t bytes[4 * kMaxRow];
  float* floats() { return reinterpret_cast<float*>(bytes); }
};

// x to the nearest whole number, to even on a tie, for |x| < 2^22: the last bit of the sum is worth 1.
inline int32_t nearest(float x) { return std::bit_cast<int32_t>(x + 0x1.8p23f) - 0x4b400000; }

inline float limited(float x, float low, float high) {
  const float y = x > low ? x : low;
  return y < high ? y : high;
}

inline uint32_t magnitude(float x) { return std::bit_cast<uint32_t>(x) & 0x7fffffffu; }

// An integer that orders as the number does, -0 below 0; its own inverse.
inline int32_t order_of(int32_t bits) { return bits ^ (bits >> 31 & 0x7fffffff); }

inline uint32_t largest_of(const float* x, int64_t count) {
  uint32_t largest = 0;
  for (int64_t i = 0; i < count; ++i) largest = std::max(largest, magnitude(x[i]));
  return largest;
}

// ---- Places of codes

template <int kBits>
void place_key(const KvPage& layout, uint8_t* page, int64_t token, const uint8_t* codes) {
  uint8_t* to = page + kv_place(layout, token, 0).offset;
  for (int64_t i = 0; i < layout.rows; ++i) {
    uint32_t dword;
    if constexpr (kBits >= 8) {
      dword = load_as<uint32_t>(codes + 4 * i);
    } else if constexpr (kBits == 4) {
      const uint64_t eight = load_as<uint64_t>(codes + 8 * i);
      dword = static_cast<uint32_t>(eight | eight >> 28);
    } else {
      const uint64_t low = load_as<uint64_t>(codes + 16 * i);
      const uint64_t high = load_as<uint64_t>(codes + 16 * i + 8);
      dword = static_cast<uint32_t>(low | low >> 30 | high << 4 | high >> 26);
    }
    std::memcpy(to + 64 * i, &dword, sizeof(dword));
  }
}

template <int kBits>
void place_value(const KvPage& layout, uint8_t* page, int64_t token, const uint8_t* codes) {
  using Code = std::conditional_t<kBits == 32, uint32_t, std::conditional_t<kBits == 16, uint16_t, uint8_t>>;
  const KvPlace place = kv_place(layout, token, 0);
  uint32_t* to = reinterpret_cast<uint32_t*>(page + place.offset);
  const Code* from = reinterpret_cast<const Code*>(codes);
  const uint32_t keep = kBits == 32 ? 0 : ~(((1u << (kBits % 32)) - 1) << place.shift);
  for (int64_t c = 0; c < layout.lanes; ++c) {
    to[c] = (to[c] & keep) | static_cast<uint32_t>(from[c]) << place.shift;
  }
}

template <int kBits>
void fetch_key(const KvPage& layout, const uint8_t* page, int64_t token, uint8_t* codes) {
  const uint8_t* from = page + kv_place(layout, token, 0).offset;
  for (int64_t i = 0; i < layout.rows; ++i) {
    const uint32_t dword = load_as<uint32_t>(from + 64 * i);
    if constexpr (kBits >= 8) {
      std::memcpy(codes + 4 * i, &dword, 4);
    } else {
      for (int j = 0; j < 8 / kBits; ++j) {
        const uint32_t four = dword >> (j * kBits) & ((1u << kBits) - 1) * 0x01010101u;
        std::memcpy(codes + 32 / kBits * i + 4 * j, &four, 4);
      }
    }
  }
}

template <int kBits>
void fetch_value(const KvPage& layout, const uint8_t* page, int64_t token, uint8_t* codes) {
  using Code = std::conditional_t<kBits == 32, uint32_t, std::conditional_t<kBits == 16, uint16_t, uint8_t>>;
  const KvPlace place = kv_place(layout, token, 0);
  const uint32_t* from = reinterpret_cast<const uint32_t*>(page + place.offset);
  Code* to = reinterpret_cast<Code*>(codes);
  constexpr uint32_t kMask = kBits == 32 ? ~0u : (1u << (kBits % 32)) - 1;
  for (int64_t c = 0; c < layout.lanes; ++c) to[c] = static_cast<Code>(from[c] >> place.shift & kMask);
}

// Calls body with the format's width as a constant.
template <typename Body>
void for_bits(int32_t bits, const Body& body) {
  switch (bits) {
    case 32:
      return body(std::integral_constant<int, 32>());
    case 16:
      return body(std::integral_constant<int, 16>());
    case 8:
      return body(std::integral_constant<int, 8>());
    case 4:
      return body(std::integral_constant<int, 4>());
    default:
      return body(std::integral_constant<int, 2>());
  }
}

template <int kBits>
void place(const KvPage& layout, uint8_t* page, int64_t token, const uint8_t* codes) {
  if (layout.values) {
    place_value<kBits>(layout, page, token, codes);
  } else {
    place_key<kBits>(layout, page, token, codes);
  }
}

template <int kBits>
void fetch(const KvPage& layout, const uint8_t* page, int64_t token, uint8_t* codes) {
  if (layout.values) {
    fetch_value<kBits>(layout, page, token, codes);
  } else {
    fetch_key<kBits>(layout, page, token, codes);
  }
}

// ---- Codes of a row; `count` is whole vectors

inline void floats_to_codes(const KvPage& layout, const float* row, int64_t count, Codes& codes) {
  switch (layout.format) {
    case BL_KV_FORMAT_f16:
      return store_values(BL_DTYPE_f16, codes.bytes, 1, count, row);
    case BL_KV_FORMAT_bf16:
      return store_values(BL_DTYPE_bf16, codes.bytes, 1, count, row);
    case BL_KV_FORMAT_f8e4m3:
      for (int64_t i = 0; i < count; ++i) codes.bytes[i] = f32_to_f8e4m3(row[i]);
      return;
    default:
      std::memcpy(codes.bytes, row, static_cast<size_t>(count) * 4);
  }
}

inline void token_codes(const float* row, int64_t count, uint8_t* header, Codes& codes) {
  const float scale = kv_token_scale(largest_of(row, count));
  const float inverse = scale > 0 ? 1 / scale : 0;
  std::memcpy(header, &scale, sizeof(scale));
  if (inverse == 0) {
    std::memset(codes.bytes, 0, static_cast<size_t>(count));
    return;
  }
  for (int64_t i = 0; i < count; ++i) codes.bytes[i] = static_cast<uint8_t>(nearest(row[i] * inverse));
}

template <int kBits>
void block_codes(const float* row, int64_t count, uint8_t* header, Codes& codes) {
  constexpr float kLargest = (1 << (kBits - 1)) - 1;
  constexpr uint32_t kMask = (1u << kBits) - 1;
  for (int64_t first = 0; first < count; first += kKvBlock) {
    const float* x = row + first;
    const uint8_t exponent = kv_block_exponent(largest_of(x, kKvBlock), kBits);
    const float inverse = kv_block_inverse(exponent);
    header[first / kKvBlock] = exponent;
    const uint32_t mask = inverse == 0 ? 0 : kMask;
    for (int64_t i = 0; i < kKvBlock; ++i) {
      const int32_t code = nearest(limited(x[i] * inverse, -kLargest, kLargest));
      codes.bytes[first + i] = static_cast<uint8_t>(static_cast<uint32_t>(code) & mask);
    }
  }
}

// Scales of KvScale::channel for many groups at once: kv_affine_of and kv_affine_inverse in vectors.
struct Affine {
  alignas(64) int32_t low[kMaxRow], high[kMaxRow];  // order_of() their extremes
  alignas(64) uint32_t largest[kMaxRow];
  alignas(64) float offset[kMaxRow], inverse[kMaxRow];
  alignas(64) uint16_t scale_bits[kMaxRow], offset_bits[kMaxRow];
  alignas(64) float scratch[kMaxRow];

  template <int kBits>
  void fit(int64_t count) {
    constexpr float kLimit = 65504;
    constexpr float kLevels = (1 << kBits) - 1;
    for (int64_t i = 0; i < count; ++i) {
      const float x = limited(std::bit_cast<float>(order_of(low[i])), -kLimit, kLimit) + 0.0f;
      scratch[i] = largest[i] >= kInfinityBits ? 0 : x;
    }
    store_values(BL_DTYPE_f16, offset_bits, 1, count, scratch);
    load_values(BL_DTYPE_f16, offset_bits, 1, count, offset);
    for (int64_t i = 0; i < count; ++i) {
      const float span = std::bit_cast<float>(order_of(high[i])) - offset[i];
      const float step = (span > 0 ? span : 0) / kLevels;
      const float finite = step < kLimit ? step : kLimit;
      scratch[i] = largest[i] >= kInfinityBits ? std::bit_cast<float>(0x7fc00000u) : finite;
    }
    store_values(BL_DTYPE_f16, scale_bits, 1, count, scratch);
    load_values(BL_DTYPE_f16, scale_bits, 1, count, scratch);
    for (int64_t i = 0; i < count; ++i) {
      const float divisor = scratch[i] > 0 ? scratch[i] : 1;
      const float reciprocal = 1 / divisor;
      inverse[i] = scratch[i] > 0 ? reciprocal : 0;
    }
  }
};

template <int kBits>
inline uint8_t affine_code(float x, float offset, float inverse) {
  const int32_t code = nearest(limited((x - offset) * inverse, 0, (1 << kBits) - 1));
  return static_cast<uint8_t>(inverse == 0 ? 0 : code);
}

// Values: a scale and offset for 32 channels of the token.
template <int kBits>
void group_codes(const KvPage& layout, float* row, uint8_t* header, Codes& codes) {
  Affine affine;
  const int64_t groups = layout.groups;
  // The last group is made whole by repeating a channel, which changes none of its extremes. The row is that long:
  // kKvValueGroup divides kMaxKvDim.
  for (int64_t c = layout.dim; c < groups * kKvValueGroup; ++c) row[c] = row[layout.dim - 1];
  for (int64_t group = 0; group < groups; ++group) {
    const float* x = row + group * kKvValueGroup;
    int32_t low = INT32_MAX;
    int32_t high = INT32_MIN;
    for (int64_t i = 0; i < kKvValueGroup; ++i) {
      const int32_t order = order_of(std::bit_cast<int32_t>(x[i]));
      low = std::min(low, order);
      high = std::max(high, order);
    }
    affine.low[group] = low;
    affine.high[group] = high;
    affine.largest[group] = largest_of(x, kKvValueGroup);
  }
  affine.template fit<kBits>(groups);
  for (int64_t group = 0; group < groups; ++group) {
    const KvAffine scales{affine.scale_bits[group], affine.offset_bits[group]};
    std::memcpy(header + 4 * group, &scales, sizeof(scales));
    const float* x = row + group * kKvValueGroup;
    for (int64_t i = 0; i < kKvValueGroup; ++i) {
      codes.bytes[group * kKvValueGroup + i] =
          affine_code<kBits>(x[i], affine.offset[group], affine.inverse[group]);
    }
  }
  std::memset(codes.bytes + layout.dim, 0, static_cast<size_t>(groups * kKvValueGroup - layout.dim));
}

template <int kBits>
void encode_page(const KvPage& layout, uint8_t* page, const float* rows) {
  Affine affine;
  Codes codes;
  const int64_t count = kv_row_floats(layout.dim);
  for (int64_t c = 0; c < count; ++c) {
    affine.low[c] = INT32_MAX;
    affine.high[c] = INT32_MIN;
    affine.largest[c] = 0;
  }
  for (int64_t t = 0; t < layout.page_size; ++t) {
    const float* x = rows + t * count;
    for (int64_t c = 0; c < count; ++c) {
      const int32_t order = order_of(std::bit_cast<int32_t>(x[c]));
      affine.low[c] = std::min(affine.low[c], order);
      affine.high[c] = std::max(affine.high[c], order);
      affine.largest[c] = std::max(affine.largest[c], magnitude(x[c]));
    }
  }
  affine.template fit<kBits>(count);
  std::memcpy(page, affine.scale_bits, static_cast<size_t>(layout.dim) * 2);
  std::memcpy(page + 2 * layout.dim, affine.offset_bits, static_cast<size_t>(layout.dim) * 2);
  for (int64_t t = 0; t < layout.page_size; ++t) {
    const float* x = rows + t * count;
    for (int64_t c = 0; c < count; ++c) {
      codes.bytes[c] = affine_code<kBits>(x[c], affine.offset[c], affine.inverse[c]);
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
      std::memcpy(row, codes.bytes, static_cast<size_t>(count) * 4);
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

void kv_encode_token(const KvPage& layout, uint8_t* page, int64_t token, float* row) {
  Codes codes;
  const int64_t count = kv_row_floats(layout.dim);
  uint8_t* groups = page + token * layout.groups;
  switch (layout.scale) {
    case KvScale::none:
      floats_to_codes(layout, row, count, codes);
      break;
    case KvScale::token:
      token_codes(row, count, page + 4 * token, codes);
      break;
    case KvScale::channel:
      if (layout.bits == 4) {
        group_codes<4>(layout, row, page + 4 * token * layout.groups, codes);
      } else {
        group_codes<2>(layout, row, page + 4 * token * layout.groups, codes);
      }
      break;
    case KvScale::block:
      if (layout.bits == 8) {
        block_codes<8>(row, count, groups, codes);
      } else {
        block_codes<4>(row, count, groups, codes);
      }
      break;
  }
  for_bits(layout.bits, [&](auto bits) { place<bits>(layout, page, token, codes.bytes); });
}

void kv_encode_page(const KvPage& layout, uint8_t* page, const float* rows) {
  if (layout.bits == 4) {
    encode_page<4>(layout, page, rows);
  } else {
    encode_page<2>(layout, page, rows);
  }
}

void kv_decode_token(const KvPage& layout, const uint8_t* page, int64_t token, float* row) {
  Codes codes;
  const int64_t count = kv_row_floats(layout.dim);
  for_bits(layout.bits, [&](auto bits) { fetch<bits>(layout, page, token, codes.bytes); });
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
