// Attention of prompts on AMX: products in bf16 with sums in f32 (prompt.h; the order of the work: amx_prompt.inl).
//
//   packed chunk   keys [32 units][steps of 32 channels][16 pairs][16 tokens] x 2 bf16, then
//                  values [16 steps of 32 tokens][tiles of 16 channels][16 pairs][16 channels] x 2: tiles as
//                  they are loaded
//
// Per block of 32 rows and 128 keys of 128 channels, in instructions: 128 tile products with as many tile loads, 16
// loads and 32 stores of scores and sums; 256 vectors of scores, each 9: maximum, base, x - floor(x), 3 of the polynomial,
// scale, half a conversion of two, sum. Products of 16 cycles are 2048 cycles, vectors at two a cycle 1150, beside them.
//
// The base m of a row is an integer and stays while no score is more than 2^40 times it: bf16 has the exponents of f32,
// so that weights above 1 lose nothing, and what has been summed is seldom rescaled, and then by a power of two.
//
// Rounded to bf16 are q times scale, k, v and the weights; 2^x is a polynomial of degree 3, whose error of
// 7.5e-5 is a fiftieth of bf16's.
#include "prompt.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstring>
#include <new>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"

#include "../../isa/amx_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"

#include "avx512_units.inl"

#include "units.inl"

#include "rows.inl"

#include "../matmul/amx_tiles.inl"

#include "amx_prompt.inl"

namespace {

constexpr int64_t kChunkSteps = kKeyChunk / 32;
constexpr float kHeadroom = 40;  // 2^40 times all tokens' values is still a number

int64_t steps_of(int64_t channels) { return (channels + 31) / 32; }
int64_t value_tiles(const AttentionCall& call) { return (call.value_dim + 31) / 32 * 2; }
int64_t key_unit_bytes(const AttentionCall& call) { return steps_of(call.head_dim) * kTileBytes; }
int64_t value_step_bytes(const AttentionCall& call) { return value_tiles(call) * kTileBytes; }
int64_t key_bytes(const AttentionCall& call) { return kKeyChunk / kUnit * key_unit_bytes(call); }

// Pairs of bf16: `low` in the lower half of each dword.
inline __m512i pairs(__m512 low, __m512 high) {
  const __m256i a = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(low));
  const __m256i b = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(high));
  return _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}

// ---- packing ----

struct PackMemory {
  float *panel, *rows, *scales, *spare;
  uint64_t bytes;

  PackMemory(const AttentionCall& call, uint8_t* memory) {
    float* next = reinterpret_cast<float*>(memory);
    const auto take = [&](int64_t floats) {
      float* taken = next;
      next += padded16(floats);
      return taken;
    };
    panel = take(call.head_dim * kUnit);
    rows = take(padded16(call.value_dim) * kUnit);
    scales = take(2 * call.head_dim);
    spare = take(padded16(std::max(call.head_dim, call.value_dim)) + kUnit * call.head_dim);
    bytes = static_cast<uint64_t>(reinterpret_cast<uint8_t*>(next) - memory);
  }
};

void pack_keys(const float* panel, int64_t head_dim, int64_t present, uint8_t* tiles) {
  // Tokens that are not there get 0, as what stands in their lanes may be anything.
  const __mmask16 tokens = static_cast<__mmask16>((1u << present) - 1);
  for (int64_t i = 0; i < steps_of(head_dim) * 16; ++i) {
    const __m512 low =
        2 * i < head_dim ? _mm512_maskz_loadu_ps(tokens, panel + 2 * i * kUnit) : _mm512_setzero_ps();
    const __m512 high = 2 * i + 1 < head_dim ? _mm512_maskz_loadu_ps(tokens, panel + (2 * i + 1) * kUnit)
                                             : _mm512_setzero_ps();
    _mm512_storeu_si512(tiles + i * 64, pairs(low, high));
  }
}

