// Attention of prompts on AMX in integers (README.md, "Prompts in int8"; scalar_prompt_i8.cc is the specification; the
// order of the work: amx_prompt.inl).
//
// Per block of 32 rows and 128 keys of 128 channels, in instructions: 64 tile products (bf16: 128) with as many tile
// loads; 256 vectors of scores, each 9: to f32, scale and base, maximum, x - floor(x), 2 of the polynomial, scale, to
// integers, 3/4 of packing. Sums leave the matrix unit once a chunk: 256 vectors of 6 instructions.
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

#include "amx_prompt_pack_i8.inl"

namespace {

constexpr float kTop = 7.99435344f;  // log2(255): the weight of a score that is the base

// What a chunk's base lies above the largest score of its first block: a third as many rows find a larger one in a later
// block, when all their weights must be halved.
constexpr float kRoom = 0.5f;

struct Int8 {
  template <int kSums>
  static void multiply(bool scores) {
    // Weights have no sign.
    if constexpr (kSums == 0) {
      if (scores) {
        _tile_dpbssd(0, 4, 6);
      } else {
        _tile_dpbusd(0, 4, 6);
      }
    }
    if constexpr (kSums == 1) {
      if (scores) {
        _tile_dpbssd(1, 4, 7);
      } else {
        _tile_dpbusd(1, 4, 7);
      }
    }
    if constexpr (kSums == 2) {
      if (scores) {
        _tile_dpbssd(2, 5, 6);
      } else {
        _tile_dpbusd(2, 5, 6);
      }
    }
    if constexpr (kSums == 3) {
      if (scores) {
        _tile_dpbssd(3, 5, 7);
      } else {
        _tile_dpbusd(3, 5, 7);
      }
    }
  }
};

// 2^x for x <= 8, within 1.8e-3 of itself.
inline __m512 exp2_weight(__m512 x) {
  const __m512 r = _mm512_reduce_ps(x, 1);  // x - floor(x), 0 of infinity
  __m512 p = _mm512_set1_ps(0.33718944f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.65763632f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.00172474f));
  return _mm512_scalef_ps(p, x);
}

struct TaskI8 {
  using Unit = Int8;

  const AttentionCall& call;
  const PromptTask& task;
  const TaskRows& rows;
  float* state;
  int64_t steps, stride, channels, tiles;
  bool terms;
  uint8_t* queries;     // [2][steps][16][64] codes
  float* query;         // [32][channels], times scale
  int32_t* scores[2];   // [32][kBlock] each
  uint8_t* weights[2];  // [2][kChunkSteps][16][64] each: of a chunk
  int32_t* sums;        // [32][tiles * 16]: weights times values of a chunk
  float* row;           // [kBlock]: scores less the base
  int parity = 0;       // of the chunk that is weighed
  int complete = 0;     // of the one before, whose weights are complete
  int64_t begin[2], end[2];  // its steps
  int64_t chunk[2];
  float query_scale[kPromptRows], offset[kPromptRows];  // x = sum * query_scale * key_scale + offset
  float base[2][kPromptRows];
  const float* key_scale;     // of the chunk's blocks
  // Of the chunk whose sums are complete:
  const float* value_scale;
  bool sees[kPromptRows];  // which rows see some of it
  alignas(64) float factor[kPromptRows], other[kPromptRows];  // of the state, and of the chunk
  float query_poison[kPromptRows];  // NaN where the query is not finite, else 0
  float poison[2][kPromptRows];     // NaN where a score of the chunk can not be told

