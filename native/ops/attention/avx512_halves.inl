// Attention in f32 over pages of f16 or bf16, few rows: both products straight from the pages. Included after tile.inl.
//
// A dword holds two channels of a token (keys) or two tokens of a channel (values). Converting 16 halves as they stand gives
// pairs of lanes; they are multiplied by pairs of query channels or weights, and the two sums of a pair are added at the end
// of a tile (keys) or of a chunk (values). So an element costs 1/16 of a conversion and, for each row, 1/16 of a multiply-add.

namespace {

inline bool is_half(const KvPage& page) { return page.format == BL_KV_FORMAT_f16 || page.format == BL_KV_FORMAT_bf16; }

inline bool is_half_segment(const KeySegment& segment) {
  return segment.paged != nullptr && segment.paged->values.data != nullptr && is_half(segment.key_page) &&
         is_half(segment.value_page);
}

// A task's part of the workspace behind that of Work.
struct Halves {
  int64_t rows, query_stride, sum_stride;
  float* query;  // [rows][query_stride], padded by zeros
  float* sums;   // [rows][sum_stride]: pairs
  uint8_t* joined;  // joined_bytes()
  uint64_t bytes;
  float factor[kMaxTaskRows];
  bool loaded = false;

  Halves(const AttentionCall& call, int64_t row_count, uint8_t* memory)
      : rows(in_groups(row_count)), query_stride(padded16(call.head_dim)), sum_stride(2 * padded16(call.value_dim)) {
    query = reinterpret_cast<float*>(memory);
    sums = query + rows * query_stride;
    joined = reinterpret_cast<uint8_t*>(sums + rows * sum_stride);
    bytes = static_cast<uint64_t>(rows * (query_stride + sum_stride)) * sizeof(float) + joined_bytes(call);
  }

  void load(const Work& work) {
    if (loaded) return;
    loaded = true;
    std::memset(query, 0, static_cast<size_t>(rows * query_stride) * sizeof(float));
    for (int64_t row = 0; row < work.rows; ++row) {
      std::memcpy(query + row * query_stride, work.query + row * work.head_dim,
                  static_cast<size_t>(work.head_dim) * sizeof(float));
    }
  }
};

inline __m512 broadcast_pair(const float* p) {
  double pair;
  std::memcpy(&pair, p, 8);
  return _mm512_castpd_ps(_mm512_set1_pd(pair));
}

// Scores of four rows and two units of keys.
template <int32_t kType>
void score_halves(const KvPage& layout, const Tile& tile, Ahead& ahead, int64_t unit, const float* query,
                  int64_t query_stride, float* scores) {
  __m512 sum[kGroup][4];
  for (auto& each : sum) {
    for (__m512& one : each) one = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < layout.rows; ++i) {
    __m512 keys[4];
    for (int v = 0; v < 4; ++v) keys[v] = load_vec<kType>(tile.keys[unit + v / 2] + i * 64 + v % 2 * 32).v;
    if (i % 4 == 0) ahead.step();
    for (int r = 0; r < kGroup; ++r) {
      const __m512 channels = broadcast_pair(query + r * query_stride + 2 * i);
      for (int v = 0; v < 4; ++v) sum[r][v] = _mm512_fmadd_ps(keys[v], channels, sum[r][v]);
    }
  }
  const __m512i order = _mm512_setr_epi32(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  for (int r = 0; r < kGroup; ++r) {
    for (int u = 0; u < 2; ++u) {
      const __m512 a = sum[r][2 * u], b = sum[r][2 * u + 1];
      const __m512 x = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x88), _mm512_shuffle_ps(a, b, 0xdd));
      _mm512_store_ps(scores + r * kKeyTile + (unit + u) * kUnit, _mm512_permutexvar_ps(order, x));
    }
  }
}

// Pairs of sums of four rows and 8 kVecs channels: sums * factor + weights x values of `units` units. kMasked: values that a
// row does not see are taken as 0; else they are finite.
template <int32_t kType, int kVecs, bool kMasked>
inline void add_half_columns(const KvPage& layout, const Tile& tile, Ahead& ahead, int64_t units, const Work& work,
                             const Halves& halves, int64_t row, int64_t column) {
  float* sums = halves.sums + row * halves.sum_stride + 2 * column;
  const float* weights = work.scores + row * kKeyTile;
  __m512 sum[kGroup][kVecs];
  for (int r = 0; r < kGroup; ++r) {
    const __m512 factor = _mm512_set1_ps(halves.factor[row + r]);
    for (int v = 0; v < kVecs; ++v) {
      sum[r][v] = _mm512_mul_ps(_mm512_load_ps(sums + r * halves.sum_stride + v * kUnit), factor);
    }
  }
  for (int64_t u = 0; u < units; ++u) {
    for (int64_t i = 0; i < layout.rows; ++i) {
      const uint8_t* from = tile.values[u] + (i * layout.lanes + column) * 4;
      __m512 values[kVecs];
      for (int v = 0; v < kVecs; ++v) values[v] = load_vec<kType>(from + v * 32).v;
      if (i % 4 == 0) ahead.step();
      for (int r = 0; r < kGroup; ++r) {
        const __m512 weight = broadcast_pair(weights + r * kKeyTile + u * kUnit + 2 * i);
        __mmask16 seen = 0xffff;
        if constexpr (kMasked) {
          const uint64_t pair = row + r < work.rows ? work.seen[row + r] >> (u * kUnit + 2 * i) : 0;
          seen = static_cast<__mmask16>(((pair & 1) != 0 ? 0x5555 : 0) | ((pair & 2) != 0 ? 0xaaaa : 0));
        }
        for (int v = 0; v < kVecs; ++v) {
          const __m512 value = kMasked ? _mm512_maskz_mov_ps(seen, values[v]) : values[v];
          sum[r][v] = _mm512_fmadd_ps(value, weight, sum[r][v]);
        }
      }
    }
  }
  for (int r = 0; r < kGroup; ++r) {
    for (int v = 0; v < kVecs; ++v) _mm512_store_ps(sums + r * halves.sum_stride + v * kUnit, sum[r][v]);
  }
}

