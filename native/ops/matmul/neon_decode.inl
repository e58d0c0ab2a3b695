// Panels to f32 at level neon, eight rows (half a panel) at a time: included inside the region that
// isa/neon_begin.h opens, after panel.h, <arm_neon.h> and isa/simd_neon.inl. The same names as in
// avx512_decode.inl, which explains them.
#include "neon_scales.inl"

namespace {

constexpr int kHalves = 2;

// What is taken off value(code): zero, and of zero points the part that all groups share.
inline int32_t value_bias(const PanelFormat& f) { return f.zero + static_cast<int32_t>(f.zero_shift); }

// Dwords of eight rows, of four weights each.
struct Dwords {
  uint32x4_t low, high;

  static Dwords load(const uint8_t* p) {
    return {vreinterpretq_u32_u8(vld1q_u8(p)), vreinterpretq_u32_u8(vld1q_u8(p + 16))};
  }
  // n > 0: to the right
  Dwords shift(int n) const {
    const int32x4_t by = vdupq_n_s32(-n);
    return n == 0 ? *this : Dwords{vshlq_u32(low, by), vshlq_u32(high, by)};
  }
  // Bits of `first` where every byte of the mask has them, of `second` elsewhere.
  static Dwords select(int mask, Dwords first, Dwords second) {
    const uint32x4_t bits = vdupq_n_u32(0x01010101u * static_cast<uint32_t>(mask));
    return {vbslq_u32(bits, first.low, second.low), vbslq_u32(bits, first.high, second.high)};
  }
};

template <int kBits>
struct Codes {
  const uint8_t* chunk;  // of the half: where its first row's dword is
  Dwords two[2], one;

  static constexpr int kOffsetOfTwo = kBits >= 4 ? 256 : 0;
  static constexpr int kOffsetOfOne = 64 * (kBits - 1);

  // Bytes 16j + r of a run to 4r + j.
  static Dwords turn(const uint8_t* run) {
    const uint8x8_t first = vld1_u8(run), second = vld1_u8(run + 16);
    const uint8x8_t third = vld1_u8(run + 32), fourth = vld1_u8(run + 48);
    const uint8x16_t even = vcombine_u8(vzip1_u8(first, third), vzip2_u8(first, third));
    const uint8x16_t odd = vcombine_u8(vzip1_u8(second, fourth), vzip2_u8(second, fourth));
    return {vreinterpretq_u32_u8(vzip1q_u8(even, odd)), vreinterpretq_u32_u8(vzip2q_u8(even, odd))};
  }

  Codes(const uint8_t* at, int half) : chunk(at + 32 * half) {
    if constexpr (kBits < 8 && (kBits & 2) != 0) {
      two[0] = turn(at + kOffsetOfTwo + 8 * half);
      two[1] = turn(at + kOffsetOfTwo + 64 + 8 * half);
    }
    if constexpr (kBits < 8 && (kBits & 1) != 0) one = turn(at + kOffsetOfOne + 8 * half);
  }

  inline __attribute__((always_inline)) Dwords vector(int v) const {
    if constexpr (kBits == 8) return Dwords::load(chunk + 64 * v);
    if constexpr (kBits == 1) return one.shift(v);
    if constexpr (kBits == 2) return two[v % 2].shift(v / 2 * 2);
    if constexpr (kBits == 3) return Dwords::select(3, two[v % 2].shift(v / 2 * 2), one.shift(v - 2));
    if constexpr (kBits >= 4 && kBits < 8) {
      Dwords codes = Dwords::load(chunk + 64 * (v % 4)).shift(v / 4 * 4);
      if constexpr ((kBits & 2) != 0) codes = Dwords::select(15, codes, two[v % 2].shift(v / 2 * 2 - 4));
      if constexpr ((kBits & 1) != 0) {
        codes = Dwords::select((1 << (kBits - 1)) - 1, codes, one.shift(v - (kBits - 1)));
      }
      return codes;
    }
  }
};

// Integers: the code as float, and the bias off it; both exact. Integer tables of at most 16 entries are looked up
// four weights at a time before.
template <int kBits>
struct IntegerValues {
  float32x4_t bias, factor;  // factor: codes of 1 bit count 2 where they are signs
  uint8x16_t entries;
  uint32x4_t mask;
  bool table;

