// The specification of attention in integers (compute i8): each step as README.md, "int8", says, one row at a
// time. What is rounded to integers is computed in f32 as the vector kernels do; the rest is in double.
#include <cmath>
#include <cstring>
#include <limits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

namespace bitloom::scalar {

namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

int32_t zero_of(const KvPage& layout) { return 1 << (layout.bits - 1); }

// A code as stored: i8 -127 to 127, i4 0 to 15, i2 0 to 3.
int32_t code_of(const KvPage& layout, const uint8_t* page, int64_t token, int64_t channel) {
  const KvPlace place = kv_place(layout, token, channel);
  const uint32_t bits = load_as<uint32_t>(page + place.offset) >> place.shift & ((1u << layout.bits) - 1);
  return layout.bits == 8 ? static_cast<int8_t>(bits) : static_cast<int32_t>(bits);
}

// levels / largest, or 0 where that is not finite.
float inverse_of(float largest, float levels) {
  const float inverse = levels / largest;
  return inverse < std::numeric_limits<float>::infinity() ? inverse : 0;
}

struct State {
  double maximum, total;
  double* sums;  // [value_dim]

  void clear(int64_t dim) {
    maximum = kMinusInfinity;
    total = 0;
    for (int64_t i = 0; i < dim; ++i) sums[i] = 0;
  }
  // Brings the sums to a maximum of at least `other`.
  void raise(double other, int64_t dim) {
    if (!(other > maximum)) return;
    const double factor = std::exp(maximum - other);
    maximum = other;
    total *= factor;
    for (int64_t i = 0; i < dim; ++i) sums[i] *= factor;
  }
};

struct Work {
  State joined, chunk;
  float* query;    // [head_dim], times scale
  float* product;  // [head_dim]
  float* row;      // [max(head_dim, value_dim)]
  float scores[kKeyTile];
  bool seen[kKeyTile];