  TaskI8(const AttentionCall& c, const PromptTask& t, const TaskRows& r, float* s, uint8_t* memory)
      : call(c),
        task(t),
        rows(r),
        state(s),
        steps(steps_of(c.head_dim)),
        stride(prompt_state_floats(c)),
        channels(steps_of(c.head_dim) * 64),
        tiles(value_tiles(c)),
        terms(has_score_terms(c)) {
    const auto take = [&](auto** pointer, int64_t count) {
      *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(memory);
      memory += count;
    };
    take(&queries, 2 * steps * kTileBytes);
    take(&query, kPromptRows * channels * 4);
    for (int32_t*& each : scores) take(&each, kPromptRows * kBlock * 4);
    for (uint8_t*& each : weights) take(&each, 2 * kChunkSteps * kTileBytes);
    take(&sums, kPromptRows * tiles * 64);
    take(&row, kBlock * 4);
  }
  static uint64_t bytes_of(const AttentionCall& call) {
    return static_cast<uint64_t>(steps_of(call.head_dim) * (2 * kTileBytes + kPromptRows * 256) +
                                 2 * kPromptRows * kBlock * 4 + 4 * kChunkSteps * kTileBytes +
                                 kPromptRows * value_tiles(call) * 64 + kBlock * 4);
  }

  uint8_t* weight_row(int which, int64_t i, int64_t step) const {
    return weights[which] + (i / 16 * kChunkSteps + step) * kTileBytes + i % 16 * 64;
  }

  void load();
  int64_t add_scores(Products<Int8>& products, const Block& block, int64_t buffer);
  void begin_chunk(const Block& block);
  struct Weighed {
    __m512 y[kBlock / 16];  // scores less the base, plus kTop
    __m512i half;
    uint8_t* to;
  };
  void begin_row(Weighed& w, int64_t i, const Block& block, const Seen& seen, int64_t buffer);
  template <int kPart>
  void weigh(Weighed& w);
  void end_row(const Weighed&) {}
  void prepare(int64_t i, const Block& block, const Seen& seen, const int32_t* from, float scale);
  void raise(int64_t i, float base, int64_t step);
  void end_chunk(const Block& block);
  int64_t value_pairs() const { return tiles / 2; }
  void add_values(Products<Int8>& products, int64_t pair);
  void finish_values();
  void add_to_state(int64_t i);
};

// Queries to codes in tiles.
void TaskI8::load() {
  for (float(&each)[kPromptRows] : base) std::fill(each, each + kPromptRows, kMinusInfinity);
  const __m512 factor = _mm512_set1_ps(terms ? call.scale : call.scale * kLog2E);
  std::memset(queries, 0, static_cast<size_t>(2 * steps * kTileBytes));
  std::memset(query, 0, static_cast<size_t>(kPromptRows * channels * 4));
  // Rows that are not there weigh nothing.
  for (uint8_t* each : weights) {
    if (rows.count < kPromptRows) std::memset(each, 0, static_cast<size_t>(2 * kChunkSteps * kTileBytes));
  }
  for (int64_t i = 0; i < rows.count; ++i) {
    const int64_t at =
        (call.first_query(task.sequence) + rows[i].query) * call.q.strides[0] + rows[i].head * call.q.strides[1];
    const int64_t element = call.q.dtype == BL_DTYPE_f32 ? 4 : 2;
    float* own = query + i * channels;
    load_values(call.q.dtype, static_cast<const uint8_t*>(call.q.data) + at * element, 1, call.head_dim, own);
    __m512i largest = _mm512_setzero_si512();
    for (int64_t j = 0; j < channels; j += 16) {
      const __m512 x = _mm512_mul_ps(_mm512_loadu_ps(own + j), factor);
      _mm512_storeu_ps(own + j, x);
      largest = _mm512_max_epi32(largest, magnitude_of(x));
    }
    const float most = largest_of(largest);
    const bool finite = most < __builtin_inff();
    query_poison[i] = finite ? 0 : __builtin_nanf("");
    query_scale[i] = finite ? most / 127 : 0;
    const __m512 inverse = _mm512_set1_ps(finite ? inverse_of(most) : 0);
    for (int64_t j = 0; j < channels && finite; j += 16) {
      const __m512i codes = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(own + j), inverse));
      uint8_t* to = queries + (i / 16 * steps + j / 64) * kTileBytes + i % 16 * 64 + j % 64;
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtepi32_epi8(codes));
    }
  }
}

