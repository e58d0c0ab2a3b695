// Unpacks GGUF blocks into CodeBlock. Included inside the avx2 and avx512 regions: the loops are written so
// that the compiler vectorizes them for the region's level (whole bytes in a row, no branches). The
// specification of each type is native/formats/gguf_decode.cc.

namespace {

// codes[0, n) = low nibbles, codes[n, 2n) = high nibbles of n bytes.
template <int n>
inline void nibbles(const uint8_t* bytes, int8_t* codes) {
  const __m128i mask = _mm_set1_epi8(15);
  for (int i = 0; i < n; i += 16) {
    const __m128i both = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + i));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + i), _mm_and_si128(both, mask));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + n + i), _mm_and_si128(_mm_srli_epi16(both, 4), mask));
  }
}

// The fifth bits of 32 codes, a bit each: byte i of the vector looks at bit i % 8 of byte i / 8.
inline void add_fifth_bits(const uint8_t* high_bits, int8_t* codes) {
  const __m256i bits = _mm256_set1_epi32(load_as<int32_t>(high_bits));
  const __m256i bytes = _mm256_shuffle_epi8(
      bits, _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i each = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, each), each);
  __m256i* out = reinterpret_cast<__m256i*>(codes);
  _mm256_storeu_si256(
      out, _mm256_or_si256(_mm256_loadu_si256(out), _mm256_and_si256(set, _mm256_set1_epi8(16))));
}

inline void subtract(int8_t* codes, int count, int8_t offset) {
  for (int i = 0; i < count; ++i) codes[i] = static_cast<int8_t>(codes[i] - offset);
}

// 256 two-bit codes: four planes in each half of 32 bytes.
inline void two_bit_planes(const uint8_t* __restrict bytes, int8_t* __restrict codes) {
  for (int half = 0; half < 2; ++half) {
    for (int plane = 0; plane < 4; ++plane) {
      int8_t* out = codes + 128 * half + 32 * plane;
      for (int i = 0; i < 32; ++i) out[i] = static_cast<int8_t>(bytes[32 * half + i] >> (2 * plane) & 3);
    }
  }
}

// Bits [2p, 2p + 2) of 32 bytes are the high two of the six of codes 32p + i.
inline void add_two_bit_planes(const uint8_t* __restrict bytes, int8_t* __restrict codes) {
  for (int plane = 0; plane < 4; ++plane) {
    for (int i = 0; i < 32; ++i) {
      const int high = bytes[i] >> (2 * plane) & 3;
      codes[32 * plane + i] = static_cast<int8_t>(codes[32 * plane + i] | high << 4);
    }
  }
}

// Bit p of 32 bytes is worth `value` in code 32p + i.
inline void add_bit_planes(const uint8_t* __restrict bytes, int value_shift, int8_t* __restrict codes) {
  for (int plane = 0; plane < 8; ++plane) {
    int8_t* out = codes + 32 * plane;
    for (int i = 0; i < 32; ++i) out[i] = static_cast<int8_t>(out[i] | (bytes[i] >> plane & 1) << value_shift);
  }
}

// Types with a block of 32: block number j of the 8.
template <typename Block>
inline float start_block(const Block& block, int j, CodeBlock* out) {
  const float scale = _cvtsh_ss(block.scale);
  out->scales[2 * j] = out->scales[2 * j + 1] = scale;
  nibbles<16>(block.codes, out->codes + 32 * j);
  return scale;
}

inline void set_min(uint16_t min, int j, CodeBlock* out) {
  out->mins[2 * j] = out->mins[2 * j + 1] = _cvtsh_ss(min);
}

inline void unpack(const BlockQ4_1& block, int j, CodeBlock* out) {
  start_block(block, j, out);
  set_min(block.min, j, out);
}
inline void unpack(const BlockQ5_0& block, int j, CodeBlock* out) {
  start_block(block, j, out);
  add_fifth_bits(block.high_bits, out->codes + 32 * j);
  subtract(out->codes + 32 * j, 32, 16);
}
inline void unpack(const BlockQ5_1& block, int j, CodeBlock* out) {
  start_block(block, j, out);
  add_fifth_bits(block.high_bits, out->codes + 32 * j);
  set_min(block.min, j, out);
}
inline void unpack(const BlockIQ4NL& block, int j, CodeBlock* out) {
  start_block(block, j, out);
  const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kIq4Nl));
  for (int half = 0; half < 2; ++half) {
    __m128i* codes = reinterpret_cast<__m128i*>(out->codes + 32 * j + 16 * half);
    _mm_storeu_si128(codes, _mm_shuffle_epi8(table, _mm_loadu_si128(codes)));
  }
}

