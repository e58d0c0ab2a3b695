// Weights to int8 for algorithm tile (tile.h): the scales of a block, then chunk by chunk. Included in regions of levels
// avx512 and amx, after avx512_tile_scales.inl and avx512_tile_codes.inl.
//
// Budget of a vector of 64 weights in 4 bits: 1.5 shifts, 2 vpermw, 2 vpmulhrsw, 2 additions, a shift, a
// vpternlogd = 9.5 instructions on two ports, 76 cycles per 1024 weights; scales add 1.1 at groups of 32. 1 to 3
// bits: the int8 of all codes of sixteen rows are a table of at most 128 bytes, so that a vector costs a shift, a
// vpternlogd and a vpermb, and each group some 12 for the table.

// What the re-scaling of a panel's block of kTileDepth weights reads.
struct PanelScales {
  alignas(64) uint32_t m[kTileDepth / 8][16];  // of a group, twice: a word for either byte of a word
  alignas(64) uint32_t h[kTileDepth / 8][16];  // h + 128, and + 2^15 where w8 is wanted as w8 + 128
};
struct PanelSteps {
  alignas(64) float step[16];
  alignas(64) float offset[16];  // exact formats: o
};

// Low words of v, twice.
inline __m512i twice(__m512i v) {
  return _mm512_or_si512(_mm512_slli_epi32(v, 16), _mm512_and_si512(v, _mm512_set1_epi32(0xffff)));
}

// Scales of the block of columns [begin, begin + 512) of a panel. bias: what h begins with.
inline void prepare_scales(const PanelFormat& f, const TileRecipe& r, const uint8_t* panel, int64_t begin, int bias,
                           PanelScales* scales, PanelSteps* steps) {
  const __m512i bias_words = _mm512_set1_epi16(static_cast<short>(bias));
  const int64_t end = begin + kTileDepth < f.cols ? begin + kTileDepth : f.cols;
  const uint8_t* block = panel + begin / f.elements * f.block_bytes;
  int64_t i = begin % f.elements;
  const __m512 centre = _mm512_set1_ps(r.centre);
  if (r.exact) {
    const Scales s = group_scales(f, block, 0);
    _mm512_store_ps(steps->step, s.scale);
    _mm512_store_ps(steps->offset, _mm512_fmadd_ps(s.scale, centre, s.offset));
    _mm512_store_si512(scales->m[0], _mm512_set1_epi16(static_cast<short>(r.exact_multiplier)));
    _mm512_store_si512(scales->h[0], bias_words);
    return;
  }
  // First pass: scales and offsets as f32 where m and h will be.
  __m512 largest = _mm512_setzero_ps();
  __mmask16 finite = 0xffff;
  int64_t count = 0;
  for (int64_t k = begin; k < end; k += f.group, ++count) {
    const Scales s = group_scales(f, block, i);
    const __m512 offset = r.has_offsets ? _mm512_fmadd_ps(s.scale, centre, s.offset) : _mm512_setzero_ps();
    const __m512 bound = _mm512_fmadd_ps(_mm512_abs_ps(s.scale), _mm512_set1_ps(r.spread), _mm512_abs_ps(offset));
    finite = _mm512_mask_cmp_ps_mask(finite, bound, _mm512_set1_ps(__builtin_inff()), _CMP_LT_OQ);
    largest = _mm512_max_ps(largest, bound);
    _mm512_store_ps(scales->m[count], s.scale);
    _mm512_store_ps(scales->h[count], offset);
    i += f.group;
    if (i >= f.elements) {
      i = 0;
      block += f.block_bytes;
    }
  }
  const __mmask16 good = _mm512_mask_cmp_ps_mask(finite, largest, _mm512_set1_ps(kTileLeast), _CMP_GE_OQ);
  const __m512 step = _mm512_maskz_div_ps(good, largest, _mm512_set1_ps(r.levels));
  _mm512_store_ps(steps->step, _mm512_mask_mov_ps(_mm512_set1_ps(__builtin_nanf("")), finite, step));
  const __m512 multiplier = _mm512_maskz_div_ps(good, _mm512_set1_ps(r.unit), step);
  const __m512 shift = _mm512_maskz_div_ps(good, _mm512_set1_ps(256.0f), step);
  for (int64_t g = 0; g < count; ++g) {  // not a number becomes 0x80000000, of which the low word is 0
    const __m512 m = _mm512_mul_ps(_mm512_load_ps(scales->m[g]), multiplier);
    _mm512_store_si512(scales->m[g], twice(_mm512_cvtps_epi32(m)));
    if (!r.has_offsets) {
      _mm512_store_si512(scales->h[g], bias_words);
      continue;
    }
    const __m512i h = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(scales->h[g]), shift));
    _mm512_store_si512(scales->h[g], _mm512_add_epi16(twice(h), bias_words));
  }
}

// How a code becomes a word x: by a table of words, in place for integers of 5 bits and more; or how it becomes int8 at once:
// by a table of bytes (1 to 3 bits), as it is (`_row` of 8 bits).
enum class Map { words, shifted, bytes, direct };