// Values of a unit to pairs half * 8 and up of a step's tiles. False if one is not finite.
bool pack_values(const float* rows, int64_t stride, int64_t value_dim, int64_t present, int64_t half,
                 uint8_t* tiles) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t c = 0; c < (value_dim + 31) / 32 * 32; c += 16) {
    const int64_t left = value_dim - c;
    const __mmask16 channels = left >= 16  ? __mmask16{0xffff}
                               : left <= 0 ? __mmask16{0}
                                           : static_cast<__mmask16>((1u << left) - 1);
    for (int64_t i = 0; i < 8; ++i) {
      const auto load = [&](int64_t token) {
        return token < present ? _mm512_maskz_loadu_ps(channels, rows + token * stride + c)
                               : _mm512_setzero_ps();
      };
      const __m512 low = load(2 * i), high = load(2 * i + 1);
      const __m512i both = pairs(low, high);
      // x * 0 is 0 for finite x and NaN for others; as bf16, where large numbers round to infinity.
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), _mm512_setzero_ps(), sum);
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536))),
                            _mm512_setzero_ps(), sum);
      _mm512_storeu_si512(tiles + c / 16 * kTileBytes + (half * 8 + i) * 64, both);
    }
  }
  return _mm512_reduce_add_ps(sum) == 0;
}

// ---- a task ----

struct Bf16 {
  template <int kSums>
  static void multiply(bool) {
    if constexpr (kSums == 0) _tile_dpbf16ps(0, 4, 6);
    if constexpr (kSums == 1) _tile_dpbf16ps(1, 4, 7);
    if constexpr (kSums == 2) _tile_dpbf16ps(2, 5, 6);
    if constexpr (kSums == 3) _tile_dpbf16ps(3, 5, 7);
  }
};

// 2^x for x <= 40 or NaN.
inline __m512 exp2_weight(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, 1);  // x - floor(x), 0 of infinity
  __m512 p = _mm512_set1_ps(0.07802452f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.22606716f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69583353f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.99992522f));
  return _mm512_scalef_ps(p, x);
}

// A task's state and workspace.
struct TaskBf16 {
  using Unit = Bf16;

  const AttentionCall& call;
  const PromptTask& task;
  const TaskRows& rows;
  float* state;
  int64_t steps, stride;
  bool terms;
  uint8_t* queries;     // [2][steps][16][32] bf16
  float* scores[2];     // [32][kBlock] each
  uint8_t* weights[2];  // [2][kChunkSteps][16][32] bf16 each: of a chunk
  float* totals;        // [32][16]
  float* row;           // [steps of channels]
  int parity = 0;       // of the chunk that is weighed
  int complete = 0;     // of the one before, whose weights are complete
  int64_t begin[2], end[2];  // its steps
  int64_t chunk[2];
  alignas(64) float base[kPromptRows], factor[kPromptRows];  // factor: of the states, before the chunk is added

  TaskBf16(const AttentionCall& c, const PromptTask& t, const TaskRows& r, float* s, uint8_t* memory)
      : call(c), task(t), rows(r), state(s), steps(steps_of(c.head_dim)), stride(prompt_state_floats(c)) {
    const auto take = [&](auto** pointer, int64_t count) {
      *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(memory);
      memory += count;
    };
    take(&queries, 2 * steps * kTileBytes);
    for (float*& each : scores) take(&each, kPromptRows * kBlock * 4);
    for (uint8_t*& each : weights) take(&each, 2 * kChunkSteps * kTileBytes);
    take(&totals, kPromptRows * 64);
    take(&row, steps * 128);
    terms = has_score_terms(call);
  }

  static uint64_t bytes_of(const AttentionCall& call) {
    const int64_t channel_steps = steps_of(call.head_dim);
    return static_cast<uint64_t>(channel_steps * (2 * kTileBytes + 128) + 2 * kPromptRows * kBlock * 4 +
                                 4 * kChunkSteps * kTileBytes + kPromptRows * 64);
  }