template <int32_t kType, bool kMasked>
void add_halves(const KvPage& layout, const Tile& tile, Ahead& ahead, int64_t units, const Work& work,
                const Halves& halves, int64_t row) {
  int64_t column = 0;
  for (; column + 32 <= layout.lanes; column += 32) {
    add_half_columns<kType, 4, kMasked>(layout, tile, ahead, units, work, halves, row, column);
  }
  if (column < layout.lanes) {
    add_half_columns<kType, 2, kMasked>(layout, tile, ahead, units, work, halves, row, column);
  }
}

bool are_finite(const KvPage& layout, const Tile& tile, int64_t units) {
  const __m512i exponent = _mm512_set1_epi16(layout.format == BL_KV_FORMAT_f16 ? 0x7c00 : 0x7f80);
  __mmask32 odd = 0;
  for (int64_t u = 0; u < units; ++u) {
    for (int64_t i = 0; i < layout.unit_bytes; i += 64) {
      const __m512i x = _mm512_and_si512(_mm512_loadu_si512(tile.values[u] + i), exponent);
      odd |= _mm512_cmpeq_epi16_mask(x, exponent);
    }
  }
  return odd == 0;
}

void attend_tile_halves(const AttentionCall& call, const KeySegment& segment, Work& work, Halves& halves, const Row* rows,
                        const Tile& tile, const Tile& next, int64_t first, int64_t count) {
  uint64_t any = 0;
  for (int64_t row = 0; row < work.rows; ++row) {
    work.seen[row] = seen_keys(call, rows[row], first, count);
    any |= work.seen[row];
  }
  if (any == 0) return;
  const int64_t units = (count + kUnit - 1) / kUnit;
  Ahead ahead(segment.key_page, segment.value_page, tile, next);
  for (int64_t row = 0; row < halves.rows; row += kGroup) {
    const float* query = halves.query + row * halves.query_stride;
    for (int64_t unit = 0; unit < units; unit += 2) {
      float* scores = work.scores + row * kKeyTile;
      if (segment.key_page.format == BL_KV_FORMAT_f16) {
        score_halves<BL_DTYPE_f16>(segment.key_page, tile, ahead, unit, query, halves.query_stride, scores);
      } else {
        score_halves<BL_DTYPE_bf16>(segment.key_page, tile, ahead, unit, query, halves.query_stride, scores);
      }
    }
  }
  ahead.turn();
  for (int64_t row = 0; row < halves.rows; ++row) {
    halves.factor[row] = 1;
    if (row >= work.rows || !finish_scores(call, work, rows[row], row, first, count)) continue;
    halves.factor[row] = weigh(work, row, count);
  }
  uint64_t all = ~uint64_t{0};  // weigh() takes keys out whose scores are -infinity
  for (int64_t row = 0; row < work.rows; ++row) all &= work.seen[row];
  const bool masked = all != ~uint64_t{0} && !are_finite(segment.value_page, tile, units);
  const bool is_f16 = segment.value_page.format == BL_KV_FORMAT_f16;
  const auto add = is_f16 ? masked ? add_halves<BL_DTYPE_f16, true> : add_halves<BL_DTYPE_f16, false>
                   : masked ? add_halves<BL_DTYPE_bf16, true> : add_halves<BL_DTYPE_bf16, false>;
  for (int64_t row = 0; row < halves.rows; row += kGroup) {
    add(segment.value_page, tile, ahead, units, work, halves, row);
  }
  ahead.rest();
}

// Keys [first, end) of such a segment, which are one chunk.
void attend_chunk_halves(const AttentionCall& call, const AttentionTask& task, Work& work, Halves& halves, const Row* rows,
                         int32_t segment, int64_t before, int64_t first, int64_t end) {
  const int64_t kv_head = task.head_begin / call.group();
  const int64_t length = call.segment_keys(segment, task.sequence_begin, kv_head);
  halves.load(work);
  clear_chunk(work);
  std::memset(halves.sums, 0, static_cast<size_t>(halves.rows * halves.sum_stride) * sizeof(float));
  // Rows that fill the last group have weights of 0.
  std::memset(work.scores + work.rows * kKeyTile, 0,
              static_cast<size_t>((halves.rows - work.rows) * kKeyTile) * sizeof(float));
  Tile tile(call, task.sequence_begin, kv_head, segment, first, length);
  for (int64_t at = first; at < end; at += kKeyTile) {
    const bool more = at + kKeyTile < length;
    const Tile next = more ? Tile(call, task.sequence_begin, kv_head, segment, at + kKeyTile, length) : tile;
    join_halves(call, task.sequence_begin, kv_head, segment, at, length, halves.joined, tile);
    attend_tile_halves(call, call.segments[segment], work, halves, rows, tile, next, before + at,
                       std::min(end - at, kKeyTile));
    tile = next;
  }
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  for (int64_t row = 0; row < work.rows; ++row) {
    const float* pairs = halves.sums + row * halves.sum_stride;
    for (int64_t i = 0; i < work.stride; i += kUnit) {
      const __m512 a = _mm512_load_ps(pairs + 2 * i), b = _mm512_load_ps(pairs + 2 * i + kUnit);
      _mm512_storeu_ps(work.sums + row * work.stride + i,
                       _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)));
    }
  }
}

}  // namespace
