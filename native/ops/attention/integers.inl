// Attention in integers (compute i8) over pages whose codes are integers, vectors of 16: what happens between the two products
// of a tile. Included after tile.inl. What is rounded where: README.md, "int8".

#include "integer_vectors.inl"

namespace {

// What is taken off a code before it is multiplied by its scale, so that codes lie around 0 and what their factor is rounded
// by weighs little. For 8 bits, keys: what makes a code unsigned.
constexpr int32_t zero_of(int32_t bits) { return 1 << (bits - 1); }

inline int64_t padded64(int64_t n) { return (n + 63) / 64 * 64; }

// A task's part of the workspace behind that of Work. Rows are padded as the level wants them (padded_rows, own_bytes: before
// this file).
struct Integers {
  int64_t rows;
  int64_t query_bytes;   // of a row: head_dim padded to 64
  int64_t value_groups;  // most groups of channels that a value's scales can have
  float* query;          // [rows][query_bytes], times scale
  float* product;        // [kGroup][query_bytes]: of query and a page's scales
  int8_t* codes;         // [rows][query_bytes]: the query as integers
  float* channel_scale;  // [query_bytes], of a page of keys
  float* channel_middle;
  float* value_scale;   // [value_groups][kKeyTile], of a tile
  float* value_middle;  // the value of the code zero_of()
  uint8_t* weights;     // [rows][value_groups][kKeyTile] as integers
  float* weight_scale;  // [rows][value_groups]
  float* middles;       // [rows][value_groups][16]: sums of weight * middle, lane by lane
  float* totals;        // [rows][16]
  uint64_t bytes;
  alignas(64) float query_scale[kMaxTaskRows], query_rest[kMaxTaskRows], factor[kMaxTaskRows];
  alignas(64) int32_t query_bias[kMaxTaskRows];
  uint8_t* own;     // of the level, own_bytes() of them
  uint8_t* joined;  // joined_bytes()
  uint64_t odd[kMaxKvDim / kKvValueGroup];  // tokens whose value scales are not finite
  bool any_odd = false;
  bool loaded = false;                      // the query
  const uint8_t* scaled_for = nullptr;      // page of keys that `codes` is for

  Integers(const AttentionCall& call, int64_t row_count, uint8_t* memory)
      : rows(padded_rows(row_count)),
        query_bytes(padded64(call.head_dim)),
        value_groups((call.value_dim + kKvValueGroup - 1) / kKvValueGroup) {
    uint8_t* next = memory;
    const auto take = [&](auto** pointer, int64_t count) {
      *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(next);
      next += align_up(static_cast<uint64_t>(count) * sizeof(**pointer));
    };
    take(&query, rows * query_bytes);
    take(&product, kGroup * query_bytes);
    take(&codes, rows * query_bytes);
    take(&channel_scale, query_bytes);
    take(&channel_middle, query_bytes);
    take(&value_scale, value_groups * kKeyTile);
    take(&value_middle, value_groups * kKeyTile);
    take(&weights, rows * value_groups * kKeyTile);
    take(&weight_scale, rows * value_groups);
    take(&middles, rows * value_groups * kUnit);
    take(&totals, rows * kUnit);
    take(&own, static_cast<int64_t>(own_bytes(call)));
    take(&joined, static_cast<int64_t>(joined_bytes(call)));
    bytes = static_cast<uint64_t>(next - memory);
  }
};

// ---- the query ----

// The queries of the task's rows, padded by zeros.
void load_queries(const Work& work, Integers& ints) {
  if (ints.loaded) return;
  ints.loaded = true;
  if (work.rows < ints.rows || work.head_dim < ints.query_bytes) {
    std::memset(ints.query, 0, static_cast<size_t>(ints.rows * ints.query_bytes) * sizeof(float));
  }
  for (int64_t row = 0; row < work.rows; ++row) {
    std::memcpy(ints.query + row * ints.query_bytes, work.query + row * work.head_dim,
                static_cast<size_t>(work.head_dim) * sizeof(float));
  }
}

// The page's scales of channels in f32, and the values of the code zero_of().
void load_channels(const KvPage& layout, const uint8_t* page, Integers& ints) {
  const __m512 zero = _mm512_set1_ps(static_cast<float>(zero_of(layout.bits)));
  for (int64_t i = 0; i < layout.dim; i += kUnit) {
    const __mmask16 lanes = layout.dim - i < kUnit ? Vec::first(layout.dim - i) : 0xffff;
    const __m512 scale = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, page + 2 * i));
    const __m512 offset = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, page + 2 * (layout.dim + i)));
    _mm512_store_ps(ints.channel_scale + i, scale);
    _mm512_store_ps(ints.channel_middle + i, _mm512_fmadd_ps(scale, zero, offset));
  }
}