  uint8_t* weight_row(int64_t i, int64_t step) const {
    return weights[parity] + (i / 16 * kChunkSteps + step) * kTileBytes + i % 16 * 64;
  }

  void load();
  void store();
  int64_t add_scores(Products<Bf16>& products, const Block& block, int64_t buffer);
  void begin_chunk(const Block& block);
  struct Weighed {
    __m512 y[kBlock / 16];  // scores less the base
    __m512 total;
    uint8_t* to;
    float* totals;
  };
  void begin_row(Weighed& w, int64_t i, const Block& block, const Seen& seen, int64_t buffer);
  template <int kPart>
  void weigh(Weighed& w);
  void end_row(const Weighed& w) { _mm512_storeu_ps(w.totals, w.total); }
  void prepare(int64_t i, const Block& block, const Seen& seen, float* scores);
  void raise(int64_t i, float largest, int64_t step);
  void end_chunk(const Block& block);
  int64_t value_pairs() const { return value_tiles(call) / 2; }
  void add_values(Products<Bf16>& products, int64_t pair);
  // Sums are those of the states.
  void finish_values() {}
  void add_to_state(int64_t) {}
};

// Queries to tiles, states to the workspace.
void TaskBf16::load() {
  const __m512 factor_of_q = _mm512_set1_ps(terms ? call.scale : call.scale * kLog2E);
  std::memset(queries, 0, static_cast<size_t>(2 * steps * kTileBytes));
  // Rows that are not there weigh nothing.
  for (uint8_t* each : weights) {
    if (rows.count < kPromptRows) std::memset(each, 0, static_cast<size_t>(2 * kChunkSteps * kTileBytes));
  }
  for (int64_t i = 0; i < rows.count; ++i) {
    const int64_t offset =
        (call.first_query(task.sequence) + rows[i].query) * call.q.strides[0] + rows[i].head * call.q.strides[1];
    const int64_t element = call.q.dtype == BL_DTYPE_f32 ? 4 : 2;
    std::memset(row, 0, static_cast<size_t>(steps * 128));
    load_values(call.q.dtype, static_cast<const uint8_t*>(call.q.data) + offset * element, 1, call.head_dim, row);
    for (int64_t j = 0; j < steps; ++j) {
      const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(row + 32 * j), factor_of_q);
      const __m512 high = _mm512_mul_ps(_mm512_loadu_ps(row + 32 * j + 16), factor_of_q);
      uint8_t* to = queries + (i / 16 * steps + j) * kTileBytes + i % 16 * 64;
      _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
    }
    base[i] = state[i * stride];
    factor[i] = 1;
    _mm512_storeu_ps(totals + 16 * i, _mm512_maskz_loadu_ps(1, state + i * stride + 1));
  }
}

void TaskBf16::store() {
  for (int64_t i = 0; i < rows.count; ++i) {
    state[i * stride] = base[i];
    state[i * stride + 1] = _mm512_reduce_add_ps(_mm512_loadu_ps(totals + 16 * i));
  }
}

int64_t TaskBf16::add_scores(Products<Bf16>& products, const Block& block, int64_t buffer) {
  const uint8_t* keys = task.chunk(block.chunk) + block.offset / kUnit * steps * kTileBytes;
  const int64_t groups = (block.present + 31) / 32;
  for (int64_t pair = 0; pair < groups; ++pair) {
    const uint8_t* unit = keys + 2 * pair * steps * kTileBytes;
    products.add({queries, queries + steps * kTileBytes, unit, unit + steps * kTileBytes, kTileBytes, steps,
                  reinterpret_cast<uint8_t*>(scores[buffer] + 32 * pair), kBlock * 4, false});
  }
  return groups;
}

void TaskBf16::begin_chunk(const Block& block) {
  parity ^= 1;
  chunk[parity] = block.chunk;
  begin[parity] = block.offset / 32;
}

