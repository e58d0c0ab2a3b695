// Unpacking of integer codes at level avx512; included inside the region by the kernels of this level.
//
// A step is 64 weights of a row. Three instructions for any width: bring each code's bytes into its 8-byte
// lane with vpermb, shift every code to its byte with vpmultishiftqb, mask and flip with one vpternlog.

namespace {

// Stands in for the second block of a step where the row has an odd number of blocks.
alignas(64) const uint8_t kZeroBlock[64] = {};

inline float half_value(const uint8_t* bytes, bool bf16) {
  const uint16_t bits = load_as<uint16_t>(bytes);
  return bf16 ? bf16_to_f32(bits) : _cvtsh_ss(bits);
}

// 16 bytes, four times.
inline __m512i broadcast_16(const void* bytes) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(bytes)));
}

// Lanes 0-7 of a, lanes 8-15 of b.
inline __m512 pair(float a, float b) {
  return _mm512_insertf32x8(_mm512_set1_ps(a), _mm256_set1_ps(b), 1);
}

// Scales of two f16 values at a and b, 8 lanes each.
inline __m512 half_pair(const uint8_t* a, const uint8_t* b) {
  const __m256i bits = _mm256_mask_set1_epi16(_mm256_set1_epi16(load_as<int16_t>(a)), 0xff00, load_as<int16_t>(b));
  return _mm512_cvtph_ps(bits);
}

// A step's worth of a weight row: 64 codes 0 to 255, a scale per lane of 4 codes.
struct Step {
  __m512i codes;
  __m512 scale;
  __m512 zero;  // only where kZeroPoints
};

// What a format needs beside its bytes, made once per call.
struct Unpack {
  __m512i spread, shifts, mask, flip;
  int64_t stream_bytes;  // of 64 codes
  int32_t zero;          // code of the value 0, without zero points
  float zero_shift;
  bool bf16;

  explicit Unpack(const bl_format_info& info)
      : spread(_mm512_setzero_si512()), shifts(spread), mask(spread), flip(spread), stream_bytes(0), zero(0),
        zero_shift(0), bf16(info.scale_dtype == BL_DTYPE_bf16) {
    if (info.kind == BL_KIND_block) {
      zero = info.gguf_type == 8 ? 128 : 8;
      mask = _mm512_set1_epi8(15);
      flip = _mm512_set1_epi8(static_cast<char>(0x80));
      shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
      return;
    }
    const IntegerCodes form(info);  // a codebook's codes are taken as they are
    // Eight codes fill exactly `bits` bytes: lane i of 8 bytes gets bytes [i*bits, i*bits + 8).
    alignas(64) uint8_t index[64];
    alignas(64) uint8_t shift[64];
    for (int i = 0; i < 64; ++i) {
      const int lane = i / 8;
      int from = lane * form.bits + i % 8;
      // Groups of 32: the second block was loaded into the upper half.
      if (info.group_size == 32 && lane >= 4) from = 32 + (lane - 4) * form.bits + i % 8;
      index[i] = static_cast<uint8_t>(from & 63);
      shift[i] = static_cast<uint8_t>((i % 8 * form.bits - form.shift) & 63);
    }
    spread = _mm512_load_si512(index);
    shifts = _mm512_load_si512(shift);
    mask = _mm512_set1_epi8(static_cast<char>(form.mask));
    flip = _mm512_set1_epi8(static_cast<char>(form.flip));
    stream_bytes = 8 * form.bits;
    zero = form.zero;
    zero_shift = form.zero_shift;
  }

  __m512i codes(__m512i raw) const {
    const __m512i lanes = _mm512_permutexvar_epi8(spread, raw);
    const __m512i shifted = _mm512_multishift_epi64_epi8(shifts, lanes);
    return _mm512_ternarylogic_epi64(shifted, mask, flip, 0x6a);  // (shifted & mask) ^ flip
  }
};