// codes, query_scale, query_rest and query_bias of all rows: x = (codes . key codes + bias) * scale + rest.
template <bool kChannel>
void quantize_query(const KvPage& layout, Integers& ints) {
  const int64_t bytes = ints.query_bytes;
  const int64_t dim = (layout.dim + kUnit - 1) / kUnit * kUnit;
  for (int64_t row = 0; row < ints.rows; row += kGroup) {
    __m512 largest[kGroup], rest[kGroup], sum[kGroup];
    for (int r = 0; r < kGroup; ++r) largest[r] = rest[r] = sum[r] = _mm512_setzero_ps();
    const float* query = ints.query + row * bytes;
    for (int64_t i = 0; i < dim; i += kUnit) {
      const __m512 scale = kChannel ? _mm512_load_ps(ints.channel_scale + i) : _mm512_setzero_ps();
      const __m512 middle = kChannel ? _mm512_load_ps(ints.channel_middle + i) : _mm512_setzero_ps();
      for (int r = 0; r < kGroup; ++r) {
        __m512 x = _mm512_load_ps(query + r * bytes + i);
        if constexpr (kChannel) {
          rest[r] = _mm512_fmadd_ps(x, middle, rest[r]);
          x = _mm512_mul_ps(x, scale);
          _mm512_store_ps(ints.product + r * bytes + i, x);
        }
        const __m512i magnitude = _mm512_and_si512(as_ints(x), _mm512_set1_epi32(0x7fffffff));
        largest[r] = as_ps(_mm512_max_epi32(as_ints(largest[r]), magnitude));
      }
    }
    const float* from = kChannel ? ints.product : query;
    const __m128 magnitude = join_lanes<LargestBits>(largest);
    alignas(16) float inverse[kGroup];
    _mm_store_ps(inverse, inverse_of(magnitude, 127));
    for (int64_t i = 0; i < bytes; i += 64) {
      for (int r = 0; r < kGroup; ++r) {
        const __m512 by = _mm512_set1_ps(inverse[r]);
        __m512 x[4];
        for (int j = 0; j < 4; ++j) {
          const bool there = i + j * kUnit < dim;
          x[j] = there ? _mm512_mul_ps(_mm512_load_ps(from + r * bytes + i + j * kUnit), by) : _mm512_setzero_ps();
        }
        const __m512i codes = to_bytes<true>(x[0], x[1], x[2], x[3]);
        _mm512_store_si512(ints.codes + (row + r) * bytes + i, codes);
        sum[r] = as_ps(_mm512_dpbusd_epi32(as_ints(sum[r]), _mm512_set1_epi8(1), codes));
      }
    }
    // NaN where the largest magnitude is not finite
    const __m128 scale = _mm_add_ps(_mm_div_ps(magnitude, _mm_set1_ps(127)), _mm_sub_ps(magnitude, magnitude));
    _mm_store_ps(ints.query_scale + row, scale);
    _mm_store_ps(ints.query_rest + row, join_lanes<Sum>(rest));
    const __m128i bias = _mm_mullo_epi32(_mm_castps_si128(join_lanes<IntegerSum>(sum)), _mm_set1_epi32(-zero_of(layout.bits)));
    _mm_store_si128(reinterpret_cast<__m128i*>(ints.query_bias + row), bias);
  }
}

// ---- softmax ----