  Work(const AttentionCall& call, uint8_t* memory) {
    joined.sums = reinterpret_cast<double*>(memory);
    chunk.sums = joined.sums + call.value_dim;
    query = reinterpret_cast<float*>(chunk.sums + call.value_dim);
    product = query + call.head_dim;
    row = product + call.head_dim;
  }
};

// Where a tile stands.
struct Tile {
  int32_t segment;
  int64_t sequence, kv_head, first, count;
};

// Scores of a tile's keys whose codes are multiplied as integers.
void score_integers(const AttentionCall& call, const Tile& tile, Work& work) {
  const KvPage& layout = call.segments[tile.segment].key_page;
  const int64_t dim = call.head_dim;
  for (int64_t s = 0; s < tile.count; ++s) {
    if (!work.seen[s]) continue;
    const AttentionCall::Place place = call.place(tile.segment, tile.sequence, tile.kv_head, tile.first + s);
    const uint8_t* page = call.page(tile.segment, false, place.page, tile.kv_head);
    float largest = 0;
    double rest = 0;
    bool finite = true;
    for (int64_t i = 0; i < dim; ++i) {
      work.product[i] = work.query[i];
      if (layout.scale == KvScale::channel) {
        const KvAffine affine = kv_affine(layout, page, place.index, i);
        const float scale = f16_to_f32(affine.scale);
        const float middle = std::fma(scale, static_cast<float>(zero_of(layout)), f16_to_f32(affine.offset));
        rest += static_cast<double>(work.query[i]) * static_cast<double>(middle);
        work.product[i] *= scale;
      }
      finite &= std::isfinite(work.product[i]);
      largest = std::max(largest, std::abs(work.product[i]));
    }
    const float inverse = finite ? inverse_of(largest, 127) : 0;
    const float scale = finite ? largest / 127 : std::numeric_limits<float>::quiet_NaN();
    int32_t dot = 0;
    for (int64_t i = 0; i < dim; ++i) {
      const int32_t q = static_cast<int32_t>(std::nearbyint(finite ? work.product[i] * inverse : 0));
      const int32_t zero = layout.scale == KvScale::channel ? zero_of(layout) : 0;
      dot += q * (code_of(layout, page, place.index, i) - zero);
    }
    const float x = static_cast<float>(dot) * scale;
    work.scores[s] = layout.scale == KvScale::channel ? static_cast<float>(static_cast<double>(x) + rest)
                                                      : x * load_as<float>(page + 4 * place.index);
  }
}

// Key or value of a token in f32.
void load_token(const AttentionCall& call, const Tile& tile, bool values, int64_t s, float* row) {
  const KeySegment& segment = call.segments[tile.segment];
  const bool own = values && segment.paged->values.data != nullptr;
  const AttentionCall::Place place = call.place(tile.segment, tile.sequence, tile.kv_head, tile.first + s);
  decode_kv(own ? segment.value_page : segment.key_page,
            call.page(tile.segment, own, place.page, tile.kv_head), place.index, 1, row);
}

void score_floats(const AttentionCall& call, const Tile& tile, Work& work) {
  for (int64_t s = 0; s < tile.count; ++s) {
    if (!work.seen[s]) continue;
    load_token(call, tile, false, s, work.row);
    double dot = 0;
    for (int64_t i = 0; i < call.head_dim; ++i) dot += static_cast<double>(work.query[i]) * work.row[i];
    work.scores[s] = static_cast<float>(dot);
  }
}

// Values of channels [begin, end), which share a scale per token: weights become integers up to 255.
void add_integers(const AttentionCall& call, const Tile& tile, Work& work, int64_t begin, int64_t end) {
  const KvPage& layout = call.segments[tile.segment].value_page;
  const bool channel = layout.scale == KvScale::channel;
  const uint8_t* pages[kKeyTile];
  int64_t index[kKeyTile];
  float product[kKeyTile];
  double middles = 0;
  float largest = 0;
  bool finite = true;
  for (int64_t s = 0; s < tile.count; ++s) {
    if (!work.seen[s]) continue;
    const AttentionCall::Place place = call.place(tile.segment, tile.sequence, tile.kv_head, tile.first + s);
    pages[s] = call.page(tile.segment, true, place.page, tile.kv_head);
    index[s] = place.index;
    float scale, middle = 0;
    if (channel) {
      const KvAffine affine = kv_affine(layout, pages[s], place.index, begin);
      scale = f16_to_f32(affine.scale);
      middle = std::fma(scale, static_cast<float>(zero_of(layout)), f16_to_f32(affine.offset));
    } else {
      scale = load_as<float>(pages[s] + 4 * place.index);
    }
    finite &= std::isfinite(scale) && std::isfinite(middle);
    product[s] = work.scores[s] * scale;
    middles += static_cast<double>(work.scores[s]) * static_cast<double>(middle);
    largest = std::max(largest, product[s]);
  }
  const float inverse = inverse_of(largest, 255);
  const double scale = finite ? static_cast<double>(largest / 255) : std::numeric_limits<double>::quiet_NaN();
  for (int64_t i = begin; i < end; ++i) {
    int32_t sum = 0;
    for (int64_t s = 0; s < tile.count && finite; ++s) {
      if (!work.seen[s]) continue;
      const float weight = product[s] * inverse;
      const int32_t code = code_of(layout, pages[s], index[s], i) - (channel ? zero_of(layout) : 0);
      sum += (std::isnan(weight) ? 0 : static_cast<int32_t>(std::nearbyint(weight))) * code;
    }
    work.chunk.sums[i] += static_cast<double>(sum) * scale + middles;
  }
}

void attend_tile(const AttentionCall& call, const Tile& tile, Work& work) {
  const bool integers = is_integer_segment(call.segments[tile.segment]);
  double largest = kMinusInfinity;
  for (int64_t s = 0; s < tile.count; ++s) {
    if (work.seen[s] && work.scores[s] > largest) largest = work.scores[s];
  }
  work.chunk.raise(largest, call.value_dim);
  const double base = work.chunk.maximum == kMinusInfinity ? 0 : work.chunk.maximum;
  for (int64_t s = 0; s < tile.count; ++s) {
    if (!work.seen[s]) continue;
    work.scores[s] = static_cast<float>(std::exp(static_cast<double>(work.scores[s]) - base));
    work.chunk.total += static_cast<double>(work.scores[s]);
  }
  if (integers) {
    const KvPage& layout = call.segments[tile.segment].value_page;
    const int64_t width = layout.scale == KvScale::channel ? kKvValueGroup : call.value_dim;
    for (int64_t i = 0; i < call.value_dim; i += width) {
      add_integers(call, tile, work, i, std::min(i + width, call.value_dim));
    }
    return;
  }
  for (int64_t s = 0; s < tile.count; ++s) {
    if (!work.seen[s]) continue;
    load_token(call, tile, true, s, work.row);
    for (int64_t i = 0; i < call.value_dim; ++i) {
      work.chunk.sums[i] += static_cast<double>(work.scores[s]) * static_cast<double>(work.row[i]);
    }
  }
}

void attend(const AttentionCall& call, int64_t sequence, int64_t t, int64_t head, Work& work) {
  const int64_t kv_head = head / call.group();
  const int64_t queries = call.query_count(sequence), keys = call.keys(sequence, kv_head);
  const int64_t row = call.first_query(sequence) + t;
  const Sight sight(call, t, queries, keys, head);
  const int64_t bytes = dtype_bytes(call.q.dtype);
  load_values(
      call.q.dtype,
      static_cast<const uint8_t*>(call.q.data) + (row * call.q.strides[0] + head * call.q.strides[1]) * bytes,
      call.q.strides[2], call.head_dim, work.query);
  for (int64_t i = 0; i < call.head_dim; ++i) work.query[i] *= call.scale;
  AttentionCall added = call;  // finish_score() without the scale, which is in the query
  added.scale = 1;
  float* probabilities = call.probabilities.data == nullptr ? nullptr : probability_row(call, row, head);
  work.joined.clear(call.value_dim);
  int64_t before = 0;
  for (int32_t segment = 0; segment < call.segment_count; ++segment) {
    const int64_t length = call.segment_keys(segment, sequence, kv_head);
    for (int64_t chunk = 0; chunk < length; chunk += kKeyChunk) {
      const int64_t chunk_end = std::min(chunk + kKeyChunk, length);
      work.chunk.clear(call.value_dim);
      for (int64_t first = chunk; first < chunk_end; first += kKeyTile) {
        const Tile tile{segment, sequence, kv_head, first, std::min(kKeyTile, chunk_end - first)};
        for (int64_t s = 0; s < tile.count; ++s) {
          const int64_t key = before + first + s;
          work.seen[s] = (key < sight.sink_end || (key >= sight.begin && key < sight.end)) &&
                         !is_masked(call, sequence, t, head, key, keys);
        }
        is_integer_segment(call.segments[segment]) ? score_integers(call, tile, work)
                                                   : score_floats(call, tile, work);
        for (int64_t s = 0; s < tile.count; ++s) {
          const int64_t key = before + first + s;
          if (!work.seen[s]) continue;
          if (has_score_terms(call)) {
            work.scores[s] = finish_score(added, work.scores[s], sequence, t, head, key, keys);
          }
          if (probabilities != nullptr) probabilities[key] = work.scores[s];
          // As one that is not seen, whatever its value.
          if (work.scores[s] == kMinusInfinity) work.seen[s] = false;
        }
        attend_tile(call, tile, work);
      }
      work.joined.raise(work.chunk.maximum, call.value_dim);
      work.chunk.raise(work.joined.maximum, call.value_dim);
      work.joined.total += work.chunk.total;
      for (int64_t i = 0; i < call.value_dim; ++i) work.joined.sums[i] += work.chunk.sums[i];
    }
    before += length;
  }
  State& state = work.joined;
  if (call.sinks != nullptr) {
    const double sink = static_cast<double>(call.sinks[head]);
    state.raise(sink, call.value_dim);
    if (state.maximum != kMinusInfinity) state.total += std::exp(sink - state.maximum);
  }
  for (int64_t i = 0; i < call.value_dim; ++i) {
    work.row[i] = state.total == 0 ? 0 : static_cast<float>(state.sums[i] / state.total);
  }
  store_values(call.output.dtype, output_row(call, row, head), call.output.strides[2], call.value_dim,
               work.row);
  const double lse = state.total == 0 ? kMinusInfinity : state.maximum + std::log(state.total);
  if (call.lse.data != nullptr) *lse_of(call, row, head) = static_cast<float>(lse);
  for (int64_t s = 0; probabilities != nullptr && s < call.probabilities.shape[2]; ++s) {
    const bool none = lse == kMinusInfinity || probabilities[s] == kMinusInfinity;
    probabilities[s] = none ? 0 : static_cast<float>(std::exp(probabilities[s] - lse));
  }
}

}  // namespace

void attention_i8(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  Work work(call, memory);
  for (int64_t sequence = task.sequence_begin; sequence < task.sequence_end; ++sequence) {
    for (int64_t t = task.query_begin; t < task.query_end; ++t) {
      for (int64_t head = task.head_begin; head < task.head_end; ++head)
        attend(call, sequence, t, head, work);
    }
  }
}

void attention_join_i8(const AttentionCall&, int64_t, int64_t, const float*, int64_t, uint8_t*) {}

uint64_t attention_scratch_bytes_i8(const AttentionCall& call, int64_t) {
  const int64_t floats = 2 * call.head_dim + std::max(call.head_dim, call.value_dim);
  return static_cast<uint64_t>(2 * call.value_dim) * sizeof(double) +
         static_cast<uint64_t>(floats) * sizeof(float);
}

}  // namespace bitloom::scalar