// Even and odd bytes' words of x to int8 (or + 128).
inline __m512i rescale(__m512i even, __m512i odd, __m512i m, __m512i h) {
  even = _mm512_add_epi16(_mm512_mulhrs_epi16(even, m), h);
  odd = _mm512_add_epi16(_mm512_mulhrs_epi16(odd, m), h);
  const __m512i high = _mm512_set1_epi16(static_cast<short>(0xff00));
  return _mm512_ternarylogic_epi32(_mm512_srli_epi16(even, 8), odd, high, 0xf8);
}

// x of codes of 4 to 8 bits, one in the low byte of every word; bits above them are ignored.
template <int kBits>
inline __m512i table_words(const __m512i* x, __m512i codes) {
  if constexpr (kBits <= 5) return _mm512_permutexvar_epi16(codes, x[0]);
  const __m512i low = _mm512_permutex2var_epi16(x[0], codes, x[1]);
  if constexpr (kBits == 6) return low;
  const __m512i pairs[3] = {_mm512_permutex2var_epi16(x[2], codes, x[3]), _mm512_permutex2var_epi16(x[4], codes, x[5]),
                            _mm512_permutex2var_epi16(x[6], codes, x[7])};
  const __mmask32 six = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(64));
  const __mmask32 seven = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(128));
  return _mm512_mask_blend_epi16(seven, _mm512_mask_blend_epi16(six, low, pairs[0]),
                                 _mm512_mask_blend_epi16(six, pairs[1], pairs[2]));
}

// A chunk of sixteen rows to tile rows: out [8][64]. x: the recipe's, as words for Map::words (4 bits: twice), as
// unpack_table() writes them for Map::bytes, the words to flip for Map::shifted. m, h: of the groups that the chunk meets.
template <int kBits, Map kMap, int kParts>
void unpack_chunk(const __m512i* x, const uint8_t* chunk, const uint32_t* m_words, const uint32_t* h_words,
                  uint8_t* out) {
  constexpr int kVectors = 8 / kParts;  // that share a scale
  __m512i* tiles = reinterpret_cast<__m512i*>(out);
  __m512i m[kParts], h[kParts];
  for (int part = 0; part < kParts; ++part) {
    m[part] = _mm512_load_si512(m_words + 16 * part);
    h[part] = _mm512_load_si512(h_words + 16 * part);
  }
  if constexpr (kMap == Map::bytes) {
    const __m512i rows = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                            _mm512_set1_epi32(0x04040404));
    __m512i codes[8], low[kParts], high[kParts];
    for (int part = 0; part < kParts; ++part) {
      low[part] = rescale(x[0], x[1], m[part], h[part]);
      if constexpr (kBits == 3) high[part] = rescale(x[2], x[3], m[part], h[part]);
    }
    chunk_codes<kBits, 6>(chunk, rows, codes);
    for_vectors([&]<int kV>() {
      constexpr int kPart = kV / kVectors;
      if constexpr (kBits == 3) {
        tiles[kV] = _mm512_permutex2var_epi8(low[kPart], codes[kV], high[kPart]);
      } else {
        tiles[kV] = _mm512_permutexvar_epi8(codes[kV], low[kPart]);
      }
    });
  } else if constexpr (kMap == Map::words && kBits == 4) {
    const __m512i* runs = reinterpret_cast<const __m512i*>(chunk);
    const __m512i table = x[0];
    for (int i = 0; i < 4; ++i) {
      const __m512i run = _mm512_loadu_si512(runs + i);
      constexpr int kHalf = kParts == 1 ? 0 : kParts / 2;
      const int part = i / kVectors;
      tiles[i] = rescale(_mm512_permutexvar_epi16(run, table),
                         _mm512_permutexvar_epi16(_mm512_srli_epi16(run, 8), table), m[part], h[part]);
      tiles[i + 4] = rescale(_mm512_permutexvar_epi16(_mm512_srli_epi16(run, 4), table),
                             _mm512_permutexvar_epi16(_mm512_srli_epi16(run, 12), table), m[part + kHalf],
                             h[part + kHalf]);
    }
  } else {
    __m512i codes[8];
    chunk_codes<kBits>(chunk, _mm512_setzero_si512(), codes);
    for_vectors([&]<int kV>() {
      constexpr int kPart = kV / kVectors;
      if constexpr (kMap == Map::direct) {
        tiles[kV] = _mm512_xor_si512(codes[kV], x[0]);
        return;
      }
      __m512i even, odd;
      if constexpr (kMap == Map::words) {
        even = table_words<kBits>(x, codes[kV]);
        odd = table_words<kBits>(x, _mm512_srli_epi16(codes[kV], 8));
      } else {
        // (a & mask) ^ flip
        const __m512i mask = _mm512_set1_epi16(static_cast<short>(0xffff << (16 - kBits)));
        even = _mm512_xor_si512(_mm512_slli_epi16(codes[kV], 16 - kBits), x[0]);
        odd = _mm512_ternarylogic_epi32(_mm512_slli_epi16(codes[kV], 8 - kBits), mask, x[0], 0x6a);
      }
      tiles[kV] = rescale(even, odd, m[kPart], h[kPart]);
    });
  }
}