// Turns the scores of four rows into weights, exp(x - maximum); factor: what older sums are to be multiplied by.
void weigh_rows(Work& work, Integers& ints, Ahead& ahead, int64_t row) {
  float* scores = work.scores + row * kKeyTile;
  const __m512 log2e = _mm512_set1_ps(1.44269504f);
  __m512 largest[kGroup];
  for (int r = 0; r < kGroup; ++r) {
    const uint64_t seen = row + r < work.rows ? work.seen[row + r] : ~uint64_t{0};
    __m512 x[kUnits];
    for (int v = 0; v < kUnits; ++v) x[v] = _mm512_load_ps(scores + r * kKeyTile + v * kUnit);
    if (seen != ~uint64_t{0}) {
      for (int v = 0; v < kUnits; ++v) {
        const __mmask16 lanes = static_cast<__mmask16>(seen >> (v * kUnit));
        x[v] = _mm512_mask_blend_ps(lanes, _mm512_set1_ps(kMinusInfinity), x[v]);
        _mm512_store_ps(scores + r * kKeyTile + v * kUnit, x[v]);
      }
    }
    largest[r] = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
  }
  const __m128 old_maximum = _mm_loadu_ps(work.maximum + row);
  const __m128 maximum = _mm_max_ps(join_lanes<Largest>(largest), old_maximum);
  // All scores so far are -infinity: weights of 0 rather than exp(-inf + inf).
  const __mmask8 none = _mm_cmp_ps_mask(maximum, _mm_set1_ps(kMinusInfinity), _CMP_EQ_OQ);
  const __m128 base = _mm_mask_mov_ps(maximum, none, _mm_setzero_ps());
  const __m128 step = _mm_mul_ps(_mm_sub_ps(old_maximum, base), _mm_set1_ps(1.44269504f));
  _mm_storeu_ps(work.maximum + row, maximum);
  _mm_store_ps(ints.factor + row, _mm512_castps512_ps128(exp2_of(_mm512_castps128_ps512(step))));
  alignas(16) float bases[kGroup];
  _mm_store_ps(bases, _mm_mul_ps(base, _mm_set1_ps(1.44269504f)));
  for (int r = 0; r < kGroup; ++r) {
    ahead.step();
    const __m512 from = _mm512_set1_ps(bases[r]);
    __m512 weight[kUnits];
    for (int v = 0; v < kUnits; ++v) {
      float* at = scores + r * kKeyTile + v * kUnit;
      weight[v] = exp2_of(_mm512_fmsub_ps(_mm512_load_ps(at), log2e, from));
      _mm512_store_ps(at, weight[v]);
    }
    const __m512 sum = _mm512_add_ps(_mm512_add_ps(weight[0], weight[1]), _mm512_add_ps(weight[2], weight[3]));
    float* total = ints.totals + (row + r) * kUnit;
    _mm512_store_ps(total, _mm512_fmadd_ps(_mm512_load_ps(total), _mm512_set1_ps(ints.factor[row + r]), sum));
  }
}

// ---- scales of values ----

// Scale and middle of 16 tokens and four groups of channels, [token][group][2] f16, to [group][kKeyTile].
inline void turn_four_groups(const uint8_t* from, float zero, float* scales, float* middles) {
  const __m512i first = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(2));
  const __m512i a = _mm512_loadu_si512(from), b = _mm512_loadu_si512(from + 64);
  const __m512i c = _mm512_loadu_si512(from + 128), d = _mm512_loadu_si512(from + 192);
  const __m512i low[2] = {_mm512_permutex2var_epi32(a, first, b), _mm512_permutex2var_epi32(a, second, b)};
  const __m512i high[2] = {_mm512_permutex2var_epi32(c, first, d), _mm512_permutex2var_epi32(c, second, d)};
  for (int pair = 0; pair < 2; ++pair) {
    const __m512i group[2] = {_mm512_shuffle_i64x2(low[pair], high[pair], 0x44),
                              _mm512_shuffle_i64x2(low[pair], high[pair], 0xee)};
    for (int g = 0; g < 2; ++g) {
      const __m512 scale = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(group[g]));
      const __m512 offset = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(group[g], 16)));
      _mm512_store_ps(scales + (pair * 2 + g) * kKeyTile, scale);
      _mm512_store_ps(middles + (pair * 2 + g) * kKeyTile, _mm512_fmadd_ps(scale, _mm512_set1_ps(zero), offset));
    }
  }
}

