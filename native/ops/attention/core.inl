// The body of the SIMD kernels in f32: attention in one pass over tiles of keys with a running softmax (Milakov and
// Gimelshein 2018; Dao et al. 2022). Included once inside each ISA region, after units.inl.
//
// A task's rows are its (sequence, query, head) triples; all share the keys of one kv head. Per tile of 64 keys:
//   scores   two units of 16 keys at a time are brought to panels [head_dim][16], so that a vector holds one channel
//            of many keys and no sums across lanes are needed; 4 rows share each loaded vector
//   softmax  new maximum m' of each row, weights exp(x - m'), old sums scaled by exp(m - m')
//   values   unit by unit: sums += weights x values, 4 rows sharing each loaded vector
// Keys that a row does not see have the score -infinity, hence the weight 0. Where rows of a tile differ in what they
// see, and a value there is not finite, each row takes only its own keys, so that none touches it as 0 * NaN.

namespace {

constexpr int64_t kTileRows = 4;  // 4 rows x 2 vectors of sums keep both FMA ports busy

// A task's part of the workspace.
struct Work {
  int64_t rows;
  int64_t head_dim;
  int64_t stride;   // of states and sums: padded value_dim
  float* query;     // [rows][head_dim], times scale
  float* sums;      // [rows][stride], of the chunk
  float* joined;    // [rows][stride], of all chunks so far
  float* scores;    // [rows][kKeyTile], then weights
  float* panels;    // [2][head_dim][16]
  float* values;    // [16][stride]
  float* scales;    // [2][head_dim]
  float* spare;
  float maximum[kMaxTaskRows], total[kMaxTaskRows];                // of the chunk
  float joined_maximum[kMaxTaskRows], joined_total[kMaxTaskRows];  // of all chunks so far
  uint64_t seen[kMaxTaskRows];                                     // of the tile's keys

  Work(const AttentionCall& call, int64_t row_count, uint8_t* memory)
      : rows(row_count), head_dim(call.head_dim), stride(padded16(call.value_dim)) {
    float* next = reinterpret_cast<float*>(memory);
    const auto take = [&](int64_t floats) {
      float* taken = next;
      next += padded16(floats);
      return taken;
    };
    query = take(rows * head_dim);
    sums = take(rows * stride);
    joined = take(rows * stride);
    scores = take(rows * kKeyTile);
    panels = take(2 * head_dim * kUnit);
    values = take(kUnit * stride);
    scales = take(2 * head_dim);
    spare = take(Units::spare_floats(call));
    bytes = static_cast<uint64_t>(reinterpret_cast<uint8_t*>(next) - memory);
  }
  uint64_t bytes;
};

inline void clear(float* floats, int64_t count) { std::memset(floats, 0, static_cast<size_t>(count) * sizeof(float)); }

inline float exp_one(float x) {
  alignas(64) float lanes[kLanes];
  exp(Vec::set(x)).store(lanes);
  return lanes[0];
}

// ---- scores ----

// ahead: lines that are fetched as those of `units` are read.
template <int kRows, int kUnits>
inline void score_units(const Work& work, const float* const (&units)[2], const uint8_t* const (&ahead)[2], int64_t row,
                        float* scores) {
  constexpr int kParts = kUnit / kLanes;
  const float* query = work.query + row * work.head_dim;
  Vec sum[kRows][kUnits * kParts];
  for (auto& each : sum) {
    for (Vec& one : each) one = Vec::set(0);
  }
  for (int64_t i = 0; i < work.head_dim; ++i) {
    Vec key[kUnits * kParts];
    for (int p = 0; p < kUnits * kParts; ++p) key[p] = Vec::load(units[p / kParts] + i * kUnit + p % kParts * kLanes);
    for (int u = 0; u < kUnits; ++u) __builtin_prefetch(ahead[u] + i * kUnit * 4);
    for (int r = 0; r < kRows; ++r) {
      const Vec channel = Vec::set(query[r * work.head_dim + i]);
      for (int p = 0; p < kUnits * kParts; ++p) sum[r][p] = fma(channel, key[p], sum[r][p]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kUnits * kParts; ++p) sum[r][p].store(scores + r * kKeyTile + p * kLanes);
  }
}

// Calls body with an integral constant 1 to kTileRows for each tile of rows.
template <typename Body>
inline void for_row_tiles(int64_t rows, Body&& body) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) body(std::integral_constant<int, 4>{}, row);
  if (rows - row == 3) body(std::integral_constant<int, 3>{}, row);
  if (rows - row == 2) body(std::integral_constant<int, 2>{}, row);
  if (rows - row == 1) body(std::integral_constant<int, 1>{}, row);
}

