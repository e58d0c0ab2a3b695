// Weights to int8 for algorithm tile (tile.h): the scales of a block, then chunk by chunk. Included in regions of levels
// avx512 and amx, after avx512_tile_scales.inl and avx512_tile_codes.inl.
//
// Budget of a vector of 64 weights in 4 bits: 1.5 shifts, 2 vpermw, 2 vpmulhw, 3 additions, a
// vpmultishiftqb = 9.5 instructions on two ports, 76 cycles per 1024 weights; scales add 1.1 at groups of 32. 1 to 3
// bits: the int8 of all codes of sixteen rows are a table of at most 128 bytes, so that a vector costs a shift, a
// vpternlogd and a vpermb, and each group some 12 for the table.

// What the re-scaling of a panel's block of kTileDepth weights reads.
struct PanelScales {
  alignas(64) uint32_t m[kTileDepth / 8][16];  // of a group, twice: a word for either byte of a word
  // h + 64, and + 2^14 where w8 is wanted as w8 + 128; formats without offsets: the first four only
  alignas(64) uint32_t h[kTileDepth / 8][16];
};
struct PanelSteps {
  alignas(64) float step[16];
  alignas(64) float offset[16];  // exact formats: o
};

// Low words of v, twice.
inline __m512i twice(__m512i v) {
  return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13)));
}

// Scales of a block of two panels: m, h and steps. The panels go side by side, so that the divisions of one (24 cycles
// each, one after the other) hide behind the other's.
class ScalesReader {
 public:
  // bias: what h begins with.
  ScalesReader(const PanelFormat& f_, const TileRecipe& r_, int bias_)
      : f(f_), r(r_), bias(bias_),
        plain(f_.sub_bits == 0 && f_.offset_kind == OffsetKind::none && f_.scale_type == BL_SCALE_f16) {}