  explicit IntegerValues(const PanelFormat& f)
      : bias(vdupq_n_f32(static_cast<float>(-value_bias(f)))),
        factor(vdupq_n_f32(static_cast<float>(1 << f.shift))),
        entries(vld1q_u8(f.table)),
        mask(vdupq_n_u32(f.value_kind == ValueKind::table ? 255 : (1 << kBits) - 1)),
        table(f.value_kind == ValueKind::table) {}
  Dwords prepare(Dwords codes) const {
    if constexpr (kBits > 4) return codes;
    if (!table) return codes;
    const auto look_up = [this](uint32x4_t x) {
      const uint8x16_t at = vandq_u8(vreinterpretq_u8_u32(x), vdupq_n_u8((1 << kBits) - 1));
      return vreinterpretq_u32_u8(vqtbl1q_u8(entries, at));
    };
    return {look_up(codes.low), look_up(codes.high)};
  }
  float32x4_t four(uint32x4_t code) const {
    const float32x4_t number = vcvtq_f32_u32(vandq_u32(code, mask));
    return kBits == 1 ? vfmaq_f32(bias, number, factor) : vaddq_f32(number, bias);
  }
  Vec value(Dwords code) const { return {four(code.low), four(code.high)}; }
};

// Values by tables: of 16 floats in four registers, by the bytes of an entry; longer ones in memory.
template <int kBits>
struct TableValues {
  const float* table;
  uint8x16x4_t entries;

  explicit TableValues(const PanelFormat& f) : table(f.float_table) {
    float all[16] = {};
    if constexpr (kBits <= 4) {
      for (int i = 0; i < 16; ++i) all[i] = table[i & ((1 << kBits) - 1)];
    }
    entries = vld1q_u8_x4(reinterpret_cast<const uint8_t*>(all));
  }
  Dwords prepare(Dwords codes) const { return codes; }
  float32x4_t four(uint32x4_t code) const {
    const uint32x4_t index = vandq_u32(code, vdupq_n_u32((1 << kBits) - 1));
    if constexpr (kBits <= 4) {
      // Bytes 4 code to 4 code + 3.
      const uint32x4_t bytes = vmlaq_u32(vdupq_n_u32(0x03020100), index, vdupq_n_u32(0x04040404));
      return vreinterpretq_f32_u8(vqtbl4q_u8(entries, vreinterpretq_u8_u32(bytes)));
    } else {
      const float lanes[4] = {table[vgetq_lane_u32(index, 0)], table[vgetq_lane_u32(index, 1)],
                              table[vgetq_lane_u32(index, 2)], table[vgetq_lane_u32(index, 3)]};
      return vld1q_f32(lanes);
    }
  }
  Vec value(Dwords code) const { return {four(code.low), four(code.high)}; }
};

template <int kBits>
using Integers = IntegerValues<kBits>;
template <int kBits>
using FloatTable = TableValues<kBits>;

template <int kBits, typename Values>
struct CodeDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true;
  static constexpr bool kOffsets = std::is_same_v<Values, Integers<kBits>>, kTables = false;
  Values values;

  explicit CodeDecoder(const PanelFormat& f) : values(f) {}
  using Chunk = Codes<kBits>;
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, Vec* w) const {
    const Dwords codes = values.prepare(chunk.vector(v));
    w[0] = values.value(codes);
    w[1] = values.value(codes.shift(8));
    w[2] = values.value(codes.shift(16));
    w[3] = values.value(codes.shift(24));
  }
};

