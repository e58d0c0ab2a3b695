// Unpacking for matmul_dequant_i8, at every ARM level; included inside a region after the level's Products:
//
//   kMostRows     of a at a time
//   kSigned       whether its products are of signed by signed bytes: values above 127 are then less 128, and
//                 128 times the sum of the activations is added
//   Products<kRows, kTogether>::add<kParts, quarter>(values, codes, stride, products): products[r][p].q[quarter] +=
//                 the sums of the p-th part of values[v], v in [0, 8), bytes 4r + j, times codes[r * stride + 4v + j]
//
// A panel is taken in quarters of four rows: 8 registers of values, which then meet one row of a after the other
// (2 registers of codes and the sums each), so that nothing but the panel's own sums waits in memory.

namespace {

constexpr bool kTablesDiffer = false;  // a lookup gives a byte at once
constexpr Values kSmallTableForm = Values::byte_table;

// Bits [shift, shift + width) of every byte become its bits [to, to + width), the others 0.
template <int width, int shift, int to>
inline uint8x16_t field(uint8x16_t x) {
  if constexpr (shift > to) x = vshrq_n_u8(x, shift - to);
  if constexpr (shift < to) x = vshlq_n_u8(x, to - shift);
  constexpr bool kClean = (shift > to && shift + width == 8 && to == 0) || (shift == 0 && to + width == 8);
  return kClean ? x : vandq_u8(x, vdupq_n_u8(((1 << width) - 1) << to));
}

template <typename Body, int... v>
inline __attribute__((always_inline)) void unroll(Body&& body, std::integer_sequence<int, v...>) {
  (body(std::integral_constant<int, v>{}), ...);
}

// Sub-scales as signed bytes [sub][16], `zero` subtracted. kSubBits 4: 32 of them; 6 and 8: 16.
template <int kSubBits>
inline void unpack_subs(const uint8_t* packed, int32_t zero, int8_t* subs) {
  const uint8x16_t zeros = vdupq_n_u8(static_cast<uint8_t>(zero));
  const auto store = [&](int at, uint8x16_t x) {
    vst1q_s8(subs + 16 * at, vreinterpretq_s8_u8(vsubq_u8(x, zeros)));
  };
  if constexpr (kSubBits == 8) {
    for (int i = 0; i < 16; ++i) store(i, vld1q_u8(packed + 16 * i));
    return;
  }
  constexpr int kRuns = kSubBits == 4 ? 16 : 8;
  for (int i = 0; i < kRuns; ++i) {
    const uint8x16_t nibbles = vld1q_u8(packed + 16 * i);
    uint8x16_t low = field<4, 0, 0>(nibbles);
    uint8x16_t high = field<4, 4, 0>(nibbles);
    if constexpr (kSubBits == 6) {
      const uint8x16_t pairs = vld1q_u8(packed + 128 + 16 * (i % 4));
      low = vorrq_u8(low, i < 4 ? field<2, 0, 4>(pairs) : field<2, 2, 4>(pairs));
      high = vorrq_u8(high, i < 4 ? field<2, 4, 4>(pairs) : field<2, 6, 4>(pairs));
    }
    store(i, low);
    store(kRuns + i, high);
  }
}
inline Lanes lanes_of_bytes(const int8_t* bytes) {
  const int8x16_t all = vld1q_s8(bytes);
  const int16x8_t low = vmovl_s8(vget_low_s8(all)), high = vmovl_high_s8(all);
  return lanes_of_ints({{vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)),
                         vmovl_high_s16(high)}});
}

// Bytes 16j + r of a run of 64 to 4r + j.
struct Rows {
  uint8x16_t q[4];

  static Rows of_run(const uint8_t* run) {
    const uint8x16_t first = vld1q_u8(run), second = vld1q_u8(run + 16);
    const uint8x16_t third = vld1q_u8(run + 32), fourth = vld1q_u8(run + 48);
    const uint8x16_t even_low = vzip1q_u8(first, third), even_high = vzip2q_u8(first, third);
    const uint8x16_t odd_low = vzip1q_u8(second, fourth), odd_high = vzip2q_u8(second, fourth);
    return {{vzip1q_u8(even_low, odd_low), vzip2q_u8(even_low, odd_low), vzip1q_u8(even_high, odd_high),
             vzip2q_u8(even_high, odd_high)}};
  }
};

template <typename F>
class Unpack {
 public:
  explicit Unpack(const PanelFormat& f) {
    for (int i = 0; i < 64; ++i) table_[i] = static_cast<uint8_t>(f.table[i] ^ kFlip);
  }