// x [rows][kKeyTile] = query . key for `count` keys from `first` on.
void score(const Work& work, Units& units, int64_t first, int64_t count) {
  // At level avx2 one unit is two vectors already.
  constexpr int64_t kTogether = kLanes == kUnit ? 2 : 1;
  for (int64_t s = 0; s < count; s += kTogether * kUnit) {
    const bool both = kTogether == 2 && s + kUnit < count;
    const float* panels[2] = {nullptr, nullptr};
    const uint8_t* ahead[2] = {nullptr, nullptr};
    for (int u = 0; u <= both; ++u) {
      panels[u] = units.keys(first + s + u * kUnit, work.panels + u * padded16(work.head_dim * kUnit));
      // Panels are in L1: to ask for them costs less than to ask whether.
      ahead[u] = units.ahead() != nullptr ? units.ahead() : reinterpret_cast<const uint8_t*>(panels[u]);
    }
    for_row_tiles(work.rows, [&](auto size, int64_t row) {
      float* scores = work.scores + row * kKeyTile + s;
      if (both) {
        score_units<size(), 2>(work, panels, ahead, row, scores);
      } else {
        score_units<size(), 1>(work, panels, ahead, row, scores);
      }
    });
  }
}

// ---- softmax ----

// Turns a row's scores into weights. What its sums are to be multiplied by, to be of the new maximum.
float weigh(Work& work, int64_t row, int64_t count) {
  float* scores = work.scores + row * kKeyTile;
  const int64_t end = (count + kLanes - 1) / kLanes * kLanes;
  const uint64_t seen = work.seen[row];
  if (seen != bits_between(0, end)) {
    for (int64_t s = 0; s < end; ++s) {
      if ((seen >> s & 1) == 0) scores[s] = kMinusInfinity;
    }
  }
  Vec largest = Vec::set(kMinusInfinity), most_negative = Vec::set(kMinusInfinity);
  for (int64_t s = 0; s < end; s += kLanes) {
    const Vec x = Vec::load(scores + s);
    largest = max(largest, x);
    most_negative = max(most_negative, Vec::set(0) - x);
  }
  // A key whose score is -infinity is as one that is not seen, whatever its value.
  if (most_negative.reduce_max() == -kMinusInfinity) {
    for (int64_t s = 0; s < end; ++s) {
      if (scores[s] == kMinusInfinity) work.seen[row] &= ~(uint64_t{1} << s);
    }
  }
  const float old_maximum = work.maximum[row];
  const float tile_maximum = largest.reduce_max();
  const float maximum = tile_maximum > old_maximum ? tile_maximum : old_maximum;
  // All scores so far are -infinity: weights of 0 rather than exp(-inf + inf).
  const float base = maximum == kMinusInfinity ? 0 : maximum;
  Vec total = Vec::set(0);
  for (int64_t s = 0; s < end; s += kLanes) {
    const Vec weight = exp(Vec::load(scores + s) - Vec::set(base));
    weight.store(scores + s);
    total = total + weight;
  }
  const float factor = exp_one(old_maximum - base);
  work.maximum[row] = maximum;
  work.total[row] = work.total[row] * factor + total.reduce_add();
  return factor;
}

