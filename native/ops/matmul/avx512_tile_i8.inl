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

// Reads scales in passes, a few groups at a time (a piece of work between tile products): first scales and offsets as
// f32 where m and h will be, then m and h.
struct ScalesReader {
  const PanelFormat& f;
  const TileRecipe& r;
  int bias;  // what h begins with

  PanelScales* scales;
  PanelSteps* steps;
  const uint8_t* block;
  int64_t in_block, next, count;  // groups
  __m512 largest, multiplier, shift;
  __mmask16 finite;
  bool second;

  // Of `columns` columns of a panel from group `group` of panel block `at`.
  void start(const uint8_t* at, int64_t group, int64_t columns, PanelScales* scales_, PanelSteps* steps_) {
    scales = scales_;
    steps = steps_;
    block = at;
    in_block = group;
    next = 0;
    count = r.exact ? 1 : (columns + f.group - 1) / f.group;
    largest = _mm512_setzero_ps();
    finite = 0xffff;
    second = false;
  }
  // False when all is done.
  bool piece(int64_t groups) {
    if (r.exact) {
      const Scales s = group_scales(f, block, 0);
      _mm512_store_ps(steps->step, s.scale);
      _mm512_store_ps(steps->offset, _mm512_fmadd_ps(s.scale, _mm512_set1_ps(r.centre), s.offset));
      _mm512_store_si512(scales->m[0], _mm512_set1_epi16(static_cast<short>(r.exact_multiplier)));
      _mm512_store_si512(scales->h[0], _mm512_set1_epi16(static_cast<short>(bias)));
      return false;
    }
    const int64_t end = next + groups < count ? next + groups : count;
    if (second) {
      multiply(next, end);
    } else {
      load(next, end);
    }
    next = end;
    if (next < count) return true;
    if (second) return false;
    finish();
    next = 0;
    second = true;
    return true;
  }

 private:
  void load(int64_t from, int64_t to) {
    const __m512 spread = _mm512_set1_ps(r.spread), infinity = _mm512_set1_ps(__builtin_inff());
    for (int64_t g = from; g < to; ++g) {
      const Scales s = group_scales(f, block, in_block);
      __m512 bound = _mm512_mul_ps(_mm512_abs_ps(s.scale), spread);
      if (r.has_offsets) {
        const __m512 offset = _mm512_fmadd_ps(s.scale, _mm512_set1_ps(r.centre), s.offset);
        bound = _mm512_fmadd_ps(_mm512_abs_ps(s.scale), spread, _mm512_abs_ps(offset));
        _mm512_store_ps(scales->h[g], offset);
      }
      finite = _mm512_mask_cmp_ps_mask(finite, bound, infinity, _CMP_LT_OQ);
      largest = _mm512_max_ps(largest, bound);
      _mm512_store_ps(scales->m[g], s.scale);
      if (++in_block == f.groups) {
        in_block = 0;
        block += f.block_bytes;
      }
    }
  }
  void finish() {
    const __mmask16 good = _mm512_mask_cmp_ps_mask(finite, largest, _mm512_set1_ps(kTileLeast), _CMP_GE_OQ);
    const __m512 step = _mm512_maskz_div_ps(good, largest, _mm512_set1_ps(r.levels));
    _mm512_store_ps(steps->step, _mm512_mask_mov_ps(_mm512_set1_ps(__builtin_nanf("")), finite, step));
    multiplier = _mm512_maskz_div_ps(good, _mm512_set1_ps(r.unit), step);
    shift = _mm512_maskz_div_ps(good, _mm512_set1_ps(256.0f), step);
  }
  // What is no number becomes 0x80000000, of which the low word is 0.
  void multiply(int64_t from, int64_t to) {
    const __m512i bias_words = _mm512_set1_epi16(static_cast<short>(bias));
    for (int64_t g = from; g < to; ++g) {
      const __m512 m = _mm512_mul_ps(_mm512_load_ps(scales->m[g]), multiplier);
      _mm512_store_si512(scales->m[g], twice(_mm512_cvtps_epi32(m)));
      __m512i h = bias_words;
      if (r.has_offsets) {
        const __m512i own = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_load_ps(scales->h[g]), shift));
        h = _mm512_add_epi16(twice(own), bias_words);
      }
      _mm512_store_si512(scales->h[g], h);
    }
  }
};

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

// What a quarter of a chunk reads besides codes.
struct UnpackTables {
  alignas(64) int16_t x[256];       // as Unpacker writes them
  alignas(64) uint8_t bytes[4][2][64];  // Map::bytes: of the groups of this chunk, written by its first quarter
};

// Map::bytes: int8 of all codes for sixteen rows, of the groups that a chunk meets.
template <int kBits, int kParts>
inline void fill_bytes(UnpackTables* tables, const uint32_t* m, const uint32_t* h) {
  const __m512i* x = reinterpret_cast<const __m512i*>(tables->x);
  for (int part = 0; part < kParts; ++part) {
    const __m512i mm = _mm512_load_si512(m + 16 * part), hh = _mm512_load_si512(h + 16 * part);
    _mm512_store_si512(tables->bytes[part][0], rescale(x[0], x[1], mm, hh));
    if constexpr (kBits == 3) _mm512_store_si512(tables->bytes[part][1], rescale(x[2], x[3], mm, hh));
  }
}

