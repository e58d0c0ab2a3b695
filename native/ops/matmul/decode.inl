// What avx2_decode.inl and avx512_decode.inl have in common, over their Vec, CodeDecoder, FloatDecoder, load_stored
// and load_sub: which decoder a format has, scales and offsets of groups, whole weights.
namespace {

template <int kBits, typename Body>
inline __attribute__((always_inline)) void with_code_decoder(const PanelFormat& f, Body&& body) {
  if constexpr (std::is_same_v<Integers<kBits>, FloatTable<kBits>>) {
    body(CodeDecoder<kBits, Integers<kBits>>(f));
  } else if (f.float_table == nullptr) {
    body(CodeDecoder<kBits, Integers<kBits>>(f));
  } else {
    body(CodeDecoder<kBits, FloatTable<kBits>>(f));
  }
}

// Few tables by group stand in registers, more in memory.
template <int kBits, typename Body>
inline __attribute__((always_inline)) void with_chosen_decoder(const PanelFormat& f, Body&& body) {
  if constexpr (kTablesFit<kBits>) {
    if (few_tables(f)) return body(ChosenDecoder<kBits, FewTables<kBits>>(f));
  }
  body(ChosenDecoder<kBits, ManyTables<kBits>>(f));
}

template <int kBits, typename Body>
inline __attribute__((always_inline)) void with_row_decoder(const PanelFormat& f, Body&& body) {
  if (f.scale_type == BL_SCALE_f16) return body(RowTableDecoder<kBits, BL_FORMAT_f16>(f));
  body(RowTableDecoder<kBits, BL_FORMAT_bf16>(f));
}

template <typename Body>
inline __attribute__((always_inline)) void with_own_tables(const PanelFormat& f, Body&& body) {
  const bool chosen = f.value_kind == ValueKind::chosen_table;
  if (f.bits == 2) return chosen ? with_chosen_decoder<2>(f, body) : with_row_decoder<2>(f, body);
  if (f.bits == 3) return chosen ? with_chosen_decoder<3>(f, body) : with_row_decoder<3>(f, body);
  chosen ? with_chosen_decoder<4>(f, body) : with_row_decoder<4>(f, body);
}

// Calls body(decoder) with the decoder of a format. A new kind of value is a struct with value(code), chosen in
// with_code_decoder; values that are float_table[code] need nothing new.
template <typename Body>
inline __attribute__((always_inline)) void with_decoder(const PanelFormat& f, Body&& body) {
  if (f.value_kind == ValueKind::floats) {
    if (f.format == BL_FORMAT_f32) return body(FloatDecoder<BL_FORMAT_f32>(f));
    if (f.format == BL_FORMAT_f16) return body(FloatDecoder<BL_FORMAT_f16>(f));
    return body(FloatDecoder<BL_FORMAT_bf16>(f));
  }
  if (f.value_kind == ValueKind::chosen_table || f.value_kind == ValueKind::row_table) return with_own_tables(f, body);
  switch (f.bits) {
    case 1:
      return with_code_decoder<1>(f, body);
    case 2:
      return with_code_decoder<2>(f, body);
    case 3:
      return with_code_decoder<3>(f, body);
    case 4:
      return with_code_decoder<4>(f, body);
    case 5:
      return with_code_decoder<5>(f, body);
    case 6:
      return with_code_decoder<6>(f, body);
    case 7:
      return with_code_decoder<7>(f, body);
    default:
      return with_code_decoder<8>(f, body);
  }
}

// log2 of min(32, group), the weights of a chunk that share a scale.
inline int segment_log2(const PanelFormat& f) { return f.group == 8 ? 3 : f.group == 16 ? 4 : 5; }

// The group of a panel block that holds the first weight of a chunk.
inline int64_t group_of(const PanelFormat& f, int64_t chunk) {
  if (f.group <= kChunk) return chunk * (kChunk / f.group);
  return f.groups == 1 ? 0 : chunk / (f.group / kChunk);
}
// Stored numbers stand one per canonical block: per group, save for the K types.
inline const uint8_t* header_of(const PanelFormat& f, const uint8_t* headers, int64_t group, int half) {
  const int64_t part = f.sub_bits == 0 ? group : 0;
  return headers + (part * kPanelRows + half * Vec::kLanes) * f.scale_bytes;
}
inline Vec load_sub_scale(const PanelFormat& f, const uint8_t* block, int64_t u, int zero, int half) {
  const uint8_t* bytes = block + f.sub_offset + half * Vec::kLanes;
  if (f.sub_bits == 8) return sub_value(load_sub(bytes + kPanelRows * u, 0, 255), zero);
  // sub_count is 16 or 32: places by mask and compare, not division.
  const int64_t n = f.sub_count / 2;
  const SubScales low = load_sub(bytes + kPanelRows * (u & (n - 1)), u < n ? 0 : 4, 15);
  if (f.sub_bits == 4) return sub_value(low, zero);
  const int64_t quarter = f.sub_count / 4;
  const int shift = static_cast<int>(2 * (static_cast<uint32_t>(u) / static_cast<uint32_t>(quarter)));
  return sub_value(join_sub(low, load_sub(bytes + kPanelRows * (n + (u & (quarter - 1))), shift, 3)), zero);
}

// How weights come from a decoder's values w and two numbers of their group:
//   none   scale * w
//   point  scale * (w - offset), offset the stored zero point (what is whole in it is in the values already)
//   min    scale * w + offset
//   table  scale * w, where w takes tables of the group: in place of its offset stands which (load_tables)
enum class Adjust { none, point, min, table };
inline Adjust adjust_of(const PanelFormat& f) {
  return f.offset_kind == OffsetKind::none         ? Adjust::none
         : f.offset_kind == OffsetKind::zero_point ? Adjust::point
                                                   : Adjust::min;
}

// What decoders of a group's tables need of a panel block, to the place of one group's offsets: chosen_table: where
// the table of each row begins, an int32 per row; row_table: the address of the block, where the tables are.
inline void load_tables(const PanelFormat& f, const uint8_t* block, float* offsets) {
  if (f.value_kind == ValueKind::row_table) {
    std::memcpy(offsets, &block, sizeof(block));
    return;
  }
  for (int half = 0; half < kHalves; ++half) {
    store_table_places(f, block + f.number_offset + half * Vec::kLanes, offsets + half * Vec::kLanes);
  }
}

// Scales and offsets of groups [first, first + count) of a panel block to [count][16] each; offsets only where there
// are some. For floats, and tables of rows: ones.
inline void load_groups(const PanelFormat& f, const uint8_t* block, int64_t first, int64_t count, float* scales,
                        float* offsets) {
  // Tables of floats are multiplied with what is stored.
  const Vec factor = Vec::set(f.float_table == nullptr ? f.scale_factor : 1);
  if (f.value_kind == ValueKind::chosen_table || f.value_kind == ValueKind::row_table) load_tables(f, block, offsets);
  for (int64_t i = 0; i < count; ++i) {
    for (int half = 0; half < kHalves; ++half) {
      const int64_t at = i * kPanelRows + half * Vec::kLanes, group = first + i;
      if (f.value_kind == ValueKind::floats || f.value_kind == ValueKind::row_table) {
        Vec::set(1).store(scales + at);
        continue;
      }
      Vec scale = load_stored(f, header_of(f, block, group, half)) * factor;
      if (f.sub_bits != 0) scale = scale * load_sub_scale(f, block, group, f.sub_zero, half);
      scale.store(scales + at);
      if (f.offset_kind == OffsetKind::none) continue;
      Vec offset = load_stored(f, header_of(f, block + f.offset_offset, group, half));
      if (f.offset_kind == OffsetKind::sub_min) {
        offset = (Vec::set(-0.0f) - offset) * load_sub_scale(f, block, f.sub_count / 2 + group, 0, half);
      }
      offset.store(offsets + at);
    }
  }
}

// Weights 4v to 4v + 3 of `half` with the offset applied, and the scale too where kAdjust is min. scales, offsets: of
// the chunk's first group.
template <Adjust kAdjust, typename Decoder>
inline __attribute__((always_inline)) void adjusted_four(const Decoder& decoder, const typename Decoder::Chunk& chunk,
                                                         int v, int segment_log2, const float* scales,
                                                         const float* offsets, int half, Vec* w) {
  if constexpr (kAdjust == Adjust::table) {
    decoder.four(chunk, v, offsets, half, w);
    return;
  } else {
    decoder.four(chunk, v, w);
  }
  if constexpr (kAdjust == Adjust::none) return;
  const int64_t at = (4 * v >> segment_log2) * kPanelRows + half * Vec::kLanes;
  const Vec offset = Vec::load(offsets + at);
  if constexpr (kAdjust == Adjust::point) {
    for (int j = 0; j < 4; ++j) w[j] = w[j] - offset;
  } else {
    // scale * value is exact in GGUF's formats: fused or not.
    const Vec scale = Vec::load(scales + at);
    for (int j = 0; j < 4; ++j) w[j] = fma(scale, w[j], offset);
  }
}

// out[k][r] = weight k of row r of a chunk; kWhole: of the weights' scale too, else as adjusted_four leaves them.
template <Adjust kAdjust, bool kWhole, typename Decoder>
inline void decode_weights(const PanelFormat& f, const Decoder& decoder, const uint8_t* codes, const float* scales,
                           const float* offsets, float* out) {
  const int segment = segment_log2(f);
  const bool scaled = kWhole && kAdjust != Adjust::min && f.value_kind != ValueKind::floats;
  for (int half = 0; half < kHalves; ++half, out += Vec::kLanes) {
    const typename Decoder::Chunk chunk(codes, half);
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) {
      Vec w[4];
      adjusted_four<kAdjust>(decoder, chunk, v, segment, scales, offsets, half, w);
      if (scaled) {
        const Vec scale = Vec::load(scales + (4 * v >> segment) * kPanelRows + half * Vec::kLanes);
        for (int j = 0; j < 4; ++j) w[j] = scale * w[j];
      }
      for (int j = 0; j < 4; ++j) w[j].store(out + (4 * v + j) * kPanelRows);
    }
  }
}
// Calls body with adjust_of(f) as a constant. Only decoders of integers (kOffsets) meet offsets.
template <typename Decoder, typename Body>
inline __attribute__((always_inline)) void with_adjust(const PanelFormat& f, Body&& body) {
  if constexpr (Decoder::kTables) {
    body(std::integral_constant<Adjust, Adjust::table>());
  } else {
    if constexpr (Decoder::kOffsets) {
      if (adjust_of(f) == Adjust::point) return body(std::integral_constant<Adjust, Adjust::point>());
      // Minimums: q2_k, q4_1, q4_k, q5_1, q5_k.
      constexpr int kBits = Decoder::kBytes / 64;
      if constexpr (kBits == 2 || kBits == 4 || kBits == 5) {
        if (adjust_of(f) == Adjust::min) return body(std::integral_constant<Adjust, Adjust::min>());
      }
    }
    body(std::integral_constant<Adjust, Adjust::none>());
  }
}

// out[k][r] = weight k of row r of chunk `chunk` of a panel block, as panel_weight() gives it, bit for bit.
// out: [32][16] floats, any alignment. Any format.
[[maybe_unused]] inline void decode_chunk(const PanelFormat& f, const uint8_t* block, int64_t chunk, float* out) {
  float scales[4 * kPanelRows], offsets[4 * kPanelRows];
  load_groups(f, block, f.value_kind == ValueKind::floats ? 0 : group_of(f, chunk),
              f.group < kChunk ? kChunk / f.group : 1, scales, offsets);
  with_decoder(f, [&](const auto& decoder) {
    with_adjust<std::decay_t<decltype(decoder)>>(f, [&](auto adjust) {
      decode_weights<adjust(), true>(f, decoder, f.chunk(block, chunk), scales, offsets, out);
    });
  });
}

}  // namespace