  // Of `columns` columns from group `group` of the panel blocks `at`.
  __attribute__((noinline)) void read(const uint8_t* const at[2], int64_t group, int64_t columns, PanelScales* scales,
                                      PanelSteps* steps) const {
    if (r.exact) {
      for (int p = 0; p < 2; ++p) read_exact(at[p], scales[p], steps[p]);
      return;
    }
    const int64_t count = (columns + f.group - 1) / f.group;
    Bound bounds[2];
    if (plain) {
      load_plain(at, group, count, scales, bounds);
    } else {
      for (int p = 0; p < 2; ++p) load(at[p], group, count, scales[p], bounds[p]);
    }
    __m512 multiplier[2], shift[2];
    for (int p = 0; p < 2; ++p) {
      const __m512 largest = bounds[p].largest;
      const __mmask16 finite = bounds[p].finite;
      const __mmask16 good = _mm512_mask_cmp_ps_mask(finite, largest, _mm512_set1_ps(kTileLeast), _CMP_GE_OQ);
      const __m512 step = _mm512_maskz_div_ps(good, largest, _mm512_set1_ps(r.levels));
      _mm512_store_ps(steps[p].step, _mm512_mask_mov_ps(_mm512_set1_ps(__builtin_nanf("")), finite, step));
      multiplier[p] = _mm512_maskz_div_ps(good, _mm512_set1_ps(r.unit), step);
      if (r.has_offsets) shift[p] = _mm512_maskz_div_ps(good, _mm512_set1_ps(128.0f), step);
    }
    // What is no number becomes 0x80000000, of which the low word is 0.
    const __m512i odd = _mm512_set1_epi32(1);
    const __m512i bias_words = _mm512_set1_epi16(static_cast<short>(bias));
    for (int g = 0; g < 4 && !r.has_offsets; ++g) {  // those of a chunk; the cursor stays there
      for (int p = 0; p < 2; ++p) _mm512_store_si512(scales[p].h[g], bias_words);
    }
    for (int64_t g = 0; g < count; ++g) {
      for (int p = 0; p < 2; ++p) {
        const __m512 m = _mm512_mul_ps(_mm512_load_ps(scales[p].m[g]), multiplier[p]);
        _mm512_store_si512(scales[p].m[g], twice(_mm512_or_si512(_mm512_cvtps_epi32(m), odd)));
        if (!r.has_offsets) continue;
        const __m512i own = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(scales[p].h[g]), shift[p]));
        _mm512_store_si512(scales[p].h[g], _mm512_add_epi16(twice(own), bias_words));
      }
    }
  }

 private:
  const PanelFormat& f;
  const TileRecipe& r;
  int bias;
  bool plain;  // a f16 per group and nothing else

  struct Bound {
    __m512 largest = {};
    __mmask16 finite = 0xffff;
  };

  void read_exact(const uint8_t* at, PanelScales& scales, PanelSteps& steps) const {
    const Scales s = group_scales(f, at, 0);
    _mm512_store_ps(steps.step, s.scale);
    _mm512_store_ps(steps.offset, _mm512_fmadd_ps(s.scale, _mm512_set1_ps(r.centre), s.offset));
    _mm512_store_si512(scales.m[0], _mm512_set1_epi16(static_cast<short>(r.exact_multiplier)));
    _mm512_store_si512(scales.h[0], _mm512_set1_epi16(static_cast<short>(bias)));
  }
  // As load(). The product with `spread` comes after the maximum, for it keeps the order: the same number.
  void load_plain(const uint8_t* const at[2], int64_t group, int64_t count, PanelScales* scales, Bound* bounds) const {
    const __m512 factor = _mm512_set1_ps(f.scale_factor), spread = _mm512_set1_ps(r.spread);
    const uint8_t* from[2] = {at[0], at[1]};
    __m512i most[2] = {};  // magnitudes compare as integers do; what is not finite is the largest of all
    for (int64_t g = 0, in_block = group; g < count; ++g) {
      for (int p = 0; p < 2; ++p) {
        const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from[p] + 32 * in_block));
        const __m512 scale = _mm512_mul_ps(_mm512_cvtph_ps(halves), factor);
        _mm512_store_ps(scales[p].m[g], scale);
        most[p] = _mm512_max_epi32(most[p], _mm512_castps_si512(_mm512_abs_ps(scale)));
      }
      if (++in_block == f.groups) {
        in_block = 0;
        from[0] += f.block_bytes;
        from[1] += f.block_bytes;
      }
    }
    for (int p = 0; p < 2; ++p) {
      const __m512 largest = _mm512_mul_ps(_mm512_castsi512_ps(most[p]), spread);
      bounds[p] = {largest, _mm512_cmp_ps_mask(largest, _mm512_set1_ps(__builtin_inff()), _CMP_LT_OQ)};
    }
  }
  // Scales and offsets as f32 where m and h will be; the largest bound.
  void load(const uint8_t* block, int64_t in_block, int64_t count, PanelScales& scales, Bound& bound) const {
    const __m512 spread = _mm512_set1_ps(r.spread), infinity = _mm512_set1_ps(__builtin_inff());
    for (int64_t g = 0; g < count; ++g) {
      const Scales s = group_scales(f, block, in_block);
      __m512 size = _mm512_mul_ps(_mm512_abs_ps(s.scale), spread);
      if (r.has_offsets) {
        const __m512 offset = _mm512_fmadd_ps(s.scale, _mm512_set1_ps(r.centre), s.offset);
        size = _mm512_fmadd_ps(_mm512_abs_ps(s.scale), spread, _mm512_abs_ps(offset));
        _mm512_store_ps(scales.h[g], offset);
      }
      bound.finite = _mm512_mask_cmp_ps_mask(bound.finite, size, infinity, _CMP_LT_OQ);
      bound.largest = _mm512_max_ps(bound.largest, size);
      _mm512_store_ps(scales.m[g], s.scale);
      if (++in_block == f.groups) {
        in_block = 0;
        block += f.block_bytes;
      }
    }
  }
};

// How a code becomes a word x: by a table of words, in place for integers of 5 bits and more; or how it becomes int8 at once:
// by a table of bytes (1 to 3 bits), as it is (`_row` of 8 bits).
enum class Map { words, shifted, bytes, direct };

// Each byte its upper neighbour: a shift of words by 8 on the other port. Beside tile products (their unit is on port 5)
// multiplications, conversions and shifts share port 0.
inline __m512i next_bytes(__m512i v) { return _mm512_bsrli_epi128(v, 1); }