using UnpackChunk = void (*)(const __m512i* x, const uint8_t* chunk, const uint32_t* m, const uint32_t* h,
                             uint8_t* out);

template <int kBits, Map kMap>
UnpackChunk unpack_of(int64_t group) {
  if constexpr (kMap == Map::direct) return unpack_chunk<kBits, kMap, 1>;
  return group >= kChunk ? unpack_chunk<kBits, kMap, 1>
         : group == 16   ? unpack_chunk<kBits, kMap, 2>
                         : unpack_chunk<kBits, kMap, 4>;
}

// A format's way, and the constants it reads.
struct Unpacker {
  UnpackChunk run;
  alignas(64) int16_t x[256];

  // is_unsigned: w8 + 128 is wanted.
  Unpacker(const PanelFormat& f, const TileRecipe& r, bool is_unsigned) {
    const bool integer = f.value_kind == ValueKind::integer;
    const bool shifted = f.bits >= 5 && integer;
    if (f.bits <= 3) {
      // Dwords of even and odd bytes' words: codes 0, 2 and 1, 3; then 4, 6 and 5, 7.
      for (int i = 0; i < 128; ++i) {
        const int code = i / 64 * 4 + 2 * (i % 2) + i / 32 % 2;
        x[i] = code < 1 << f.bits ? r.x[code] : int16_t{0};
      }
    } else if (f.bits == 8 && r.exact && integer) {
      std::memset(x, is_unsigned ? 0 : 0x80, sizeof(x));  // value - zero - centre = code - 128
    } else if (shifted) {
      std::fill_n(x, 256, r.x[0]);
    } else {
      for (int i = 0; i < 256; ++i) x[i] = r.x[f.bits == 4 ? i % 16 : i % (1 << f.bits)];
    }
    switch (f.bits) {
      case 1: run = unpack_of<1, Map::bytes>(f.group); break;
      case 2: run = unpack_of<2, Map::bytes>(f.group); break;
      case 3: run = unpack_of<3, Map::bytes>(f.group); break;
      case 4: run = unpack_of<4, Map::words>(f.group); break;
      case 5: run = shifted ? unpack_of<5, Map::shifted>(f.group) : unpack_of<5, Map::words>(f.group); break;
      case 6: run = shifted ? unpack_of<6, Map::shifted>(f.group) : unpack_of<6, Map::words>(f.group); break;
      case 7: run = shifted ? unpack_of<7, Map::shifted>(f.group) : unpack_of<7, Map::words>(f.group); break;
      default:
        run = !shifted  ? unpack_of<8, Map::words>(f.group)
              : r.exact ? unpack_of<8, Map::direct>(f.group)
                        : unpack_of<8, Map::shifted>(f.group);
    }
  }
};

// Unpacks a block of kTileDepth weights of `panels` panels piece by piece, so that pieces stand between tile products:
// for each panel its scales, then its chunks. tiles [steps][panels][16][64].
struct BlockUnpacker {
  const PanelFormat& f;
  const TileRecipe& r;
  const Unpacker& unpacker;
  const Tile& tile;
  int bias;            // of h
  PanelScales* scales;

  uint8_t* tiles;
  PanelSteps* steps;   // [panels]
  int64_t begin, chunks, present;  // chunks of the block, those that the panel has
  int64_t panel, index;
  const uint8_t* block;
  int64_t element;     // of the chunk within its panel block

  int64_t pieces() const { return tile.panel_count * (chunks + 1); }
  void start(int64_t begin_, int64_t stride, uint8_t* tiles_, PanelSteps* steps_) {
    tiles = tiles_;
    steps = steps_;
    begin = begin_;
    chunks = (stride - begin < kTileDepth ? stride - begin : kTileDepth) / kChunk;
    const int64_t left = (f.blocks * f.elements - begin) / kChunk;
    present = left < chunks ? left : chunks;
    panel = 0;
    index = -1;
  }
  void piece() {
    if (index < 0) {
      const uint8_t* at = tile.panels + panel * tile.panel_stride;
      prepare_scales(f, r, at, begin, bias, scales, steps + panel);
      block = at + begin / f.elements * f.block_bytes;
      element = begin % f.elements;
      index = 0;
      return;
    }
    uint8_t* out = tiles + ((index / 2 * tile.panel_count + panel) * 2 + index % 2) * 512;
    if (index < present) {
      const int64_t group = r.exact ? 0 : index * kChunk / f.group;
      unpacker.run(reinterpret_cast<const __m512i*>(unpacker.x), f.chunk(block, element / kChunk), scales->m[group],
                   scales->h[group], out);
    } else {
      std::memset(out, 0, 512);
    }
    element += kChunk;
    if (element >= f.elements) {
      element = 0;
      block += f.block_bytes;
    }
    if (++index == chunks) {
      index = -1;
      ++panel;
    }
  }
};
