// What avx2_decode.inl and avx512_decode.inl have in common, over their Vec, CodeDecoder, FloatDecoder, load_stored
// and load_sub: which decoder a format has, scales and offsets of groups, whole weights.
namespace {

template <int kBits, typename Body>
inline __attribute__((always_inline)) void with_code_decoder(const PanelFormat& f, Body&& body) {
  if constexpr (std::is_same_v<Integers<kBits>, FloatTable<kBits>>) {
    body(CodeDecoder<kBits, Integers<kBits>>(f));
  } else if (f.has_integer_values()) {
    body(CodeDecoder<kBits, Integers<kBits>>(f));
  } else {
    body(CodeDecoder<kBits, FloatTable<kBits>>(f));
  }
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

// panel_scale() and panel_offset() of eight or sixteen rows, the same bits. Not for floats.
inline Vec group_scale(const PanelFormat& f, const uint8_t* block, int64_t group, int half) {
  const Vec scale = load_stored(f, header_of(f, block, group, half)) * Vec::set(f.scale_factor);
  if (f.sub_bits == 0) return scale;
  return scale * load_sub_scale(f, block, group, f.sub_zero, half);
}
inline Vec group_offset(const PanelFormat& f, const uint8_t* block, int64_t group, int half) {
  const Vec stored = load_stored(f, header_of(f, block + f.offset_offset, group, half));
  if (f.offset_kind == OffsetKind::min) return stored;
  const Vec zero = Vec::set(-0.0f);  // zero - x has the sign of -x for 0 too
  if (f.offset_kind == OffsetKind::zero_point) {
    return (zero - group_scale(f, block, group, half)) * (stored + Vec::set(f.zero_shift));
  }
  return (zero - stored) * load_sub_scale(f, block, f.sub_count / 2 + group, 0, half);
}

// How weights come from values: per 8 weights of a chunk, so that groups of 8 and more look alike.
struct ChunkScales {
  Vec scale[4], zero[4], offset[4];
};
inline void load_chunk_scales(const PanelFormat& f, const uint8_t* block, int64_t chunk, int half, ChunkScales* s) {
  const int64_t first = group_of(f, chunk);
  const bool zero_points = f.offset_kind == OffsetKind::zero_point;
  const bool offsets = f.offset_kind != OffsetKind::none && !zero_points;
  for (int64_t i = 0; i < 4; ++i) {
    if (i != 0 && 8 * i % f.group != 0) {
      s->scale[i] = s->scale[i - 1];
      s->zero[i] = s->zero[i - 1];
      s->offset[i] = s->offset[i - 1];
      continue;
    }
    const int64_t group = first + (f.group < kChunk ? 8 * i / f.group : 0);
    s->scale[i] = group_scale(f, block, group, half);
    s->zero[i] = s->offset[i] = Vec::set(0);
    if (offsets) s->offset[i] = group_offset(f, block, group, half);
    if (zero_points) {
      s->zero[i] = load_stored(f, header_of(f, block + f.offset_offset, group, half)) + Vec::set(f.zero_shift);
    }
  }
}

template <typename Decoder>
inline void decode_weights(const PanelFormat& f, const Decoder& decoder, const uint8_t* block, int64_t chunk,
                           float* out) {
  const uint8_t* codes = f.chunk(block, chunk);
  for (int half = 0; half < kHalves; ++half, out += Vec::kLanes) {
    if (f.value_kind == ValueKind::floats) {
      decoder.decode(codes, half, [&](int k, Vec w) __attribute__((always_inline)) { w.store(out + 16 * k); });
      continue;
    }
    ChunkScales s;
    load_chunk_scales(f, block, chunk, half, &s);
    if (f.offset_kind == OffsetKind::none) {
      decoder.decode(codes, half, [&](int k, Vec w) __attribute__((always_inline)) {
        (s.scale[k / 8] * w).store(out + 16 * k);
      });
    } else if (f.offset_kind == OffsetKind::zero_point) {
      decoder.decode(codes, half, [&](int k, Vec w) __attribute__((always_inline)) {
        (s.scale[k / 8] * (w - s.zero[k / 8])).store(out + 16 * k);
      });
    } else {  // scale * value is exact: fused or not
      decoder.decode(codes, half, [&](int k, Vec w) __attribute__((always_inline)) {
        fma(s.scale[k / 8], w, s.offset[k / 8]).store(out + 16 * k);
      });
    }
  }
}

// out[k][r] = weight k of row r of chunk `chunk` of a panel block, as panel_weight() gives it, bit for bit.
// out: [32][16] floats, any alignment. Any format.
[[maybe_unused]] inline void decode_chunk(const PanelFormat& f, const uint8_t* block, int64_t chunk, float* out) {
  with_decoder(f, [&](const auto& decoder) { decode_weights(f, decoder, block, chunk, out); });
}

}  // namespace
