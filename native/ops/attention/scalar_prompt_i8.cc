// The specification of prompts in integers (prompt.h; README.md, "Prompts in int8"): each step as it says there, one row at a
// time. What is rounded to integers is computed in f32 as the vector kernels do; the rest is in double.
#include <cmath>
#include <cstring>
#include <limits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "prompt.h"

namespace bitloom::scalar {

namespace {

constexpr int64_t kBlock = 128;  // keys that share a scale
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

constexpr float kRoom = 0.5f;        // of a chunk's base above its first block's scores
constexpr float kTop = 7.99435344f;  // log2(255): the weight of a score that is the base

// 2^x for x <= 8, within 1.8e-3 of itself.
float exp2_weight(float x) {
  const float r = x - std::floor(x);
  const float p = std::fma(std::fma(0.33718944f, r, 0.65763632f), r, 1.00172474f);
  return x < -200 ? 0 : std::ldexp(p, static_cast<int>(std::floor(x)));
}

// A packed chunk.
struct Packed {
  float *mean, *key_scale, *value_scale;  // [head_dim], [kKeyChunk / kBlock], [value_dim]
  int8_t *keys, *values;                  // [kKeyChunk][head_dim], [kKeyChunk][value_dim]

  Packed(const AttentionCall& call, uint8_t* memory) {
    mean = reinterpret_cast<float*>(memory);
    key_scale = mean + call.head_dim;
    value_scale = key_scale + kKeyChunk / kBlock;
    keys = reinterpret_cast<int8_t*>(value_scale + call.value_dim);
    values = keys + kKeyChunk * call.head_dim;
  }
};

// Key or value of a token in f32.
void load_token(const AttentionCall& call, bool values, int64_t sequence, int64_t kv_head, int32_t segment,
                int64_t token, float* row) {
  if (call.segments[segment].paged == nullptr) {
    const bl_tensor& from = values ? call.v : call.k;
    const int64_t offset = (call.first_key(sequence) + token) * from.strides[0] + kv_head * from.strides[1];
    return load_values(from.dtype, static_cast<const uint8_t*>(from.data) + offset * dtype_bytes(from.dtype),
                       from.strides[2], from.shape[2], row);
  }
  const bool own = values && call.segments[segment].paged->values.data != nullptr;
  const AttentionCall::Place place = call.place(segment, sequence, kv_head, token);
  const KvPage& layout = own ? call.segments[segment].value_page : call.segments[segment].key_page;
  decode_kv(layout, call.page(segment, own, place.page, kv_head), place.index, 1, row);
}

// 127 / largest, or 0 where that is not finite.
float inverse_of(float largest) {
  const float inverse = 127 / largest;
  return inverse < std::numeric_limits<float>::infinity() ? inverse : 0;
}

int8_t code_of(float x, float inverse) { return static_cast<int8_t>(std::nearbyint(x * inverse)); }

// Codes of keys [begin, end), less the mean.
bool pack_block(const Packed& to, int64_t dim, const float* keys, int64_t begin, int64_t end) {
  float largest = 0;
  for (int64_t i = begin * dim; i < end * dim; ++i) {
    const float x = std::abs(keys[i] - to.mean[i % dim]);
    if (!std::isfinite(x)) return false;
    largest = std::max(largest, x);
  }
  to.key_scale[begin / kBlock] = largest / 127;
  const float inverse = inverse_of(largest);
  for (int64_t i = begin * dim; i < end * dim; ++i) to.keys[i] = code_of(keys[i] - to.mean[i % dim], inverse);
  return true;
}

// A row over a chunk.
struct RowOfChunk {
  int64_t sequence, query, head, before, first, count;
  int64_t queries, keys;
  const float* q;  // [head_dim], times scale and log2(e), or times scale where there are terms
};

// Scores of keys [begin, end) of the chunk in units of log2, -infinity where they are not seen. False if one is NaN or
// +infinity.
bool score(const AttentionCall& call, const RowOfChunk& row, const Packed& packed, int64_t begin, int64_t end,
           float* x) {
  const int64_t dim = call.head_dim;
  float largest = 0;
  double offset = 0;
  bool good = true;
  for (int64_t i = 0; i < dim; ++i) {
    good &= std::isfinite(row.q[i]);
    largest = std::max(largest, std::abs(row.q[i]));
    offset += static_cast<double>(row.q[i]) * static_cast<double>(packed.mean[i]);
  }
  good &= std::isfinite(static_cast<float>(offset));
  const float inverse = inverse_of(largest);
  const float scale = largest / 127 * packed.key_scale[begin / kBlock];
  const Sight sight(call, row.query, row.queries, row.keys, row.head);
  AttentionCall added = call;  // finish_score() without the scale, which is in the query
  added.scale = 1;
  for (int64_t s = begin; s < end; ++s) {
    const int64_t key = row.before + row.first + s;
    x[s - begin] = kMinusInfinity;
    const bool seen = key < sight.sink_end || (key >= sight.begin && key < sight.end);
    if (!seen || is_masked(call, row.sequence, row.query, row.head, key, row.keys)) continue;
    if (!good) return false;
    int32_t dot = 0;
    for (int64_t i = 0; i < dim; ++i) dot += code_of(row.q[i], inverse) * packed.keys[s * dim + i];
    float score = std::fma(static_cast<float>(dot), scale, static_cast<float>(offset));
    if (has_score_terms(call)) {
      score = finish_score(added, score, row.sequence, row.query, row.head, key, row.keys) * 1.44269504f;
    }
    if (std::isnan(score) || score == -kMinusInfinity) return false;
    x[s - begin] = score;
  }
  return true;
}

// The weights of a chunk, 0 to 255, and their base. False as score().
bool weigh(const AttentionCall& call, const RowOfChunk& row, const Packed& packed, uint8_t* weights,
           float* base_out) {
  float x[kBlock];
  float base = kMinusInfinity;
  for (int64_t begin = 0; begin < row.count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, row.count);
    if (!score(call, row, packed, begin, end, x)) return false;
    float largest = kMinusInfinity;
    for (int64_t s = begin; s < end; ++s) largest = std::max(largest, x[s - begin]);
    if (base == kMinusInfinity) {
      base = largest == kMinusInfinity ? largest : largest + kRoom;
    } else if (largest > base) {
      const float by = std::ceil(largest - base);
      const int bits = by < 16 ? static_cast<int>(by) : 16;
      for (int64_t s = 0; s < begin; ++s) {
        weights[s] = static_cast<uint8_t>((weights[s] + (1 << bits >> 1)) >> bits);
      }
      base += by;
    }
    for (int64_t s = begin; s < end; ++s) {
      const float weight = x[s - begin] == kMinusInfinity ? 0 : exp2_weight(x[s - begin] - base + kTop);
      weights[s] = static_cast<uint8_t>(std::min(std::nearbyint(weight), 255.0f));
    }
  }
  *base_out = base;
  return true;
}

void attend(const AttentionCall& call, const RowOfChunk& row, const Packed& packed, float* state) {
  uint8_t weights[kKeyChunk];
  float base;
  if (!weigh(call, row, packed, weights, &base)) {
    state[1] = std::numeric_limits<float>::quiet_NaN();
    return;
  }
  if (base == kMinusInfinity) return;
  const double larger = std::max(state[0], base);
  const double factor = std::exp2(static_cast<double>(state[0]) - larger);
  const double other = std::exp2(static_cast<double>(base) - larger) / 255;
  int32_t total = 0;
  for (int64_t s = 0; s < row.count; ++s) total += weights[s];
  state[0] = static_cast<float>(larger);
  state[1] = static_cast<float>(state[1] * factor + total * other);
  for (int64_t i = 0; i < call.value_dim; ++i) {
    int32_t sum = 0;
    for (int64_t s = 0; s < row.count; ++s) sum += weights[s] * packed.values[s * call.value_dim + i];
    const double scale = other * static_cast<double>(packed.value_scale[i]);
    state[16 + i] = static_cast<float>(state[16 + i] * factor + sum * scale);
  }
}

}  // namespace