// A row's scores less its base where all keys are seen and the base stays.
[[gnu::always_inline]] inline void TaskBf16::begin_row(Weighed& w, int64_t i, const Block& block, const Seen& seen,
                                                       int64_t buffer) {
  constexpr int kVectors = kBlock / 16;
  float* from = scores[buffer] + i * kBlock;
  if (!terms && seen.all) {
    const __m512 less = _mm512_set1_ps(base[i]);
    for (int v = 0; v < kVectors; ++v) w.y[v] = _mm512_sub_ps(_mm512_loadu_ps(from + 16 * v), less);
  }
  const __m512 largest =
      _mm512_max_ps(_mm512_max_ps(_mm512_max_ps(w.y[0], w.y[1]), _mm512_max_ps(w.y[2], w.y[3])),
                    _mm512_max_ps(_mm512_max_ps(w.y[4], w.y[5]), _mm512_max_ps(w.y[6], w.y[7])));
  if (terms || !seen.all || _mm512_cmp_ps_mask(largest, _mm512_set1_ps(kHeadroom), _CMP_GT_OQ) != 0) {
    prepare(i, block, seen, from);
    for (int v = 0; v < kVectors; ++v) w.y[v] = _mm512_loadu_ps(from + 16 * v);
  }
  w.totals = totals + 16 * i;
  w.total = _mm512_loadu_ps(w.totals);
  w.to = weight_row(i, block.offset / 32);
}

// The same where there are terms, not all keys are seen, or the base must rise.
[[gnu::noinline]] void TaskBf16::prepare(int64_t i, const Block& block, const Seen& seen, float* from) {
  if (terms) {
    add_terms(call, rows[i], block.at, block.present, from);
    for (int64_t s = 0; s < kBlock; s += 16) {
      _mm512_storeu_ps(from + s, _mm512_mul_ps(_mm512_loadu_ps(from + s), _mm512_set1_ps(kLog2E)));
    }
  }
  __m512 largest = _mm512_set1_ps(kMinusInfinity);
  for (int v = 0; v < kBlock / 16; ++v) {
    const __mmask16 keys = static_cast<__mmask16>(seen.keys[v / 4] >> (v % 4 * 16));
    const __m512 x = _mm512_mask_loadu_ps(_mm512_set1_ps(kMinusInfinity), keys, from + 16 * v);
    _mm512_storeu_ps(from + 16 * v, x);
    largest = _mm512_max_ps(largest, x);
  }
  const float most = _mm512_reduce_max_ps(largest);
  if (most > base[i] + kHeadroom) raise(i, most, block.offset / 32);
  // Nothing seen yet: weights of 0 rather than 2^(-inf + inf).
  const __m512 less = _mm512_set1_ps(base[i] == kMinusInfinity ? 0 : base[i]);
  for (int v = 0; v < kBlock / 16; ++v) {
    _mm512_storeu_ps(from + 16 * v, _mm512_sub_ps(_mm512_loadu_ps(from + 16 * v), less));
  }
}

template <int kPart>
[[gnu::always_inline]] inline void TaskBf16::weigh(Weighed& w) {
  const __m512 low = exp2_weight(w.y[2 * kPart]), high = exp2_weight(w.y[2 * kPart + 1]);
  w.total = _mm512_add_ps(w.total, _mm512_add_ps(low, high));
  _mm512_storeu_si512(w.to + kPart * kTileBytes, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
}

// A row's base to one at or above `largest`; what has been computed with the old one is rescaled.
[[gnu::noinline]] void TaskBf16::raise(int64_t i, float largest, int64_t step) {
  const float before = base[i];
  base[i] = std::ceil(largest);
  if (before == kMinusInfinity) return;
  const __m512 by = exp2_weight(_mm512_set1_ps(before - base[i]));
  factor[i] *= _mm512_cvtss_f32(by);
  _mm512_storeu_ps(totals + 16 * i, _mm512_mul_ps(_mm512_loadu_ps(totals + 16 * i), by));
  for (int64_t j = begin[parity]; j < step; ++j) {
    uint8_t* at = weight_row(i, j);
    const __m512i both = _mm512_loadu_si512(at);
    const __m512 low = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), by);
    const __m512 high =
        _mm512_mul_ps(_mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536))), by);
    _mm512_storeu_si512(at, pairs(low, high));
  }
}

