// attention in f32 at level avx512: core.inl with vectors of 16; pages of f16 and bf16 without decoding them
// first, and rows without turning them where queries are few.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"

// In this order, hence apart: a formatter sorts what stands together.
#include "avx512_units.inl"

#include "units.inl"

#include "rows.inl"

#include "core.inl"

#include "avx512_rows.inl"

#include "tile.inl"

#include "avx512_halves.inl"

void attention_f32(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  const int64_t rows = in_groups(task.rows());
  Work work(call, rows, memory);
  Halves halves(call, rows, memory + align_up(work.bytes));
  work.rows = task.rows();
  attend_task(call, task, work,
              [&](Units& units, const Row* row, int32_t segment, int64_t before, int64_t first, int64_t end) {
                if (call.rope == nullptr && is_half_segment(call.segments[segment])) {
                  attend_chunk_halves(call, task, work, halves, row, segment, before, first, end);
                } else if (is_few_rows(call, task)) {
                  attend_chunk_rows(call, task, work, row, first, end);
                } else {
                  attend_chunk(call, work, row, units, before, first, end);
                }
              });
}

void attention_join_f32(const AttentionCall& call, int64_t query, int64_t head, const float* states,
                        int64_t count, uint8_t* memory) {
  join_states(call, query, head, states, count, memory);
}

uint64_t attention_scratch_bytes_f32(const AttentionCall& call, int64_t rows) {
  const uint64_t core = align_up(Work(call, in_groups(rows), nullptr).bytes);
  return core + Halves(call, rows, nullptr).bytes;
}

#include "../../isa/end.h"
#endif  // __x86_64__