// Scales that are not finite are taken out, their tokens noted in `odd`.
void take_out_odd(Integers& ints, int64_t groups, bool middles) {
  for (int64_t g = 0; g < groups; ++g) {
    ints.odd[g] = 0;
    for (int64_t v = 0; v < kUnits; ++v) {
      float* scale = ints.value_scale + g * kKeyTile + v * kUnit;
      float* middle = ints.value_middle + g * kKeyTile + v * kUnit;
      __mmask16 bad = _mm512_fpclass_ps_mask(_mm512_load_ps(scale), 0x99);
      if (middles) bad |= _mm512_fpclass_ps_mask(_mm512_load_ps(middle), 0x99);
      ints.odd[g] |= static_cast<uint64_t>(bad) << (v * kUnit);
      _mm512_mask_store_ps(scale, bad, _mm512_setzero_ps());
      if (middles) _mm512_mask_store_ps(middle, bad, _mm512_setzero_ps());
    }
  }
}

// value_scale and value_middle of a tile.
void load_value_scales(const KvPage& layout, const Tile& tile, Integers& ints) {
  const int64_t groups = layout.scale == KvScale::channel ? layout.groups : 1;
  const float zero = static_cast<float>(zero_of(layout.bits));
  for (int64_t u = 0; u < kUnits; ++u) {
    const uint8_t* page = tile.value_page[u];
    float* scales = ints.value_scale + u * kUnit;
    float* middles = ints.value_middle + u * kUnit;
    if (layout.scale == KvScale::token) {
      _mm512_store_ps(scales, _mm512_loadu_ps(page + tile.unit[u] * kUnit * 4));
    } else if (groups == 4) {
      turn_four_groups(page + tile.unit[u] * kUnit * 16, zero, scales, middles);
    } else {
      for (int64_t t = 0; t < kUnit; ++t) {
        for (int64_t g = 0; g < groups; ++g) {
          const KvAffine affine = load_as<KvAffine>(page + 4 * ((tile.unit[u] * kUnit + t) * groups + g));
          const float scale = f16_to_f32(affine.scale);
          scales[g * kKeyTile + t] = scale;
          middles[g * kKeyTile + t] = fmaf(scale, zero, f16_to_f32(affine.offset));
        }
      }
    }
  }
  const bool has_middles = layout.scale == KvScale::channel;
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i largest = _mm512_setzero_si512();  // as bits: infinity and NaN come last
  for (int64_t i = 0; i < groups * kKeyTile; i += kUnit) {
    const __m512i scale = _mm512_load_si512(ints.value_scale + i);
    largest = _mm512_max_epi32(largest, _mm512_and_si512(scale, magnitude));
    if (!has_middles) continue;
    const __m512i middle = _mm512_load_si512(ints.value_middle + i);
    largest = _mm512_max_epi32(largest, _mm512_and_si512(middle, magnitude));
  }
  ints.any_odd = _mm512_cmpge_epi32_mask(largest, _mm512_set1_epi32(0x7f800000)) != 0;
  if (ints.any_odd) take_out_odd(ints, groups, has_middles);
}