int64_t TaskI8::add_scores(Products<Int8>& products, const Block& block, int64_t buffer) {
  const uint8_t* keys = PackedI8(call, task.chunk(block.chunk)).keys + block.offset / kUnit * steps * kTileBytes;
  const int64_t groups = (block.present + 31) / 32;
  for (int64_t pair = 0; pair < groups; ++pair) {
    const uint8_t* unit = keys + 2 * pair * steps * kTileBytes;
    products.add({queries, queries + steps * kTileBytes, unit, unit + steps * kTileBytes, kTileBytes, steps,
                  reinterpret_cast<uint8_t*>(scores[buffer] + 32 * pair), kBlock * 4, false});
  }
  return groups;
}

void TaskI8::begin_chunk(const Block& block) {
  parity ^= 1;
  chunk[parity] = block.chunk;
  begin[parity] = block.offset / 64;
  const PackedI8 packed(call, task.chunk(block.chunk));
  const float* mean = packed.mean;
  key_scale = packed.key_scale;
  for (int64_t i = 0; i < rows.count; ++i) {
    __m512 sum = _mm512_setzero_ps();
    for (int64_t j = 0; j < channels; j += 16) {
      sum = _mm512_fmadd_ps(_mm512_loadu_ps(query + i * channels + j), _mm512_loadu_ps(mean + j), sum);
    }
    const float dot = _mm512_reduce_add_ps(sum);
    const bool finite = std::abs(dot) < __builtin_inff();
    poison[parity][i] = finite ? query_poison[i] : __builtin_nanf("");
    offset[i] = finite ? dot : 0;
    base[parity][i] = kMinusInfinity;
  }
}

// A row's scores less its base where all keys are seen and the base stays.
[[gnu::always_inline]] inline void TaskI8::begin_row(Weighed& w, int64_t i, const Block& block, const Seen& seen,
                                                     int64_t buffer) {
  constexpr int kVectors = kBlock / 16;
  const int32_t* from = scores[buffer] + i * kBlock;
  const float scale = query_scale[i] * key_scale[block.offset / kBlock];
  const bool plain = !terms && seen.all;
  __m512i x[kVectors];
  for (int v = 0; v < kVectors; ++v) x[v] = _mm512_loadu_si512(from + 16 * v);
  // The base of a chunk comes from its first block.
  if (plain && block.first) {
    const __m512i largest =
        _mm512_max_epi32(_mm512_max_epi32(_mm512_max_epi32(x[0], x[1]), _mm512_max_epi32(x[2], x[3])),
                         _mm512_max_epi32(_mm512_max_epi32(x[4], x[5]), _mm512_max_epi32(x[6], x[7])));
    base[parity][i] = fmaf(static_cast<float>(_mm512_reduce_max_epi32(largest)), scale, offset[i]) + kRoom;
  }
  const __m512 by = _mm512_set1_ps(scale), shift = _mm512_set1_ps(offset[i] - base[parity][i] + kTop);
  for (int v = 0; v < kVectors; ++v) w.y[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(x[v]), by, shift);
  if (!plain || !block.first) {
    const __m512 largest =
        _mm512_max_ps(_mm512_max_ps(_mm512_max_ps(w.y[0], w.y[1]), _mm512_max_ps(w.y[2], w.y[3])),
                      _mm512_max_ps(_mm512_max_ps(w.y[4], w.y[5]), _mm512_max_ps(w.y[6], w.y[7])));
    if (!plain || _mm512_cmp_ps_mask(largest, _mm512_set1_ps(kTop), _CMP_GT_OQ) != 0) {
      prepare(i, block, seen, from, scale);
      for (int v = 0; v < kVectors; ++v) w.y[v] = _mm512_loadu_ps(row + 16 * v);
    }
  }
  w.to = weight_row(parity, i, block.offset / 64);
}