bool takes_prompt_i8(const AttentionCall& call) {
  return call.value_dim >= 1 && call.probabilities.data == nullptr;
}

uint64_t prompt_packed_bytes_i8(const AttentionCall& call) {
  const int64_t floats = call.head_dim + kKeyChunk / kBlock + call.value_dim;
  return static_cast<uint64_t>(floats * 4 + kKeyChunk * (call.head_dim + call.value_dim));
}

uint64_t prompt_scratch_bytes_i8(const AttentionCall& call) {
  return static_cast<uint64_t>(kKeyChunk * std::max(call.head_dim, call.value_dim)) * sizeof(float);
}

bool pack_prompt_i8(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment,
                    int64_t chunk, uint8_t* packed, uint8_t* memory) {
  const Packed to(call, packed);
  float* rows = reinterpret_cast<float*>(memory);
  const int64_t first = chunk * kKeyChunk, dim = call.head_dim;
  const int64_t count = std::min(call.segment_keys(segment, sequence, kv_head) - first, kKeyChunk);
  for (int64_t s = 0; s < count; ++s) {
    load_token(call, false, sequence, kv_head, segment, first + s, rows + s * dim);
  }
  for (int64_t i = 0; i < dim; ++i) {
    double sum = 0;
    for (int64_t s = 0; s < count; ++s) sum += static_cast<double>(rows[s * dim + i]);
    to.mean[i] = static_cast<float>(sum / static_cast<double>(count));
  }
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    if (!pack_block(to, dim, rows, begin, std::min(begin + kBlock, count))) return false;
  }
  const int64_t width = call.value_dim, stride = std::max(dim, width);  // a latent value is loaded as its key
  for (int64_t s = 0; s < count; ++s) {
    load_token(call, true, sequence, kv_head, segment, first + s, rows + s * stride);
  }
  for (int64_t i = 0; i < width; ++i) {
    float largest = 0;
    for (int64_t s = 0; s < count; ++s) {
      if (!std::isfinite(rows[s * stride + i])) return false;
      largest = std::max(largest, std::abs(rows[s * stride + i]));
    }
    to.value_scale[i] = largest / 127;
    const float inverse = inverse_of(largest);
    for (int64_t s = 0; s < count; ++s) to.values[s * width + i] = code_of(rows[s * stride + i], inverse);
  }
  return true;
}