// Weights times scales of values as integers, for four rows and each group of channels; sums of weights times middles. A step
// ahead for each group, or for each row where there is one group: so the lines of the next tile are spread over all the work.
template <bool kChannel>
void quantize_weights(const KvPage& layout, const Work& work, Integers& ints, Ahead& ahead, int64_t row) {
  const int64_t groups = kChannel ? layout.groups : 1;
  const float* weights = work.scores + row * kKeyTile;
  for (int64_t g = 0; g < groups; ++g) {
    if (kChannel) ahead.step();
    __m512 x[kGroup][kUnits], largest[kGroup];
#pragma GCC unroll 4
    for (int v = 0; v < kUnits; ++v) {
      const __m512 scale = _mm512_load_ps(ints.value_scale + g * kKeyTile + v * kUnit);
#pragma GCC unroll 4
      for (int r = 0; r < kGroup; ++r) {
        x[r][v] = _mm512_mul_ps(scale, _mm512_load_ps(weights + r * kKeyTile + v * kUnit));
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kGroup; ++r) {
      largest[r] = _mm512_max_ps(_mm512_max_ps(x[r][0], x[r][1]), _mm512_max_ps(x[r][2], x[r][3]));
    }
    const __m128 most = join_lanes<Largest>(largest);
    alignas(16) float inverse[kGroup], scale[kGroup];
    _mm_store_ps(inverse, inverse_of(most, 255));
    _mm_store_ps(scale, _mm_div_ps(most, _mm_set1_ps(255)));
    const int64_t at = row * ints.value_groups + g;
#pragma GCC unroll 4
    for (int r = 0; r < kGroup; ++r) {
      if (!kChannel) ahead.step();
      const __m512 by = _mm512_set1_ps(inverse[r]);
      _mm512_store_si512(ints.weights + (at + r * ints.value_groups) * kKeyTile,
                         to_bytes<false>(_mm512_mul_ps(x[r][0], by), _mm512_mul_ps(x[r][1], by),
                                         _mm512_mul_ps(x[r][2], by), _mm512_mul_ps(x[r][3], by)));
      ints.weight_scale[at + r * ints.value_groups] = scale[r];
    }
    for (int64_t r = row; ints.any_odd && r < std::min(row + kGroup, work.rows); ++r) {
      if ((work.seen[r] & ints.odd[g]) != 0) ints.weight_scale[r * ints.value_groups + g] = __builtin_nanf("");
    }
  }
  for (int64_t r = 0; kChannel && r < kGroup; ++r) {
    const __m512 factor = _mm512_set1_ps(ints.factor[row + r]);
    __m512 weight[kUnits];
    for (int v = 0; v < kUnits; ++v) weight[v] = _mm512_load_ps(weights + r * kKeyTile + v * kUnit);
    for (int64_t g = 0; g < groups; ++g) {
      float* middles = ints.middles + ((row + r) * ints.value_groups + g) * kUnit;
      __m512 sum = _mm512_mul_ps(_mm512_load_ps(middles), factor);
      for (int v = 0; v < kUnits; ++v) {
        sum = _mm512_fmadd_ps(weight[v], _mm512_load_ps(ints.value_middle + g * kKeyTile + v * kUnit), sum);
      }
      _mm512_store_ps(middles, sum);
    }
  }
}

// ---- chunks ----

void clear_integers(const KvPage& values, Work& work, Integers& ints) {
  for (int64_t row = 0; row < ints.rows; ++row) {
    work.maximum[row] = kMinusInfinity;
    work.total[row] = 0;
  }
  clear(work.sums, ints.rows * work.stride);
  clear(ints.totals, ints.rows * kUnit);
  if (values.scale == KvScale::channel) clear(ints.middles, ints.rows * ints.value_groups * kUnit);
}

// What was summed lane by lane, to the sums of the chunk.
void fold_integers(const KvPage& values, Work& work, const Integers& ints) {
  for (int64_t row = 0; row < work.rows; ++row) {
    work.total[row] = _mm512_reduce_add_ps(_mm512_load_ps(ints.totals + row * kUnit));
    if (values.scale != KvScale::channel) continue;
    for (int64_t g = 0; g < values.groups; ++g) {
      const float* middles = ints.middles + (row * ints.value_groups + g) * kUnit;
      const Vec sum = Vec::set(_mm512_reduce_add_ps(_mm512_load_ps(middles)));
      float* sums = work.sums + row * work.stride + g * kKvValueGroup;
      const int64_t lanes = std::min(kKvValueGroup, work.stride - g * kKvValueGroup);
      for (int64_t i = 0; i < lanes; i += kUnit) (Vec::load(sums + i) + sum).store(sums + i);
    }
  }
}

}  // namespace
