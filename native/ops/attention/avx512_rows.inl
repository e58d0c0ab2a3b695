// Attention in f32 over rows of tensors, a few queries: scores straight from the rows, without turning keys into panels,
// which takes longer than few rows take with them; values as they lie. Included after core.inl.

namespace {

// Rows of a sequence and kv head up to which this is faster.
constexpr int64_t kFewRows = 8;

inline bool is_few_rows(const AttentionCall& call, const AttentionTask& task) {
  return call.segments[0].paged == nullptr && call.rope == nullptr && call.head_dim % kUnit == 0 &&
         call.value_dim % kUnit == 0 && call.query_count(task.sequence_begin) * call.group() <= kFewRows;
}

inline __m512 halve_both(__m512 x, __m512 y) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(x, y, 0x88), _mm512_shuffle_f32x4(x, y, 0xdd));
}

// Lane i: the sum of v[i]. The order of a sum does not depend on i.
inline __m512 sum_each(const __m512 (&v)[16]) {
  __m512 quad[4];
  for (int i = 0; i < 4; ++i) {
    const __m512 *a = v + 4 * i, *b = a + 1, *c = a + 2, *d = a + 3;
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(*a, *b), _mm512_unpackhi_ps(*a, *b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(*c, *d), _mm512_unpackhi_ps(*c, *d));
    const __m512d x = _mm512_castps_pd(ab), y = _mm512_castps_pd(cd);
    quad[i] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)), _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));
  }
  return halve_both(halve_both(quad[0], quad[1]), halve_both(quad[2], quad[3]));
}

// x [kRows][kKeyTile] = query . key of 16 / kRows keys (kRows 3: 4 keys).
template <int32_t kType, int kRows>
inline void score_keys(const Work& work, const HeadRows& keys, int64_t s, int64_t row, bool fetches, float* scores) {
  constexpr int64_t kBytes = kType == BL_DTYPE_f32 ? 4 : 2;
  constexpr int kKeys = kRows == 1 ? 16 : kRows == 2 ? 8 : 4;
  const float* query = work.query + row * work.head_dim;
  __m512 sum[16];
  for (__m512& one : sum) one = _mm512_setzero_ps();
  for (int64_t i = 0; i < work.head_dim; i += kUnit) {
    __m512 key[kKeys];
    for (int k = 0; k < kKeys; ++k) key[k] = load_vec<kType>(keys.at(s + k, i * kBytes)).v;
    if (fetches && i * kBytes % 64 == 0) {
      for (int k = 0; k < kKeys; ++k) keys.fetch_ahead(s + k, i * kBytes);
    }
    for (int r = 0; r < kRows; ++r) {
      const __m512 channels = _mm512_loadu_ps(query + r * work.head_dim + i);
      for (int k = 0; k < kKeys; ++k) sum[r * kKeys + k] = _mm512_fmadd_ps(key[k], channels, sum[r * kKeys + k]);
    }
  }
  alignas(64) float sums[16];
  _mm512_store_ps(sums, sum_each(sum));
  for (int r = 0; r < kRows; ++r) std::memcpy(scores + r * kKeyTile, sums + r * kKeys, kKeys * sizeof(float));
}

template <int32_t kType>
void score_rows(const Work& work, const HeadRows& keys, int64_t count) {
  for_row_tiles(work.rows, [&](auto size, int64_t row) {
    constexpr int kRows = size();
    constexpr int64_t kKeys = kRows == 1 ? 16 : kRows == 2 ? 8 : 4;
    float* scores = work.scores + row * kKeyTile;
    int64_t s = 0;
    for (; s + kKeys <= count; s += kKeys) score_keys<kType, kRows>(work, keys, s, row, row == 0, scores + s);
    // The last keys of a sequence, each as all of a group: there are no rows behind them.
    for (; s < count; ++s) {
      HeadRows one = keys;
      one.data = keys.at(s, 0);
      one.row_bytes = 0;
      float repeated[kRows * kKeyTile];
      score_keys<kType, kRows>(work, one, 0, row, false, repeated);
      for (int r = 0; r < kRows; ++r) scores[r * kKeyTile + s] = repeated[r * kKeyTile];
    }
  });
  // What stands behind the last key is read up to a vector's end, and not seen.
  for (int64_t row = 0; row < work.rows; ++row) {
    for (int64_t s = count; s % kUnit != 0; ++s) work.scores[row * kKeyTile + s] = 0;
  }
}

template <int32_t kType>
struct TypedRows {
  HeadRows rows;
  static constexpr int64_t kBytes = kType == BL_DTYPE_f32 ? 4 : 2;

  Vec load(int64_t s, int64_t column) const {
    rows.fetch_ahead(s, column * kBytes);
    return load_vec<kType>(rows.at(s, column * kBytes));
  }
};

// Calls body with an integral constant: the type of a tensor's elements.
template <typename Body>
inline void for_type(const bl_tensor& tensor, Body&& body) {
  if (tensor.dtype == BL_DTYPE_f32) return body(std::integral_constant<int32_t, BL_DTYPE_f32>{});
  if (tensor.dtype == BL_DTYPE_f16) return body(std::integral_constant<int32_t, BL_DTYPE_f16>{});
  body(std::integral_constant<int32_t, BL_DTYPE_bf16>{});
}

void attend_tile_rows(const AttentionCall& call, Work& work, const Row* rows, int64_t kv_head, int64_t first,
                      int64_t count) {
  uint64_t any = 0;
  for (int64_t row = 0; row < work.rows; ++row) {
    work.seen[row] = seen_keys(call, rows[row], first, count);
    any |= work.seen[row];
  }
  if (any == 0) return;
  const int64_t place = call.first_key(rows[0].sequence) + first;
  for_type(call.k, [&](auto type) { score_rows<type()>(work, HeadRows(call.k, place, kv_head), count); });
  for (int64_t row = 0; row < work.rows; ++row) {
    if (!finish_scores(call, work, rows[row], row, first, count)) continue;
    scale_sums(work, row, weigh(work, row, count));
  }
  if (call.weights_only) return;
  for_type(call.v, [&](auto type) {
    for (int64_t s = 0; s < count; s += kUnit) {
      if ((any >> s & 0xffff) == 0) continue;
      const TypedRows<type()> values{HeadRows(call.v, place + s, kv_head)};
      add_unit(work, values, s, std::min(count - s, kUnit));
    }
  });
}

// Keys [first, end), which are one chunk.
void attend_chunk_rows(const AttentionCall& call, const AttentionTask& task, Work& work, const Row* rows, int64_t first,
                       int64_t end) {
  clear_chunk(work);
  const int64_t kv_head = task.head_begin / call.group();
  for (int64_t tile = first; tile < end; tile += kKeyTile) {
    attend_tile_rows(call, work, rows, kv_head, tile, std::min(end - tile, kKeyTile));
  }
}

}  // namespace