void run_prompt_i8(const AttentionCall& call, const PromptTask& task, float* state, uint8_t* memory) {
  float* q = reinterpret_cast<float*>(memory);
  const float scale = has_score_terms(call) ? call.scale : call.scale * 1.44269504f;
  const int64_t length = call.segment_keys(task.segment, task.sequence, task.kv_head);
  for (int64_t t = task.query_begin; t < task.query_end; ++t) {
    for (int64_t head = task.head_begin; head < task.head_end; ++head, state += prompt_state_floats(call)) {
      const int64_t offset =
          (call.first_query(task.sequence) + t) * call.q.strides[0] + head * call.q.strides[1];
      load_values(call.q.dtype, static_cast<const uint8_t*>(call.q.data) + offset * dtype_bytes(call.q.dtype),
                  call.q.strides[2], call.head_dim, q);
      for (int64_t i = 0; i < call.head_dim; ++i) q[i] *= scale;
      for (int64_t chunk = task.chunk_begin; chunk < task.chunk_end; ++chunk) {
        const int64_t first = chunk * kKeyChunk;
        const RowOfChunk row{task.sequence,
                             t,
                             head,
                             task.before,
                             first,
                             std::min(length - first, kKeyChunk),
                             call.query_count(task.sequence),
                             call.keys(task.sequence, task.kv_head),
                             q};
        attend(call, row, Packed(call, const_cast<uint8_t*>(task.chunk(chunk))), state);
      }
    }
  }
}

}  // namespace bitloom::scalar