// The same, to `row`, where there are terms, not all keys are seen, or the base must rise.
[[gnu::noinline]] void TaskI8::prepare(int64_t i, const Block& block, const Seen& seen, const int32_t* from,
                                       float scale) {
  for (int64_t s = 0; s < kBlock; s += 16) {
    const __m512 x = _mm512_cvtepi32_ps(_mm512_loadu_si512(from + s));
    _mm512_storeu_ps(row + s, _mm512_fmadd_ps(x, _mm512_set1_ps(scale), _mm512_set1_ps(offset[i])));
  }
  if (terms) add_terms(call, rows[i], block.at, block.present, row);
  const __m512 unit = _mm512_set1_ps(terms ? kLog2E : 1);
  __m512 largest = _mm512_set1_ps(kMinusInfinity);
  for (int v = 0; v < kBlock / 16; ++v) {
    const __mmask16 keys = static_cast<__mmask16>(seen.keys[v / 4] >> (v % 4 * 16));
    __m512 x = _mm512_mask_mul_ps(_mm512_set1_ps(kMinusInfinity), keys, _mm512_loadu_ps(row + 16 * v), unit);
    // NaN and +infinity, which codes can not hold
    const __mmask16 odd = _mm512_fpclass_ps_mask(x, 0x89);
    if (odd != 0) poison[parity][i] = __builtin_nanf("");
    x = _mm512_mask_mov_ps(x, odd, _mm512_setzero_ps());
    _mm512_storeu_ps(row + 16 * v, x);
    largest = _mm512_max_ps(largest, x);
  }
  const float most = _mm512_reduce_max_ps(largest);
  if (most > base[parity][i]) raise(i, most, block.offset / 64);
  // Nothing seen yet: -infinity stays.
  const float less = base[parity][i] == kMinusInfinity ? 0 : kTop - base[parity][i];
  for (int64_t s = 0; s < kBlock; s += 16) {
    _mm512_storeu_ps(row + s, _mm512_add_ps(_mm512_loadu_ps(row + s), _mm512_set1_ps(less)));
  }
}

template <int kPart>
[[gnu::always_inline]] inline void TaskI8::weigh(Weighed& w) {
  const __m512i low = _mm512_cvtps_epi32(exp2_weight(w.y[2 * kPart]));
  const __m512i high = _mm512_cvtps_epi32(exp2_weight(w.y[2 * kPart + 1]));
  const __m512i both = _mm512_packus_epi32(low, high);
  if constexpr (kPart % 2 == 0) {
    w.half = both;
  } else {
    _mm512_storeu_si512(w.to + kPart / 2 * kTileBytes, _mm512_packus_epi16(w.half, both));
  }
}

// A row's base to one at or above `largest`: that itself, or a whole number above the one before, so that the weights of the
// chunk so far are halved.
[[gnu::noinline]] void TaskI8::raise(int64_t i, float largest, int64_t step) {
  const float before = base[parity][i];
  const float by = before == kMinusInfinity ? 0 : std::ceil(largest - before);
  base[parity][i] = before == kMinusInfinity ? largest + kRoom : before + by;
  const int bits = by < 16 ? static_cast<int>(by) : 16;
  const __m512i half = _mm512_set1_epi16(static_cast<int16_t>(1 << bits >> 1));
  for (int64_t j = begin[parity]; j < step; ++j) {
    __m256i* at = reinterpret_cast<__m256i*>(weight_row(parity, i, j));
    for (int part = 0; part < 2; ++part) {
      const __m512i w = _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm256_loadu_si256(at + part)), half);
      _mm256_storeu_si256(at + part, _mm512_cvtepi16_epi8(_mm512_srl_epi16(w, _mm_cvtsi32_si128(bits))));
    }
  }
}

void TaskI8::end_chunk(const Block& block) {
  complete = parity;
  end[parity] = (block.offset + block.present + 63) / 64;
}