inline void scale_sums(const Work& work, int64_t row, float factor) {
  if (factor == 1) return;
  float* sums = work.sums + row * work.stride;
  for (int64_t i = 0; i < work.stride; i += kLanes) (Vec::load(sums + i) * Vec::set(factor)).store(sums + i);
}

// ---- values ----

// Values of a unit in f32.
struct FloatRows {
  const float* data;
  int64_t stride;

  Vec load(int64_t s, int64_t column) const { return Vec::load(data + s * stride + column); }
};

// The same, which fetches the line in the same place of `ahead`.
struct FetchingRows {
  FloatRows rows;
  const uint8_t* ahead;

  Vec load(int64_t s, int64_t column) const {
    __builtin_prefetch(ahead + (s * rows.stride + column) * 4);
    return rows.load(s, column);
  }
};

// sums[row + r][column, column + kVecs * kLanes) += weights[row + r][lo, hi) x values, lo and hi within a unit.
template <int kRows, int kVecs, typename Values>
inline void add_vectors(const Work& work, const Values& values, const float* weights, int64_t lo, int64_t hi, int64_t row,
                        int64_t column) {
  float* sums = work.sums + row * work.stride + column;
  Vec sum[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVecs; ++c) sum[r][c] = Vec::load(sums + r * work.stride + c * kLanes);
  }
  for (int64_t s = lo; s < hi; ++s) {
    Vec value[kVecs];
    for (int c = 0; c < kVecs; ++c) value[c] = values.load(s, column + c * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec weight = Vec::set(weights[r * kKeyTile + s]);
      for (int c = 0; c < kVecs; ++c) sum[r][c] = fma(weight, value[c], sum[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVecs; ++c) sum[r][c].store(sums + r * work.stride + c * kLanes);
  }
}

template <int kRows, typename Values>
inline void add_keys(const Work& work, const Values& values, const float* weights, int64_t lo, int64_t hi, int64_t row) {
  constexpr int kVecs = kRows >= 3 ? 2 : kRows == 2 ? 4 : 8;
  int64_t column = 0;
  for (; column + kVecs * kLanes <= work.stride; column += kVecs * kLanes) {
    add_vectors<kRows, kVecs>(work, values, weights, lo, hi, row, column);
  }
  for (; column < work.stride; column += kLanes) {
    add_vectors<kRows, 1>(work, values, weights, lo, hi, row, column);
  }
}

template <typename Values>
inline bool all_finite(const Values& values, int64_t count, int64_t columns) {
  // x * 0 is 0 for finite x and NaN for others.
  Vec sum = Vec::set(0);
  for (int64_t s = 0; s < count; ++s) {
    for (int64_t i = 0; i < columns; i += kLanes) sum = fma(values.load(s, i), Vec::set(0), sum);
  }
  return sum.reduce_add() == 0;
}

// Adds the values of one unit, whose first key is key `begin` of the tile.
template <typename Values>
void add_unit(const Work& work, const Values& values, int64_t begin, int64_t present) {
  int finite = -1;  // not looked at yet
  for_row_tiles(work.rows, [&](auto size, int64_t row) {
    uint64_t any = 0, all = ~uint64_t{0};
    for (int64_t r = row; r < row + size(); ++r) {
      const uint64_t seen = work.seen[r] >> begin & 0xffff;
      any |= seen;
      all &= seen;
    }
    if (any == 0) return;
    const int64_t lo = __builtin_ctzll(any);
    const int64_t hi = 64 - __builtin_clzll(any);
    const float* weights = work.scores + row * kKeyTile + begin;
    bool together = all == bits_between(lo, hi);
    if (!together) {
      if (finite < 0) finite = all_finite(values, present, work.stride) ? 1 : 0;
      together = finite == 1;
    }
    if (together) return add_keys<size()>(work, values, weights, lo, hi, row);
    for (int64_t r = row; r < row + size(); ++r) {
      for (uint64_t left = work.seen[r] >> begin & 0xffff; left != 0; left &= left - 1) {
        const int64_t s = __builtin_ctzll(left);
        add_keys<1>(work, values, work.scores + r * kKeyTile + begin, s, s + 1, r);
      }
    }
  });
}

// ---- chunks ----

// (maximum, total, sums) of some keys joined with those of keys before them, which are overwritten.
inline void join_state(float& maximum, float& total, float* sums, float other_maximum, float other_total,
                       const float* other_sums, int64_t stride) {
  if (other_maximum == kMinusInfinity && other_total == 0) return;  // none that count
  // One of both keeps its scale. NaN is in the totals already, or comes of the difference.
  const bool larger = other_maximum > maximum;
  const float lesser = exp_one(larger ? maximum - other_maximum : other_maximum - maximum);
  const float factor = larger ? lesser : 1;
  const float other_factor = larger ? 1 : lesser;
  if (larger) maximum = other_maximum;
  total = fmaf(total, factor, other_total * other_factor);
  for (int64_t i = 0; i < stride; i += kLanes) {
    fma(Vec::load(sums + i), Vec::set(factor), Vec::load(other_sums + i) * Vec::set(other_factor)).store(sums + i);
  }
}

void clear_state(const Work& work, float* maximum, float* total, float* sums) {
  for (int64_t row = 0; row < work.rows; ++row) {
    maximum[row] = kMinusInfinity;
    total[row] = 0;
  }
  if (sums != nullptr) clear(sums, work.rows * work.stride);
}

void clear_chunk(Work& work) { clear_state(work, work.maximum, work.total, work.sums); }

// Terms and probabilities of a row's scores in a tile, whose first key is `first` of the sequence. False if it sees none:
// weights are 0 then.
bool finish_scores(const AttentionCall& call, const Work& work, const Row& at, int64_t row, int64_t first, int64_t count) {
  float* scores = work.scores + row * kKeyTile;
  if (work.seen[row] == 0) {
    for (int64_t s = 0; s < kKeyTile; ++s) scores[s] = 0;
    return false;
  }
  if (has_score_terms(call)) add_terms(call, at, first, count, scores);
  if (call.probabilities.data != nullptr) {
    float* to = probability_row(call, call.first_query(at.sequence) + at.query, at.head);
    for (int64_t s = 0; s < count; ++s) {
      if (work.seen[row] >> s & 1) to[first + s] = scores[s];
    }
  }
  return true;
}

// The first `count` keys from `first` on of a segment into the chunk's state. before: keys of segments before.
void attend_tile(const AttentionCall& call, Work& work, const Row* rows, Units& units, int64_t before, int64_t first,
                 int64_t count) {
  uint64_t any = 0;
  for (int64_t row = 0; row < work.rows; ++row) {
    work.seen[row] = seen_keys(call, rows[row], before + first, count);
    any |= work.seen[row];
  }
  if (any == 0) return;
  score(work, units, first, count);
  for (int64_t row = 0; row < work.rows; ++row) {
    if (!finish_scores(call, work, rows[row], row, before + first, count)) continue;
    scale_sums(work, row, weigh(work, row, count));
  }
  if (call.weights_only) return;
  for (int64_t s = 0; s < count; s += kUnit) {
    if ((any >> s & 0xffff) == 0) continue;
    const int64_t present = count - s < kUnit ? count - s : kUnit;
    const float* values = units.values(first + s, work.values, work.rows >= 16);
    const FloatRows source{values, units.row_stride()};
    if (units.ahead() == nullptr) {
      add_unit(work, source, s, present);
    } else {
      add_unit(work, FetchingRows{source, units.ahead()}, s, present);
    }
  }
}

// Keys [first, end) of a segment, which are one chunk.
void attend_chunk(const AttentionCall& call, Work& work, const Row* rows, Units& units, int64_t before, int64_t first,
                  int64_t end) {
  clear_chunk(work);
  for (int64_t tile = first; tile < end; tile += kKeyTile) {
    attend_tile(call, work, rows, units, before, tile, std::min(end - tile, kKeyTile));
  }
}

}  // namespace

#include "task.inl"