  // products[r][p] += the chunk's values times codes[r * 32 + [0, 32)], p-th part.
  template <int kRows>
  inline __attribute__((always_inline)) void multiply(const uint8_t* chunk, const int8_t* codes,
                                                      Ints (&products)[kRows][F::kParts]) const {
    constexpr int64_t stride = kChunk;
    if constexpr (kFlip != 0) add_excess<kRows>(codes, stride, products);
    Planes planes;
    if constexpr (kTwos) {
      planes.twos[0] = Rows::of_run(chunk + 64 * kTwosAt);
      planes.twos[1] = Rows::of_run(chunk + 64 * kTwosAt + 64);
    }
    if constexpr (kOnes) planes.ones = Rows::of_run(chunk + 64 * kOnesAt);
    unroll(
        [&](auto quarter) __attribute__((always_inline)) {
          uint8x16_t values[8];
          unroll([&](auto v) __attribute__((always_inline)) { values[v] = value<v, quarter>(chunk, planes); },
                 std::make_integer_sequence<int, 8>{});
          Products<kRows, kTogether>::template add<F::kParts, quarter>(values, codes, stride, products);
        },
        std::make_integer_sequence<int, 4>{});
  }

 private:
  static constexpr bool kFours = F::kBits != 8 && (F::kBits & 4) != 0;
  static constexpr bool kTwos = F::kBits != 8 && (F::kBits & 2) != 0;
  static constexpr bool kOnes = F::kBits != 8 && (F::kBits & 1) != 0;
  static constexpr int kTwosAt = kFours ? 4 : 0;  // place in a code
  static constexpr int kOnesAt = kTwosAt + (kTwos ? 2 : 0);
  static constexpr int kFlip = kSigned && (F::kTable || F::kBits == 8) ? 128 : 0;

  // As many products of values of at most this size as int16 holds, of the two that meet in a pair.
  static constexpr int kMaxValue = F::kTable || F::kBits == 8 ? 128 : ((1 << F::kBits) - 1) << F::kShift;
  static constexpr int kFits = 32767 / (127 * kMaxValue);
  static constexpr int kPart = 8 / F::kParts;  // vectors of a group
  static constexpr int kTogether = kFits >= kPart ? kPart : kFits >= 4 ? 4 : 2;

  struct Planes {
    Rows twos[2];
    Rows ones;
  };

  template <int v, int quarter>
  inline __attribute__((always_inline)) uint8x16_t value(const uint8_t* chunk, const Planes& planes) const {
    if constexpr (F::kBits == 8) {
      const uint8x16_t code = vld1q_u8(chunk + 64 * v + 16 * quarter);
      return kFlip == 0 ? code : veorq_u8(code, vdupq_n_u8(kFlip));
    } else {
      uint8x16_t code{};
      if constexpr (kFours) code = field<4, v / 4 * 4, 0>(vld1q_u8(chunk + 64 * (v % 4) + 16 * quarter));
      if constexpr (kTwos) {
        const uint8x16_t twos = field<2, 2 * (v / 2), kTwosAt>(planes.twos[v % 2].q[quarter]);
        code = kFours ? vorrq_u8(code, twos) : twos;
      }
      if constexpr (kOnes) {
        const uint8x16_t ones = field<1, v, kOnesAt + F::kShift>(planes.ones.q[quarter]);
        code = kFours || kTwos ? vorrq_u8(code, ones) : ones;
      }
      if constexpr (F::kTable && F::kBits == 4) return vqtbl1q_u8(vld1q_u8(table_), code);
      if constexpr (F::kTable && F::kBits == 6) return vqtbl4q_u8(vld1q_u8_x4(table_), code);
      return code;
    }
  }

  // 128 times the sums of the activations.
  template <int kRows>
  static inline __attribute__((always_inline)) void add_excess(const int8_t* codes, int64_t stride,
                                                               Ints (&products)[kRows][F::kParts]) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      // Eights, each by pairs of sums that belong together.
      const int16x8_t first = vpaddlq_s8(vld1q_s8(codes + r * stride));
      const int16x8_t second = vpaddlq_s8(vld1q_s8(codes + r * stride + 16));
      int32x4_t eights = vpaddlq_s16(vpaddq_s16(first, second));
#pragma GCC unroll 2
      for (int parts = 4; parts > F::kParts; parts /= 2) eights = vpaddq_s32(eights, eights);
      eights = vshlq_n_s32(eights, 7);
#pragma GCC unroll 4
      for (int p = 0; p < F::kParts; ++p) {
        const int32x4_t excess = p == 0   ? vdupq_laneq_s32(eights, 0)
                                 : p == 1 ? vdupq_laneq_s32(eights, 1)
                                 : p == 2 ? vdupq_laneq_s32(eights, 2)
                                          : vdupq_laneq_s32(eights, 3);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) products[r][p].q[i] = vaddq_s32(products[r][p].q[i], excess);
      }
    }
  }

  alignas(16) uint8_t table_[64];
};

}  // namespace