// Types with a block of 256.
inline void unpack(const BlockQ2K& block, int, CodeBlock* out) {
  const float super_scale = _cvtsh_ss(block.super_scale);
  const float super_min = _cvtsh_ss(block.super_min);
  for (int s = 0; s < 16; ++s) {
    out->scales[s] = super_scale * static_cast<float>(block.scales_and_mins[s] & 15);
    out->mins[s] = -(super_min * static_cast<float>(block.scales_and_mins[s] >> 4));
  }
  two_bit_planes(block.codes, out->codes);
}
inline void unpack(const BlockQ3K& block, int, CodeBlock* out) {
  const float super_scale = _cvtsh_ss(block.super_scale);
  for (int s = 0; s < 16; ++s) {
    out->scales[s] = super_scale * static_cast<float>(unpack_q3_k_scale(block.scales, s));
  }
  two_bit_planes(block.codes, out->codes);
  add_bit_planes(block.high_bits, 2, out->codes);
  subtract(out->codes, 256, 4);
}
template <typename Block>
inline void unpack_four_bits(const Block& block, CodeBlock* out) {
  const float super_scale = _cvtsh_ss(block.super_scale);
  const float super_min = _cvtsh_ss(block.super_min);
  for (int s = 0; s < 8; ++s) {
    const ScaleAndMin packed = unpack_scale_and_min(block.scales, s);
    out->scales[2 * s] = out->scales[2 * s + 1] = super_scale * static_cast<float>(packed.scale);
    out->mins[2 * s] = out->mins[2 * s + 1] = -(super_min * static_cast<float>(packed.min));
  }
  for (int j = 0; j < 4; ++j) nibbles<32>(block.codes + 32 * j, out->codes + 64 * j);
}
inline void unpack(const BlockQ4K& block, int, CodeBlock* out) { unpack_four_bits(block, out); }
inline void unpack(const BlockQ5K& block, int, CodeBlock* out) {
  unpack_four_bits(block, out);
  add_bit_planes(block.high_bits, 4, out->codes);
}
inline void unpack(const BlockQ6K& block, int, CodeBlock* out) {
  const float super_scale = _cvtsh_ss(block.super_scale);
  for (int s = 0; s < 16; ++s) out->scales[s] = super_scale * static_cast<float>(block.scales[s]);
  for (int half = 0; half < 2; ++half) {
    int8_t* codes = out->codes + 128 * half;
    nibbles<64>(block.codes + 64 * half, codes);
    add_two_bit_planes(block.high_bits + 32 * half, codes);
  }
  subtract(out->codes, 256, 32);
}
inline void set_scale(uint16_t scale, CodeBlock* out) {
  for (float& value : out->scales) value = _cvtsh_ss(scale);
}
inline void unpack(const BlockTQ1_0& block, int, CodeBlock* out) {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  const auto trits = [](const uint8_t* __restrict bytes, int count, uint8_t power, int8_t* __restrict codes) {
    for (int i = 0; i < count; ++i) {
      const uint8_t fraction = static_cast<uint8_t>(bytes[i] * power);
      codes[i] = static_cast<int8_t>((fraction * 3 >> 8) - 1);
    }
  };
  set_scale(block.scale, out);
  for (int n = 0; n < 5; ++n) {
    trits(block.codes, 32, kPowers[n], out->codes + 32 * n);
    trits(block.codes + 32, 16, kPowers[n], out->codes + 160 + 16 * n);
    if (n < 4) trits(block.tail_codes, 4, kPowers[n], out->codes + 240 + 4 * n);
  }
}
inline void unpack(const BlockTQ2_0& block, int, CodeBlock* out) {
  set_scale(block.scale, out);
  two_bit_planes(block.codes, out->codes);
  subtract(out->codes, 256, 1);
}

template <typename Block, int kBlocks>
inline void unpack_blocks(const WeightsView& b, int64_t row, int64_t first, int64_t count, CodeBlock* out) {
  constexpr int64_t kElements = kCodeBlock / kBlocks;
  for (int64_t j = 0; j * kElements < count; ++j) {
    // Packed structs have alignment 1. Not through a copy: the copy's stores would stall the wider loads.
    static_assert(alignof(Block) == 1);
    unpack(*reinterpret_cast<const Block*>(b.block(row, first / kElements + j)), static_cast<int>(j), out);
  }
}

// Weights [first, first + count) of a row; first a multiple of 256, count at most that. Those past count
// are zero.
inline void unpack_code_block(const WeightsView& b, int64_t row, int64_t first, int64_t count, CodeBlock* out) {
  if (count < kCodeBlock) *out = CodeBlock{};
  if (!has_mins(*b.info)) std::memset(out->mins, 0, sizeof(out->mins));
  switch (b.info->gguf_type) {
    case 3: return unpack_blocks<BlockQ4_1, 8>(b, row, first, count, out);
    case 6: return unpack_blocks<BlockQ5_0, 8>(b, row, first, count, out);
    case 7: return unpack_blocks<BlockQ5_1, 8>(b, row, first, count, out);
    case 10: return unpack_blocks<BlockQ2K, 1>(b, row, first, count, out);
    case 11: return unpack_blocks<BlockQ3K, 1>(b, row, first, count, out);
    case 12: return unpack_blocks<BlockQ4K, 1>(b, row, first, count, out);
    case 13: return unpack_blocks<BlockQ5K, 1>(b, row, first, count, out);
    case 14: return unpack_blocks<BlockQ6K, 1>(b, row, first, count, out);
    case 20: return unpack_blocks<BlockIQ4NL, 8>(b, row, first, count, out);
    case 34: return unpack_blocks<BlockTQ1_0, 1>(b, row, first, count, out);
    default: return unpack_blocks<BlockTQ2_0, 1>(b, row, first, count, out);
  }
}

}  // namespace