template <int kFormat>
struct FloatDecoder {
  static constexpr int kBytes = kFormat == BL_FORMAT_f32 ? 2048 : 1024;
  static constexpr bool kCodes = false;
  static constexpr bool kOffsets = false, kTables = false;

  explicit FloatDecoder(const PanelFormat&) {}
  struct Chunk {
    const uint8_t* runs;
    Chunk(const uint8_t* at, int half) : runs(at + 32 * half) {}
  };
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, Vec* w) const {
    if constexpr (kFormat == BL_FORMAT_f32) {
      for (int j = 0; j < 4; ++j) w[j] = floats(Dwords::load(chunk.runs + 64 * (4 * v + j)));
    } else {
      for (int i = 0; i < 2; ++i) two(Dwords::load(chunk.runs + 64 * (2 * v + i)), w + 2 * i);
    }
  }
  static Vec floats(Dwords x) { return {vreinterpretq_f32_u32(x.low), vreinterpretq_f32_u32(x.high)}; }
  static inline __attribute__((always_inline)) void two(Dwords pairs, Vec* w) {
    if constexpr (kFormat == BL_FORMAT_bf16) {
      const uint32x4_t second = vdupq_n_u32(0xffff0000u);
      w[0] = floats({vshlq_n_u32(pairs.low, 16), vshlq_n_u32(pairs.high, 16)});
      w[1] = floats({vandq_u32(pairs.low, second), vandq_u32(pairs.high, second)});
      return;
    }
    const uint16x8_t low = vreinterpretq_u16_u32(pairs.low), high = vreinterpretq_u16_u32(pairs.high);
    const uint16x8_t even = vuzp1q_u16(low, high), odd = vuzp2q_u16(low, high);
    w[0] = {f16_scales(vget_low_u16(even)), f16_scales(vget_high_u16(even))};
    w[1] = {f16_scales(vget_low_u16(odd)), f16_scales(vget_high_u16(odd))};
  }
};

inline Vec load_stored(const PanelFormat& f, const uint8_t* bytes) {
  if (f.scale_type == BL_SCALE_e8m0 || f.scale_type == BL_SCALE_e4m3) {
    const uint16x8_t wide = vmovl_u8(vld1_u8(bytes));
    const uint16x4_t low = vget_low_u16(wide), high = vget_high_u16(wide);
    if (f.scale_type == BL_SCALE_e8m0) return {exponent_scales(low), exponent_scales(high)};
    return {e4m3_scales(low), e4m3_scales(high)};
  }
  const uint16x8_t halves = vreinterpretq_u16_u8(vld1q_u8(bytes));
  const uint16x4_t low = vget_low_u16(halves), high = vget_high_u16(halves);
  if (f.scale_type == BL_SCALE_f16) return {f16_scales(low), f16_scales(high)};
  return {bf16_scales(low), bf16_scales(high)};
}

using SubScales = Dwords;
inline SubScales load_sub(const uint8_t* bytes, int shift, int mask) {
  const uint16x8_t wide = vmovl_u8(vld1_u8(bytes));
  const Dwords all = Dwords{vmovl_u16(vget_low_u16(wide)), vmovl_high_u16(wide)}.shift(shift);
  const uint32x4_t bits = vdupq_n_u32(static_cast<uint32_t>(mask));
  return {vandq_u32(all.low, bits), vandq_u32(all.high, bits)};
}
inline SubScales join_sub(SubScales low, SubScales high) {
  return {vorrq_u32(low.low, vshlq_n_u32(high.low, 4)), vorrq_u32(low.high, vshlq_n_u32(high.high, 4))};
}
inline Vec sub_value(SubScales sub, int zero) {
  const int32x4_t zeros = vdupq_n_s32(zero);
  return {vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(sub.low), zeros)),
          vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(sub.high), zeros))};
}

}  // namespace

#include "neon_decode_tables.inl"

#include "decode.inl"
