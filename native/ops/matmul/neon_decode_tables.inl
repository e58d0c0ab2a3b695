// Decoders of formats whose groups and rows have tables of their own, at level neon: one weight after the other. The
// same names as in avx512_decode_tables.inl, which explains them.

namespace {

template <int kBits>
constexpr bool kTablesFit = false;
inline bool few_tables(const PanelFormat&) { return false; }
template <int kBits>
struct FewTables;

inline void store_table_places(const PanelFormat& f, const uint8_t* numbers, float* places) {
  int32_t first[Vec::kLanes];
  for (int64_t i = 0; i < Vec::kLanes; ++i) {
    const int32_t number = numbers[i];
    first[i] = (number < f.tables.count ? number : f.tables.count - 1) << f.bits;
  }
  std::memcpy(places, first, sizeof(first));
}

// w[j] = entry(row, code) of the four weights of eight rows.
template <int kBits, typename Entry>
inline void look_up_four(Dwords codes, Vec* w, Entry&& entry) {
  uint8_t bytes[4 * Vec::kLanes];
  vst1q_u8(bytes, vreinterpretq_u8_u32(codes.low));
  vst1q_u8(bytes + 16, vreinterpretq_u8_u32(codes.high));
  for (int j = 0; j < 4; ++j) {
    float values[Vec::kLanes];
    for (int row = 0; row < static_cast<int>(Vec::kLanes); ++row) {
      values[row] = entry(row, static_cast<uint32_t>(bytes[4 * row + j] & ((1 << kBits) - 1)));
    }
    w[j] = Vec::load(values);
  }
}

template <int kBits>
struct ManyTables {
  const float* values;
  explicit ManyTables(const PanelFormat& f) : values(f.tables.values) {}
};

template <int kBits, typename Tables>
struct ChosenDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true, kOffsets = false, kTables = true;
  Tables tables;

  explicit ChosenDecoder(const PanelFormat& f) : tables(f) {}
  using Chunk = Codes<kBits>;
  void four(const Chunk& chunk, int v, const float* places, int half, Vec* w) const {
    int32_t first[Vec::kLanes];
    std::memcpy(first, places + half * Vec::kLanes, sizeof(first));
    look_up_four<kBits>(chunk.vector(v), w,
                        [&](int row, uint32_t code) { return tables.values[first[row] + static_cast<int32_t>(code)]; });
  }
};

template <int kBits, int kFormat>
struct RowTableDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true, kOffsets = false, kTables = true;
  const PanelFormat* format;

  explicit RowTableDecoder(const PanelFormat& f) : format(&f) {}
  using Chunk = Codes<kBits>;
  void four(const Chunk& chunk, int v, const float* tables, int half, Vec* w) const {
    const uint8_t* block;
    std::memcpy(&block, tables, sizeof(block));
    look_up_four<kBits>(chunk.vector(v), w, [&](int row, uint32_t code) {
      return row_table_entry(*format, block, half * Vec::kLanes + row, code);
    });
  }
};

}  // namespace