void TaskBf16::end_chunk(const Block& block) {
  complete = parity;
  end[parity] = (block.offset + block.present + 31) / 32;
  for (int64_t i = 0; i < rows.count; ++i) {
    if (factor[i] == 1) continue;
    float* sums = state + i * stride;
    for (int64_t j = 16; j < stride; j += 16) {
      _mm512_storeu_ps(sums + j, _mm512_mul_ps(_mm512_loadu_ps(sums + j), _mm512_set1_ps(factor[i])));
    }
    factor[i] = 1;
  }
}

// Of the chunk that was completed last; the next one's weights are on their way already.
void TaskBf16::add_values(Products<Bf16>& products, int64_t pair) {
  const uint8_t* first = weights[complete] + begin[complete] * kTileBytes;
  const uint8_t* values =
      task.chunk(chunk[complete]) + key_bytes(call) + begin[complete] * value_step_bytes(call) + 2 * pair * kTileBytes;
  products.add({first, first + kChunkSteps * kTileBytes, values, values + kTileBytes, value_step_bytes(call),
                end[complete] - begin[complete], reinterpret_cast<uint8_t*>(state + 16 + 32 * pair), stride * 4,
                true});
}

}  // namespace

bool takes_prompt_bf16(const AttentionCall& call) {
  return call.head_dim <= kMaxChannels && call.value_dim <= kMaxChannels && call.value_dim >= 1 &&
         call.probabilities.data == nullptr && has_unit_strides(call);
}

uint64_t prompt_packed_bytes_bf16(const AttentionCall& call) {
  return static_cast<uint64_t>(key_bytes(call) + kChunkSteps * value_step_bytes(call));
}

uint64_t prompt_scratch_bytes_bf16(const AttentionCall& call) {
  return std::max(PackMemory(call, nullptr).bytes, TaskBf16::bytes_of(call));
}

bool pack_prompt_bf16(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment,
                      int64_t chunk, uint8_t* packed, uint8_t* memory) {
  const PackMemory own(call, memory);
  Units units(call, sequence, kv_head, segment, own.scales, own.spare);
  const int64_t first = chunk * kKeyChunk;
  const int64_t count = std::min(units.count() - first, kKeyChunk);
  uint8_t* const values = packed + key_bytes(call);
  bool finite = true;
  // To whole steps of 32 tokens: absent ones are 0.
  for (int64_t unit = 0; unit < (count + 31) / 32 * 2; ++unit) {
    const int64_t present = std::min(std::max<int64_t>(count - unit * kUnit, 0), kUnit);
    uint8_t* tiles = values + unit / 2 * value_step_bytes(call);
    const float* panel = own.panel;
    const float* rows = own.rows;
    if (present > 0) panel = units.keys(first + unit * kUnit, own.panel);
    pack_keys(panel, call.head_dim, present, packed + unit * key_unit_bytes(call));
    if (present > 0) rows = units.values(first + unit * kUnit, own.rows, false);
    finite &= pack_values(rows, units.row_stride(), call.value_dim, present, unit % 2, tiles);
  }
  return finite;
}

void run_prompt_bf16(const AttentionCall& call, const PromptTask& task, float* state, uint8_t* memory) {
  const TaskRows rows(call, task);
  TaskBf16 mode(call, task, rows, state, memory);
  mode.load();
  run_task(call, task, rows, mode);
  mode.store();
}

#include "../../isa/end.h"
#endif  // __x86_64__
