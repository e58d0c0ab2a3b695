// Attention of prompts on AMX: products in bf16 with sums in f32 (prompt.h).
//
//   packed chunk   keys [32 units][steps of 32 channels][16 pairs][16 tokens] x 2 bf16, then
//                  values [16 steps of 32 tokens][tiles of 16 channels][16 pairs][16 channels] x 2: tiles as
//                  they are loaded
//   block          128 keys: scores [32][128] by 2 x 2 tiles; weights 2^(x - m) in bf16; sums += weights x
//   values, where
//                  tiles of sums are loaded from the rows' states and stored there again
//
// Per block of 32 rows with 128 channels, in instructions: 64 tile products each for scores and sums, with as
// many tile loads, and 32 loads and 32 stores of sums; 256 vectors of scores, each some 13 for the
// exponential, 2 for the maximum and 1.5 for bf16. Products of 16 cycles are 2048 cycles, vectors at two a
// cycle 2200: neither hides the other whole.
//
// Rounded to bf16 are q times scale, k, v and the weights; 2^x is a polynomial of degree 4, whose error
// of 4.2e-5 is a fiftieth of bf16's.
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

namespace {

constexpr int64_t kBlock = 128;  // keys
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kMaxChannels = 576;
constexpr float kLog2E = 1.44269504f;

int64_t steps_of(int64_t channels) { return (channels + 31) / 32; }
int64_t key_unit_bytes(const AttentionCall& call) { return steps_of(call.head_dim) * kTileBytes; }
int64_t value_step_bytes(const AttentionCall& call) { return padded16(call.value_dim) / 16 * kTileBytes; }
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
  for (int64_t c = 0; c < value_dim; c += 16) {
    const int64_t left = value_dim - c;
    const __mmask16 channels = left >= 16 ? __mmask16{0xffff} : static_cast<__mmask16>((1u << left) - 1);
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

struct TaskMemory {
  uint8_t* queries;  // [2][steps][16][32] bf16
  float* scores[2];  // [32][kBlock] each: of a block, and of the one before
  uint8_t* weights;  // [2][kBlock / 32][16][32] bf16
  float* row;        // [head_dim]
  uint64_t bytes;

  TaskMemory(const AttentionCall& call, uint8_t* memory) {
    queries = memory;
    scores[0] = reinterpret_cast<float*>(queries + 2 * steps_of(call.head_dim) * kTileBytes);
    scores[1] = scores[0] + kPromptRows * kBlock;
    weights = reinterpret_cast<uint8_t*>(scores[1] + kPromptRows * kBlock);
    row = reinterpret_cast<float*>(weights + 2 * (kBlock / 32) * kTileBytes);
    bytes = static_cast<uint64_t>(reinterpret_cast<uint8_t*>(row + padded16(call.head_dim) + 32) - memory);
  }
};

void load_queries(const AttentionCall& call, const PromptTask& task, float scale, const TaskMemory& memory) {
  const int64_t steps = steps_of(call.head_dim);
  std::memset(memory.queries, 0, static_cast<size_t>(2 * steps * kTileBytes));
  int64_t index = 0;
  for (int64_t t = task.query_begin; t < task.query_end; ++t) {
    for (int64_t head = task.head_begin; head < task.head_end; ++head, ++index) {
      const int64_t offset =
          (call.first_query(task.sequence) + t) * call.q.strides[0] + head * call.q.strides[1];
      const int64_t bytes = call.q.dtype == BL_DTYPE_f32 ? 4 : 2;
      for (int64_t i = 0; i < steps * 32; ++i) memory.row[i] = 0;
      load_values(call.q.dtype, static_cast<const uint8_t*>(call.q.data) + offset * bytes, 1, call.head_dim,
                  memory.row);
      const __m512 factor = _mm512_set1_ps(scale);
      for (int64_t i = 0; i < steps; ++i) {
        const __m512 low = _mm512_mul_ps(_mm512_loadu_ps(memory.row + 32 * i), factor);
        const __m512 high = _mm512_mul_ps(_mm512_loadu_ps(memory.row + 32 * i + 16), factor);
        uint8_t* to = memory.queries + (index / 16 * steps + i) * kTileBytes + index % 16 * 64;
        _mm512_storeu_si512(to, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
      }
    }
  }
}

// scores [32][kBlock] of `unit_pairs` pairs of units. gap(done, all): between products, after `done` of `all`
// of them.
template <typename Gap>
inline void score_block(const TaskMemory& memory, float* scores_out, const uint8_t* keys, int64_t steps,
                        int64_t unit_pairs, bool two, Gap&& gap) {
  const uint8_t* first = memory.queries;
  const uint8_t* second = memory.queries + steps * kTileBytes;
  for (int64_t pair = 0; pair < unit_pairs; ++pair) {
    const uint8_t* unit = keys + 2 * pair * steps * kTileBytes;
    const uint8_t* next = unit + steps * kTileBytes;
    zero_sums();
    for (int64_t i = 0; i < steps; ++i) {
      _tile_loadd(4, first + i * kTileBytes, 64);
      _tile_loadd(6, unit + i * kTileBytes, 64);
      _tile_loadd(7, next + i * kTileBytes, 64);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      if (two) {
        _tile_loadd(5, second + i * kTileBytes, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      gap(pair * steps + i + 1, unit_pairs * steps);
    }
    float* scores = scores_out + 32 * pair;
    _tile_stored(0, scores, kBlock * 4);
    _tile_stored(1, scores + 16, kBlock * 4);
    if (!two) continue;
    _tile_stored(2, scores + 16 * kBlock, kBlock * 4);
    _tile_stored(3, scores + 16 * kBlock + 16, kBlock * 4);
  }
}

// A block of keys in the chunk.
struct Block {
  int64_t offset = 0, present = 0;
};

// 2^x for x <= 0 or NaN; 0 below -150.
inline __m512 exp2_weight(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-200.0f), x);  // the second where it is NaN
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(0.009618129f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.05550411f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24022651f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6931472f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

// Scores of a row to weights in bf16, and its state to the new maximum. seen: which keys of the block it
// sees.
inline void weigh_row(const AttentionCall& call, float* scores, uint8_t* weights, const uint64_t (&seen)[2],
                      bool all, float* state) {
  __m512 x[kBlock / 16];
  __m512 largest = _mm512_set1_ps(kMinusInfinity);
  for (int v = 0; v < kBlock / 16; ++v) {
    x[v] = _mm512_loadu_ps(scores + 16 * v);
    if (!all) {
      const __mmask16 mask = static_cast<__mmask16>(seen[v / 4] >> (v % 4 * 16));
      x[v] = _mm512_mask_blend_ps(mask, _mm512_set1_ps(kMinusInfinity), x[v]);
    }
    largest = _mm512_max_ps(largest, x[v]);
  }
  const float block_maximum = _mm512_reduce_max_ps(largest);
  const float old_maximum = state[0];
  const float maximum = block_maximum > old_maximum ? block_maximum : old_maximum;
  const __m512 base = _mm512_set1_ps(maximum == kMinusInfinity ? 0 : maximum);
  __m512 total = _mm512_setzero_ps();
  for (int v = 0; v < kBlock / 16; v += 2) {
    const __m512 low = exp2_weight(_mm512_sub_ps(x[v], base));
    const __m512 high = exp2_weight(_mm512_sub_ps(x[v + 1], base));
    total = _mm512_add_ps(total, _mm512_add_ps(low, high));
    _mm512_storeu_si512(weights + v / 2 * kTileBytes,
                        reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
  }
  const float sum = _mm512_reduce_add_ps(total);
  if (maximum == old_maximum || maximum == kMinusInfinity) {
    state[1] += sum;
    return;
  }
  state[0] = maximum;
  const __m512 factor = exp2_weight(_mm512_set1_ps(old_maximum - maximum));
  state[1] = state[1] * _mm512_cvtss_f32(factor) + sum;
  for (int64_t i = 16; i < state_floats(call); i += 16) {
    _mm512_storeu_ps(state + i, _mm512_mul_ps(_mm512_loadu_ps(state + i), factor));
  }
}

// The states' sums += weights x values; `steps` steps of 32 keys.
inline void add_block(const TaskMemory& memory, const uint8_t* values, int64_t tiles, int64_t steps, bool two,
                      float* state, int64_t stride) {
  const uint8_t* first = memory.weights;
  const uint8_t* second = memory.weights + (kBlock / 32) * kTileBytes;
  for (int64_t c = 0; c < tiles; c += 2) {
    const bool pair = c + 1 < tiles;
    float* sums = state + 16 + 16 * c;
    _tile_loadd(0, sums, stride * 4);
    if (pair) _tile_loadd(1, sums + 16, stride * 4);
    if (two) {
      _tile_loadd(2, sums + 16 * stride, stride * 4);
      if (pair) _tile_loadd(3, sums + 16 * stride + 16, stride * 4);
    }
    for (int64_t i = 0; i < steps; ++i) {
      const uint8_t* step = values + (i * tiles + c) * kTileBytes;
      _tile_loadd(4, first + i * kTileBytes, 64);
      _tile_loadd(6, step, 64);
      if (pair) _tile_loadd(7, step + kTileBytes, 64);
      _tile_dpbf16ps(0, 4, 6);
      if (pair) _tile_dpbf16ps(1, 4, 7);
      if (two) {
        _tile_loadd(5, second + i * kTileBytes, 64);
        _tile_dpbf16ps(2, 5, 6);
        if (pair) _tile_dpbf16ps(3, 5, 7);
      }
    }
    _tile_stored(0, sums, stride * 4);
    if (pair) _tile_stored(1, sums + 16, stride * 4);
    if (!two) continue;
    _tile_stored(2, sums + 16 * stride, stride * 4);
    if (pair) _tile_stored(3, sums + 16 * stride + 16, stride * 4);
  }
}

}  // namespace

bool takes_prompt_bf16(const AttentionCall& call) {
  // Fewer rows leave most of a tile empty, and packing would cost more than it saves.
  return call.head_dim <= kMaxChannels && call.value_dim <= kMaxChannels && call.value_dim >= 1 &&
         call.queries * call.group() >= 32 * call.sequences && call.probabilities.data == nullptr &&
         has_unit_strides(call);
}

uint64_t prompt_packed_bytes_bf16(const AttentionCall& call) {
  return static_cast<uint64_t>(key_bytes(call) + kKeyChunk / 32 * value_step_bytes(call));
}

uint64_t prompt_scratch_bytes_bf16(const AttentionCall& call) {
  return std::max(PackMemory(call, nullptr).bytes, TaskMemory(call, nullptr).bytes);
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
  const TaskMemory own(call, memory);
  const int64_t heads = task.head_end - task.head_begin;
  const int64_t rows = heads * (task.query_end - task.query_begin);
  const int64_t queries = call.query_count(task.sequence), keys = call.keys(task.sequence, task.kv_head);
  alignas(Row) uint8_t row_memory[kPromptRows * sizeof(Row)];
  Row* row = reinterpret_cast<Row*>(row_memory);
  int64_t all_begin = 0, all_end = INT64_MAX;  // keys that all rows see
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t t = task.query_begin + i / heads, head = task.head_begin + i % heads;
    new (row + i) Row{task.sequence, t, head, queries, keys, Sight(call, t, queries, keys, head)};
    all_begin = std::max(all_begin, row[i].sight.begin);
    all_end = std::min(all_end, row[i].sight.end);
  }
  int64_t seen_begin, seen_end;
  hull(row, rows, &seen_begin, &seen_end);
  const int64_t first = task.chunk * kKeyChunk;
  const int64_t count =
      std::min(call.segment_keys(task.segment, task.sequence, task.kv_head) - first, kKeyChunk);
  if (task.before + first + count <= seen_begin || task.before + first >= seen_end) return;
  const bool terms = has_score_terms(call), masks = has_masks(call);
  load_queries(call, task, terms ? call.scale : call.scale * kLog2E, own);
  std::memset(own.weights, 0, static_cast<size_t>(2 * (kBlock / 32) * kTileBytes));
  const int64_t steps = steps_of(call.head_dim), tiles = padded16(call.value_dim) / 16;
  const int64_t stride = state_floats(call);
  const bool two = rows > 16;
  const TileScope scope;
  // The weights of a block are computed between the products of the next one's scores: the matrix unit leaves
  // the vector units idle.
  Block before;
  int parity = 0;
  const auto weigh_rows = [&](int64_t begin, int64_t end) {
    const int64_t at = task.before + first + before.offset;  // in the sequence
    const bool all = !masks && before.present == kBlock && at >= all_begin && at + kBlock <= all_end;
    for (int64_t i = begin; i < end; ++i) {
      float* scores = own.scores[parity ^ 1] + i * kBlock;
      uint64_t seen[2] = {~uint64_t{0}, ~uint64_t{0}};
      if (!all) {
        seen[0] = seen_keys(call, row[i], at, std::min(before.present, kKeyTile));
        seen[1] =
            before.present > kKeyTile ? seen_keys(call, row[i], at + kKeyTile, before.present - kKeyTile) : 0;
      }
      if (terms) {
        add_terms(call, row[i], at, before.present, scores);
        for (int64_t s = 0; s < kBlock; s += 16) {
          _mm512_storeu_ps(scores + s, _mm512_mul_ps(_mm512_loadu_ps(scores + s), _mm512_set1_ps(kLog2E)));
        }
      }
      uint8_t* weights = own.weights + i / 16 * (kBlock / 32) * kTileBytes + i % 16 * 64;
      weigh_row(call, scores, weights, seen, all, state + i * stride);
    }
  };
  const auto add_before = [&] {
    const uint8_t* values = task.packed + key_bytes(call) + before.offset / 32 * value_step_bytes(call);
    add_block(own, values, tiles, (before.present + 31) / 32, two, state, stride);
  };
  for (int64_t offset = 0; offset < count; offset += kBlock) {
    const int64_t present = std::min(count - offset, kBlock);
    const int64_t at = task.before + first + offset;
    if (at + present <= seen_begin || at >= seen_end) continue;
    const uint8_t* keys_at = task.packed + offset / kUnit * steps * kTileBytes;
    int64_t weighed = before.present == 0 ? rows : 0;
    score_block(own, own.scores[parity], keys_at, steps, (present + 31) / 32, two,
                [&](int64_t done, int64_t all) {
                  const int64_t end = std::max(weighed, rows * done / all);
                  weigh_rows(weighed, end);
                  weighed = end;
                });
    if (before.present != 0) add_before();
    before = {offset, present};
    parity ^= 1;
  }
  if (before.present == 0) return;
  weigh_rows(0, rows);
  add_before();
}

void finish_prompt_bf16(const AttentionCall& call, const PromptTask& task, float* state) {
  for (int64_t t = task.query_begin; t < task.query_end; ++t) {
    for (int64_t head = task.head_begin; head < task.head_end; ++head, state += state_floats(call)) {
      const int64_t query = call.first_query(task.sequence) + t;
      float maximum = state[0] / kLog2E;
      float total = state[1];
      float* sums = state + 16;
      if (call.sinks != nullptr) {
        const float larger = std::max(maximum, call.sinks[head]);
        const float factor = larger == kMinusInfinity ? 0 : std::exp(maximum - larger);
        total = total * factor + (larger == kMinusInfinity ? 0 : std::exp(call.sinks[head] - larger));
        for (int64_t i = 0; i < call.value_dim; ++i) sums[i] *= factor;
        maximum = larger;
      }
      for (int64_t i = 0; i < call.value_dim; ++i) sums[i] = total == 0 ? 0 : sums[i] / total;
      store_values(call.output.dtype, output_row(call, query, head), call.output.strides[2], call.value_dim,
                   sums);
      if (call.lse.data != nullptr) {
        *lse_of(call, query, head) = total == 0 ? kMinusInfinity : maximum + std::log(total);
      }
    }
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