// Each format: the step at `cursor` of a row, `block` being that row's current block. kLast: part of the
// step lies past the row's end. kPaired: a step is two blocks of 32, not part of one block.
struct Q4_0 {
  static constexpr bool kPaired = true;
  static constexpr bool kZeroPoints = false;
  // 0-15 in the low nibbles, 16-31 in the high ones: lanes of 16 bytes shifted by 0, 4, 0, 4.
  static __m512i codes(const uint8_t* block, const uint8_t* second, const Unpack& unpack) {
    // Two broadcasting loads and a blend: none needs the shuffle port.
    const __m512i low = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2)));
    const __m512i high = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(second + 2)));
    const __m512i both = _mm512_mask_blend_epi64(0xf0, low, high);
    return _mm512_and_si512(_mm512_srlv_epi64(both, unpack.shifts), unpack.mask);
  }
  template <bool kLast>
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    const uint8_t* second = kLast ? kZeroBlock : block + cursor.block_stride;
    return {codes(block, second, unpack), half_pair(block, second), _mm512_setzero_ps()};
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(2); }
};

struct Q8_0 {
  static constexpr bool kPaired = true;
  static constexpr bool kZeroPoints = false;
  static __m512i codes(const uint8_t* block, const uint8_t* second, const Unpack& unpack) {
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 2));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second + 2));
    return _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), unpack.flip);
  }
  template <bool kLast>
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    const uint8_t* second = kLast ? kZeroBlock : block + cursor.block_stride;
    return {codes(block, second, unpack), half_pair(block, second), _mm512_setzero_ps()};
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(2); }
};

// Groups of 32: two blocks a step.
template <bool kZero>
struct Grouped32 {
  static constexpr bool kPaired = true;
  static constexpr bool kZeroPoints = kZero;
  static __m512i codes(const uint8_t* block, const uint8_t* second, const Unpack& unpack) {
    constexpr int64_t kHead = kZero ? 4 : 2;
    const __mmask32 bytes = static_cast<__mmask32>((uint64_t{1} << (unpack.stream_bytes / 2)) - 1);
    const __m256i low = _mm256_maskz_loadu_epi8(bytes, block + kHead);
    const __m256i high = _mm256_maskz_loadu_epi8(bytes, second + kHead);
    return unpack.codes(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
  }
  template <bool kLast>
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    const uint8_t* second = kLast ? kZeroBlock : block + cursor.block_stride;
    Step result;
    result.codes = codes(block, second, unpack);
    result.scale = pair(half_value(block, unpack.bf16), half_value(second, unpack.bf16));
    if (kZero) {
      result.zero = _mm512_add_ps(pair(half_value(block + 2, unpack.bf16), half_value(second + 2, unpack.bf16)),
                                  _mm512_set1_ps(unpack.zero_shift));
    }
    return result;
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(2); }
};

// Groups of 64 and more, and whole rows: a step lies in one block.
template <bool kZero>
struct GroupedWide {
  static constexpr bool kPaired = false;
  static constexpr bool kZeroPoints = kZero;
  template <bool kLast>
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    constexpr int64_t kHead = kZero ? 4 : 2;
    // Only the last step of a `_row` block can be short.
    int64_t count = unpack.stream_bytes;
    if (kLast && cursor.block_code_bytes - cursor.code_offset < count) {
      count = cursor.block_code_bytes - cursor.code_offset;
    }
    const __mmask64 bytes = _bzhi_u64(~uint64_t{0}, static_cast<uint32_t>(count));
    Step result;
    result.codes = unpack.codes(_mm512_maskz_loadu_epi8(bytes, block + kHead + cursor.code_offset));
    result.scale = _mm512_set1_ps(half_value(block, unpack.bf16));
    if (kZero) result.zero = _mm512_set1_ps(half_value(block + 2, unpack.bf16) + unpack.zero_shift);
    return result;
  }
  static void advance(Cursor& cursor, const Unpack& unpack) { cursor.next_codes(unpack.stream_bytes); }
};

}  // namespace
