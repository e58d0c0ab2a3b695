// Unpacking of integer codes at level avx2; included inside the region by the kernels of this level.
//
// A step is 32 weights of a row. Codes of any width come out of the bit stream with pdep, 8 at a time: 8
// codes fill exactly `bits` bytes. vpmaddubsw adds pairs of products into int16: 2 * 127 * code stays below
// 2^15 for codes up to 127, so 8-bit codes go through signs instead, |w| * (sign(w) * a), at most
// 2 * 128 * 127 = 32512.

namespace {

inline float half_value(const uint8_t* bytes, bool bf16) {
  const uint16_t bits = load_as<uint16_t>(bytes);
  return bf16 ? bf16_to_f32(bits) : _cvtsh_ss(bits);
}

// 32 codes: 0 to 127 (kWide false), or int8 (kWide true).
struct Step {
  __m256i codes;
  float scale;
  float zero;  // of the codes as given here
};

struct Unpack {
  uint64_t mask;  // for pdep: the bits of a code in each byte
  uint64_t flip;
  int64_t code_bytes;  // of 8 codes
  float zero;
  float zero_shift;
  bool bf16, has_zero_point;

  explicit Unpack(const bl_format_info& info)
      : mask(0), flip(0), code_bytes(0), zero(0), zero_shift(0), bf16(info.scale_dtype == BL_DTYPE_bf16),
        has_zero_point(info.has_zero_point != 0) {
    if (info.kind == BL_KIND_block) {
      zero = info.gguf_type == 8 ? 0 : 8;
      return;
    }
    const IntegerCodes form(info);
    constexpr uint64_t kEachByte = 0x0101010101010101u;
    mask = form.mask * kEachByte;
    // 8-bit codes become int8 by flipping the top bit: code - 128.
    const bool wide = form.bits == 8 && has_integer_codes(info);
    flip = static_cast<uint8_t>(form.flip ^ (wide ? 0x80 : 0)) * kEachByte;
    code_bytes = form.bits;
    zero = static_cast<float>(form.zero - (wide ? 128 : 0));
    zero_shift = form.zero_shift - (wide ? 128.0f : 0.0f);
  }

  // 8 codes from `bytes`, of which `left` may be read.
  uint64_t codes(const uint8_t* bytes, int64_t left) const {
    uint64_t raw = 0;
    if (left >= 8) {
      raw = load_as<uint64_t>(bytes);
    } else if (left > 0) {
      std::memcpy(&raw, bytes, static_cast<size_t>(left));
    }
    return _pdep_u64(raw, mask) ^ flip;
  }
};

struct Q4_0 {
  static constexpr bool kWide = false;
  static Step load(const uint8_t* block, const Cursor&, const Unpack&) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return {_mm256_and_si256(both, _mm256_set1_epi8(15)), half_value(block, false), 8};
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(1); }
};

struct Q8_0 {
  static constexpr bool kWide = true;
  static Step load(const uint8_t* block, const Cursor&, const Unpack&) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 2)), half_value(block, false), 0};
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(1); }
};

template <bool kWideCodes>
struct Grouped {
  static constexpr bool kWide = kWideCodes;
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    const uint8_t* bytes = block + (unpack.has_zero_point ? 4 : 2) + cursor.code_offset;
    // Bits past a group's codes are not used, so that whole words may be read up to the matrix's end.
    const int64_t left = cursor.end - bytes;
    const int64_t n = unpack.code_bytes;
    Step result;
    result.codes = _mm256_setr_epi64x(static_cast<int64_t>(unpack.codes(bytes, left)),
                                      static_cast<int64_t>(unpack.codes(bytes + n, left - n)),
                                      static_cast<int64_t>(unpack.codes(bytes + 2 * n, left - 2 * n)),
                                      static_cast<int64_t>(unpack.codes(bytes + 3 * n, left - 3 * n)));
    result.scale = half_value(block, unpack.bf16);
    result.zero = unpack.has_zero_point ? half_value(block + 2, unpack.bf16) + unpack.zero_shift : unpack.zero;
    return result;
  }
  static void advance(Cursor& cursor, const Unpack& unpack) { cursor.next_codes(4 * unpack.code_bytes); }
};

// Sums of 4 products of codes and activations per 32-bit lane.
template <bool kWide>
inline __m256i multiply(__m256i codes, __m256i activations) {
  const __m256i ones = _mm256_set1_epi16(1);
  if (kWide) {
    const __m256i signed_activations = _mm256_sign_epi8(activations, codes);
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(codes), signed_activations), ones);
  }
  return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, activations), ones);
}

inline float horizontal_sum(__m256 v) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
}

}  // namespace