void TaskI8::add_values(Products<Int8>& products, int64_t pair) {
  const uint8_t* first = weights[complete] + begin[complete] * kTileBytes;
  const uint8_t* values =
      PackedI8(call, task.chunk(chunk[complete])).values + (begin[complete] * tiles + 2 * pair) * kTileBytes;
  products.add({first, first + kChunkSteps * kTileBytes, values, values + kTileBytes, tiles * kTileBytes,
                end[complete] - begin[complete], reinterpret_cast<uint8_t*>(sums + 32 * pair), tiles * 64, false});
}

// What the states and the completed chunk's sums are multiplied by.
void TaskI8::finish_values() {
  value_scale = PackedI8(call, task.chunk(chunk[complete])).value_scale;
  for (int64_t i = 0; i < kPromptRows; i += 16) {
    const __m512i row_of_lane = _mm512_add_epi32(
        _mm512_set1_epi32(static_cast<int>(i)),
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    const __m512i at = _mm512_mullo_epi32(row_of_lane, _mm512_set1_epi32(static_cast<int>(stride)));
    const __m512 before = _mm512_i32gather_ps(at, state, 4), own = _mm512_loadu_ps(base[complete] + i);
    const __m512 most = _mm512_max_ps(before, own), ln2 = _mm512_set1_ps(0.693147181f);
    exp(Vec{_mm512_mul_ps(_mm512_sub_ps(before, most), ln2)}).store(factor + i);
    exp(Vec{_mm512_mul_ps(_mm512_sub_ps(own, most), ln2)}).store(other + i);
  }
  for (int64_t i = 0; i < rows.count; ++i) {
    float* own = state + i * stride;
    sees[i] = base[complete][i] != kMinusInfinity;
    if (!sees[i]) continue;
    __m512i count = _mm512_setzero_si512();
    for (int64_t j = begin[complete]; j < end[complete]; ++j) {
      count = _mm512_dpbusd_epi32(count, _mm512_loadu_si512(weight_row(complete, i, j)), _mm512_set1_epi8(1));
    }
    other[i] /= 255;
    own[0] = std::max(own[0], base[complete][i]);
    own[1] = own[1] * factor[i] + static_cast<float>(_mm512_reduce_add_epi32(count)) * other[i] + poison[complete][i];
  }
}

// The next chunk's weights may be on their way already.
void TaskI8::add_to_state(int64_t i) {
  if (!sees[i]) return;
  float* own = state + i * stride;
  const __m512 keep = _mm512_set1_ps(factor[i]), take = _mm512_set1_ps(other[i]);
  for (int64_t j = 0; j < tiles * 16; j += 16) {
    const __m512 sum = _mm512_cvtepi32_ps(_mm512_loadu_si512(sums + i * tiles * 16 + j));
    const __m512 before = _mm512_mul_ps(_mm512_loadu_ps(own + 16 + j), keep);
    const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(value_scale + j), take);
    _mm512_storeu_ps(own + 16 + j, _mm512_fmadd_ps(sum, scale, before));
  }
}

}  // namespace

bool takes_prompt_i8(const AttentionCall& call) {
  return call.head_dim <= kMaxChannels && call.value_dim <= kMaxChannels && call.value_dim >= 1 &&
         call.probabilities.data == nullptr && has_unit_strides(call);
}

uint64_t prompt_packed_bytes_i8(const AttentionCall& call) { return PackedI8::bytes_of(call); }

uint64_t prompt_scratch_bytes_i8(const AttentionCall& call) {
  return std::max(PackMemory(call, nullptr).bytes, TaskI8::bytes_of(call));
}

void run_prompt_i8(const AttentionCall& call, const PromptTask& task, float* state, uint8_t* memory) {
  const TaskRows rows(call, task);
  TaskI8 mode(call, task, rows, state, memory);
  mode.load();
  run_task(call, task, rows, mode);
}

#include "../../isa/end.h"
#endif  // __x86_64__