// Even and odd bytes' words of x to int8 (or + 128).
inline __m512i rescale(__m512i even, __m512i odd, __m512i m, __m512i h) {
  even = _mm512_add_epi16(_mm512_mulhi_epi16(even, m), h);
  odd = _mm512_add_epi16(_mm512_mulhi_epi16(odd, m), h);
  // Bits 7 to 14 of either: shifted left by one they are the upper bytes of `odd`, and eight bits of `even` from 7, 23,
  // 39 and 55 on go to the lower ones.
  const __m512i from = _mm512_set1_epi64(0x0037002700170007);
  return _mm512_mask_multishift_epi64_epi8(_mm512_add_epi16(odd, odd), 0x5555555555555555, from, even);
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

// A chunk of sixteen rows x 32 weights to 8 tile rows of int8, by quarters: vectors q and q + 4. A quarter is 20 to 30
// vector instructions, what fits between two tile products. Constants stay in registers.
template <int kBits, Map kMap, int kParts>
struct ChunkUnpacker {
  static constexpr int kWidth = kBits;
  const __m512i* x;  // the recipe's table, as write_table() puts it
  __m512i x0, low[kParts], high[kParts], m[kParts], h[kParts], runs[kBits];

  explicit ChunkUnpacker(const int16_t* table) : x(reinterpret_cast<const __m512i*>(table)), x0(x[0]) {}

  // Loads a chunk. m, h: of the groups that it meets.
  __attribute__((always_inline)) void begin(const uint8_t* chunk, const uint32_t* m_words, const uint32_t* h_words) {
    [&]<int... part>(std::integer_sequence<int, part...>) __attribute__((always_inline)) {
      // Into registers now: as operands in memory they would cost 8 loads a quarter, and tile loads need the ports.
      if constexpr (kMap != Map::direct) {
        (load_run(reinterpret_cast<const uint8_t*>(m_words + 16 * part), m[part]), ...);
        (load_run(reinterpret_cast<const uint8_t*>(h_words + 16 * part), h[part]), ...);
      }
    }(std::make_integer_sequence<int, kParts>());
    load_runs<kBits>(chunk, runs);
    if constexpr (kMap == Map::bytes) {  // int8 of all codes for sixteen rows
      [&]<int... part>(std::integer_sequence<int, part...>) __attribute__((always_inline)) {
        ((low[part] = rescale(x0, x[1], m[part], h[part])), ...);
        if constexpr (kBits == 3) ((high[part] = rescale(x[2], x[3], m[part], h[part])), ...);
      }(std::make_integer_sequence<int, kParts>());
    }
  }

  template <int q>
  __attribute__((always_inline)) void quarter(uint8_t* out) const {
    constexpr int kPart[2] = {q * kParts / 8, (q + 4) * kParts / 8};
    __m512i* tiles = reinterpret_cast<__m512i*>(out);
    __m512i codes[2], even[2], odd[2];
    if constexpr (kMap == Map::bytes) {
      // Byte 4 r + j of an index: 4 r, the low two bits of the code, bit 6 for the third.
      const __m512i rows = _mm512_setr_epi32(
          0x00000000, 0x04040404, 0x08080808, 0x0c0c0c0c, 0x10101010, 0x14141414, 0x18181818, 0x1c1c1c1c, 0x20202020,
          0x24242424, 0x28282828, 0x2c2c2c2c, 0x30303030, 0x34343434, 0x38383838, 0x3c3c3c3c);
      quarter_codes<kBits, q, 6>(runs, rows, codes);
      for (int i = 0; i < 2; ++i) {
        tiles[q + 4 * i] = kBits == 3 ? _mm512_permutex2var_epi8(low[kPart[i]], codes[i], high[kPart[i]])
                                      : _mm512_permutexvar_epi8(codes[i], low[kPart[i]]);
      }
      return;
    }
    if constexpr (kMap == Map::direct) {
      quarter_codes<kBits, q>(runs, _mm512_setzero_si512(), codes);
      for (int i = 0; i < 2; ++i) tiles[q + 4 * i] = _mm512_xor_si512(codes[i], x0);
      return;
    }
    if constexpr (kMap == Map::words && kBits == 4) {
      // Words of four nibbles; the table stands twice, so that the bit above a nibble does not matter.
      const __m512i run = runs[q];
      even[0] = _mm512_permutexvar_epi16(run, x0);
      const __m512i upper = _mm512_srli_epi16(run, 4);
      even[1] = _mm512_permutexvar_epi16(upper, x0);
      odd[0] = _mm512_permutexvar_epi16(next_bytes(run), x0);
      odd[1] = _mm512_permutexvar_epi16(next_bytes(upper), x0);
    } else {
      quarter_codes<kBits, q>(runs, _mm512_setzero_si512(), codes);
      for (int i = 0; i < 2; ++i) {
        if constexpr (kMap == Map::words) {
          even[i] = table_words<kBits>(x, codes[i]);
          odd[i] = table_words<kBits>(x, _mm512_srli_epi16(codes[i], 8));
        } else {
          // (a & mask) ^ flip
          const __m512i mask = _mm512_set1_epi16(static_cast<short>(0xffff << (16 - kBits)));
          even[i] = _mm512_xor_si512(_mm512_slli_epi16(codes[i], 16 - kBits), x0);
          odd[i] = _mm512_ternarylogic_epi32(_mm512_slli_epi16(codes[i], 8 - kBits), mask, x0, 0x6a);
        }
      }
    }
    for (int i = 0; i < 2; ++i) {
      tiles[q + 4 * i] = rescale(even[i], odd[i], m[kPart[i]], h[kPart[i]]);
    }
  }
};

// The table that a ChunkUnpacker reads, [256]. is_unsigned: w8 + 128 is wanted.
inline void write_table(const PanelFormat& f, const TileRecipe& r, bool is_unsigned, int16_t* x) {
  const bool integer = f.value_kind == ValueKind::integer;
  if (f.bits <= 3) {
    // Dwords of even and odd bytes' words: codes 0, 2 and 1, 3; then 4, 6 and 5, 7.
    for (int i = 0; i < 128; ++i) {
      const int code = i / 64 * 4 + 2 * (i % 2) + i / 32 % 2;
      x[i] = code < 1 << f.bits ? r.x[code] : int16_t{0};
    }
  } else if (f.bits == 8 && r.exact && integer) {
    std::memset(x, is_unsigned ? 0 : 0x80, 256 * sizeof(int16_t));  // value - zero - centre = code - 128
  } else if (f.bits >= 5 && integer) {
    std::fill_n(x, 256, r.x[0]);
  } else {
    for (int i = 0; i < 256; ++i) x[i] = r.x[f.bits == 4 ? i % 16 : i % (1 << f.bits)];
  }
}

// Where the chunks of a block of kTileDepth weights of two panels are, in the order in which they are unpacked: panel by
// panel. Tiles: [steps][2][16][64].
struct ChunkCursor {
  const PanelFormat* f;
  const uint8_t* panels[2];
  int64_t block_chunks, group_chunks, group_lines;  // chunks of a panel block, of a group; groups of a chunk

  const PanelScales* scales;                        // [2]
  uint8_t *tiles, *out;
  int64_t first_block, first_chunk;                 // where the block begins: panel block, chunk in it
  int64_t chunks, present;                          // chunks of a panel, those that it has
  int64_t left;                                     // chunks of both that are still to be unpacked
  int64_t index, in_block, in_group;
  const uint8_t* chunk;
  const uint32_t *m, *h;
  bool exact;
  int64_t h_step;                                   // 0 where all groups have the same h
  int64_t ahead;                                    // bytes of a block of kTileDepth weights

  ChunkCursor(const PanelFormat& f_, const TileRecipe& r, const Tile& tile)
      : f(&f_), panels{tile.panels, tile.panels + (tile.panel_count - 1) * tile.panel_stride},
        block_chunks(f_.elements / kChunk), group_chunks(f_.group < kChunk ? 1 : f_.group / kChunk),
        group_lines(f_.group < kChunk ? kChunk / f_.group : 1), left(0), exact(r.exact),
        h_step(r.has_offsets ? 16 * group_lines : 0),
        ahead(f_.elements > kTileDepth ? kTileDepth / kChunk * f_.chunk_bytes
                                       : kTileDepth / f_.elements * f_.block_bytes) {}

  void start(int64_t begin, int64_t stride, const PanelScales* scales_, uint8_t* tiles_) {
    scales = scales_;
    tiles = tiles_;
    chunks = std::min(stride - begin, kTileDepth) / kChunk;
    present = std::min(f->blocks * block_chunks - begin / kChunk, chunks);
    first_block = begin / f->elements;
    first_chunk = begin % f->elements / kChunk;
    for (int panel = 0; panel < 2; ++panel) {  // a step is two chunks deep; A is zero where there is only one
      if (present < chunks) std::memset(tiles + (chunks / 2 - 1) * 2048 + panel * 1024 + 512, 0, 512);
    }
    left = 2 * present;
    start_panel(0);
  }
  // What is unpacked two chunks later goes to L1 and what stands a block further to where kFar says: to L2 beside tile
  // products, which wait in order, so that a load that misses holds up what the processor has looked ahead to.
  template <int kBits, _mm_hint kFar = _MM_HINT_T1>
  void prefetch() const {
    const char* at = reinterpret_cast<const char*>(chunk);
#pragma GCC unroll 9
    for (int64_t i = -1; i < kBits; ++i) _mm_prefetch(at + ahead + 64 * i, kFar);
#pragma GCC unroll 8
    for (int64_t i = 0; i < kBits; ++i) _mm_prefetch(at + 128 * kBits + 64 * i, _MM_HINT_T0);
  }
  inline __attribute__((always_inline)) void next() {
    --left;
    chunk += f->chunk_bytes;
    if (++in_block == block_chunks) {
      in_block = 0;
      chunk += f->chunk_offset;
    }
    if (++in_group == group_chunks) {
      in_group = 0;
      m += 16 * group_lines;
      h += h_step;
    }
    out += ++index % 2 == 0 ? 1536 : 512;
    if (index == present && left > 0) start_panel(1);
  }
 private:
  void start_panel(int panel) {
    index = 0;
    in_block = first_chunk;
    in_group = exact ? -chunks - 1 : 0;  // exact: one scale for all
    chunk = f->chunk(panels[panel] + first_block * f->block_bytes, first_chunk);
    m = scales[panel].m[0];
    h = scales[panel].h[0];
    out = tiles + 1024 * panel;
  }
};

// Unpacks the next n chunks, and gives the cursor behind them: by value, so that the caller's may stay in registers.
template <typename Unpacker, _mm_hint kFar = _MM_HINT_T1>
__attribute__((noinline)) ChunkCursor unpack_chunks(ChunkCursor cursor, const int16_t* table, int64_t n) {
  Unpacker unpacker(table);
  for (; n > 0 && cursor.left > 0; --n) {
    unpacker.begin(cursor.chunk, cursor.m, cursor.h);
    unpacker.template quarter<0>(cursor.out);
    unpacker.template quarter<1>(cursor.out);
    unpacker.template quarter<2>(cursor.out);
    unpacker.template quarter<3>(cursor.out);
    cursor.template prefetch<Unpacker::kWidth, kFar>();
    cursor.next();
  }
  return cursor;
}

// Scales of the block at column `begin` of both panels of a cursor.
inline void read_scales(const ScalesReader& reader, const ChunkCursor& cursor, int64_t begin, PanelScales* scales,
                        PanelSteps* steps) {
  const PanelFormat& f = *cursor.f;
  const int64_t offset = begin / f.elements * f.block_bytes;
  const uint8_t* const at[2] = {cursor.panels[0] + offset, cursor.panels[1] + offset};
  reader.read(at, begin % f.elements / f.group, std::min(f.cols - begin, kTileDepth), scales, steps);
}

// Calls body.template operator()<bits, map, parts>() for a format.
template <typename Body>
void with_unpacker(const PanelFormat& f, const TileRecipe& r, const Body& body) {
  const bool shifted = f.bits >= 5 && f.value_kind == ValueKind::integer;
  const auto parts = [&]<int kBits, Map kMap>() {
    if (f.group >= kChunk) {
      body.template operator()<kBits, kMap, 1>();
    } else if (f.group == 16) {
      body.template operator()<kBits, kMap, 2>();
    } else {
      body.template operator()<kBits, kMap, 4>();
    }
  };
  switch (f.bits) {
    case 1: return parts.template operator()<1, Map::bytes>();
    case 2: return parts.template operator()<2, Map::bytes>();
    case 3: return parts.template operator()<3, Map::bytes>();
    case 4: return parts.template operator()<4, Map::words>();
    case 5: return shifted ? parts.template operator()<5, Map::shifted>() : parts.template operator()<5, Map::words>();
    case 6: return shifted ? parts.template operator()<6, Map::shifted>() : parts.template operator()<6, Map::words>();
    case 7: return shifted ? parts.template operator()<7, Map::shifted>() : parts.template operator()<7, Map::words>();
    default:
      return !shifted  ? parts.template operator()<8, Map::words>()
             : r.exact ? body.template operator()<8, Map::direct, 1>()
                       : parts.template operator()<8, Map::shifted>();
  }
}