// Vectors q and q + 4 of a chunk of sixteen rows to their tile rows: out [8][64]. m, h: of the groups that the chunk
// meets. A quarter is 20 to 30 vector instructions, what fits between two tile products.
template <int kBits, Map kMap, int kParts, int kQuarter>
void unpack_quarter(UnpackTables* tables, const uint8_t* chunk, const uint32_t* m_words, const uint32_t* h_words,
                    uint8_t* out) {
  constexpr int q = kQuarter;
  constexpr int kPart[2] = {q * kParts / 8, (q + 4) * kParts / 8};
  const __m512i* x = reinterpret_cast<const __m512i*>(tables->x);
  __m512i* tiles = reinterpret_cast<__m512i*>(out);
  __m512i codes[2];
  if constexpr (kMap == Map::bytes) {
    if constexpr (q == 0) fill_bytes<kBits, kParts>(tables, m_words, h_words);
    // Byte 4 r + j of an index: 4 r, the low two bits of the code, bit 6 for the third.
    const __m512i rows = _mm512_setr_epi32(
        0x00000000, 0x04040404, 0x08080808, 0x0c0c0c0c, 0x10101010, 0x14141414, 0x18181818, 0x1c1c1c1c, 0x20202020,
        0x24242424, 0x28282828, 0x2c2c2c2c, 0x30303030, 0x34343434, 0x38383838, 0x3c3c3c3c);
    quarter_codes<kBits, q, 6>(chunk, rows, codes);
    for (int i = 0; i < 2; ++i) {
      const uint8_t* bytes = tables->bytes[kPart[i]][0];
      const __m512i low = _mm512_load_si512(bytes);
      tiles[q + 4 * i] = kBits == 3 ? _mm512_permutex2var_epi8(low, codes[i], _mm512_load_si512(bytes + 64))
                                    : _mm512_permutexvar_epi8(codes[i], low);
    }
    return;
  } else if constexpr (kMap == Map::direct) {
    quarter_codes<kBits, q>(chunk, _mm512_setzero_si512(), codes);
    for (int i = 0; i < 2; ++i) tiles[q + 4 * i] = _mm512_xor_si512(codes[i], x[0]);
    return;
  }
  __m512i even[2], odd[2];
  if constexpr (kMap == Map::words && kBits == 4) {
    // Words of four nibbles; the table stands twice, so that the bit above a nibble does not matter.
    const __m512i run = _mm512_loadu_si512(reinterpret_cast<const __m512i*>(chunk) + q);
    even[0] = _mm512_permutexvar_epi16(run, x[0]);
    even[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(run, 4), x[0]);
    odd[0] = _mm512_permutexvar_epi16(_mm512_srli_epi16(run, 8), x[0]);
    odd[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(run, 12), x[0]);
  } else {
    quarter_codes<kBits, q>(chunk, _mm512_setzero_si512(), codes);
    for (int i = 0; i < 2; ++i) {
      if constexpr (kMap == Map::words) {
        even[i] = table_words<kBits>(x, codes[i]);
        odd[i] = table_words<kBits>(x, _mm512_srli_epi16(codes[i], 8));
      } else {
        // (a & mask) ^ flip
        const __m512i mask = _mm512_set1_epi16(static_cast<short>(0xffff << (16 - kBits)));
        even[i] = _mm512_xor_si512(_mm512_slli_epi16(codes[i], 16 - kBits), x[0]);
        odd[i] = _mm512_ternarylogic_epi32(_mm512_slli_epi16(codes[i], 8 - kBits), mask, x[0], 0x6a);
      }
    }
  }
  for (int i = 0; i < 2; ++i) {
    tiles[q + 4 * i] = rescale(even[i], odd[i], _mm512_load_si512(m_words + 16 * kPart[i]),
                               _mm512_load_si512(h_words + 16 * kPart[i]));
  }
}

using UnpackQuarter = void (*)(UnpackTables* tables, const uint8_t* chunk, const uint32_t* m, const uint32_t* h,
                               uint8_t* out);

template <int kBits, Map kMap, int kParts>
constexpr UnpackQuarter kQuarters[4] = {unpack_quarter<kBits, kMap, kParts, 0>, unpack_quarter<kBits, kMap, kParts, 1>,
                                        unpack_quarter<kBits, kMap, kParts, 2>, unpack_quarter<kBits, kMap, kParts, 3>};

template <int kBits, Map kMap>
const UnpackQuarter* unpack_of(int64_t group) {
  if constexpr (kMap == Map::direct) return kQuarters<kBits, kMap, 1>;
  return group >= kChunk ? kQuarters<kBits, kMap, 1>
         : group == 16   ? kQuarters<kBits, kMap, 2>
                         : kQuarters<kBits, kMap, 4>;
}

// A format's way, and the constants it reads.
struct Unpacker {
  UnpackTables tables;
  const UnpackQuarter* quarters;  // [4]

  // is_unsigned: w8 + 128 is wanted.
  Unpacker(const PanelFormat& f, const TileRecipe& r, bool is_unsigned) {
    int16_t* x = tables.x;
    const UnpackQuarter*& run = quarters;
    const bool integer = f.value_kind == ValueKind::integer;
    const bool shifted = f.bits >= 5 && integer;
    if (f.bits <= 3) {
      // Dwords of even and odd bytes' words: codes 0, 2 and 1, 3; then 4, 6 and 5, 7.
      for (int i = 0; i < 128; ++i) {
        const int code = i / 64 * 4 + 2 * (i % 2) + i / 32 % 2;
        x[i] = code < 1 << f.bits ? r.x[code] : int16_t{0};
      }
    } else if (f.bits == 8 && r.exact && integer) {
      std::memset(x, is_unsigned ? 0 : 0x80, sizeof(tables.x));  // value - zero - centre = code - 128
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
// for each panel its scales, four groups at a time, then its chunks, a quarter at a time. tiles [steps][panels][16][64].
struct BlockUnpacker {
  const PanelFormat& f;
  const TileRecipe& r;
  Unpacker& unpacker;
  const Tile& tile;
  ScalesReader reader;
  PanelScales* scales;

  uint8_t* tiles;
  PanelSteps* steps;                  // [panels]
  int64_t chunks, present;            // chunks of the block, those that the panel has
  int64_t first_block, first_chunk;   // where it begins in a panel: panel block, chunk in it
  int64_t columns, panel, index, quarter;
  const uint8_t* block;
  int64_t in_block, block_chunks;     // chunk within its panel block, of how many
  int64_t in_group, group_chunks, group_step;  // chunks of a group; lines of m and h that a chunk moves on by
  const uint32_t *m, *h;
  int64_t ahead;  // bytes of a block of kTileDepth: what is prefetched when a chunk is read

  BlockUnpacker(const PanelFormat& f_, const TileRecipe& r_, Unpacker& unpacker_, const Tile& tile_, int bias,
                PanelScales* scales_)
      : f(f_), r(r_), unpacker(unpacker_), tile(tile_), reader{f_, r_, bias}, scales(scales_),
        block_chunks(f_.elements / kChunk), group_chunks(f_.group < kChunk ? 1 : f_.group / kChunk),
        group_step(f_.group < kChunk ? kChunk / f_.group : 1),
        ahead(f_.elements > kTileDepth ? kTileDepth / kChunk * f_.chunk_bytes
                                       : kTileDepth / f_.elements * f_.block_bytes) {}

  void start(int64_t begin, int64_t stride, uint8_t* tiles_, PanelSteps* steps_) {
    tiles = tiles_;
    steps = steps_;
    chunks = std::min(stride - begin, kTileDepth) / kChunk;
    present = std::min(f.blocks * block_chunks - begin / kChunk, chunks);
    columns = std::min(f.cols - begin, kTileDepth);
    first_block = begin / f.elements;
    first_chunk = begin % f.elements / kChunk;
    panel = 0;
    start_panel();
  }
  // About how many calls of piece() the block takes.
  int64_t pieces() const { return tile.panel_count * (4 * chunks + 2 * ((reader.count + 3) / 4)); }
  // False when all is done.
  bool piece() {
    if (panel == tile.panel_count) return false;
    if (index < 0) {
      if (!reader.piece(4)) index = 0;
      return true;
    }
    uint8_t* out = tiles + ((index / 2 * tile.panel_count + panel) * 2 + index % 2) * 512;
    if (index < present) {
      const uint8_t* chunk = f.chunk(block, in_block);
      if (quarter == 0) {
        for (int64_t i = 0; i < f.chunk_bytes; i += 64) {
          _mm_prefetch(reinterpret_cast<const char*>(chunk + ahead + i), _MM_HINT_T1);
        }
      }
      unpacker.quarters[quarter](&unpacker.tables, chunk, m, h, out);
    } else {
      std::memset(out, 0, 512);
    }
    quarter = (quarter + 1) % 4;
    if (quarter != 0) return true;
    if (++in_block == block_chunks) {
      in_block = 0;
      block += f.block_bytes;
    }
    if (++in_group == group_chunks) {
      in_group = 0;
      m += 16 * group_step;
      h += 16 * group_step;
    }
    if (++index == chunks && ++panel < tile.panel_count) start_panel();
    return true;
  }

 private:
  void start_panel() {
    index = -1;
    quarter = 0;
    block = tile.panels + panel * tile.panel_stride + first_block * f.block_bytes;
    in_block = first_chunk;
    reader.start(block, first_chunk * kChunk / f.group, columns, scales, steps + panel);
    in_group = 0;
    if (r.exact) in_group = -chunks - 1;  // one scale for all
    m = scales->m[0];
    h = scales->h[0];
  }
};
