#include <immintrin.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

#include "roofs.h"
#include "threads.h"

// A loop of kChains independent multiply-adds: enough to cover the latency (4 or 5 cycles) of two ports.
// The empty asm makes the compiler take `x` for new in every iteration and keep every result.
#define BENCH_CHAINS(Vector, broadcast, step)                    \
  constexpr int kChains = 12;                                    \
  Vector sums[kChains];                                          \
  Vector x = broadcast;                                          \
  Vector y = broadcast;                                          \
  for (Vector& sum : sums) sum = broadcast;                      \
  for (int64_t i = 0; i < iterations; ++i) {                     \
    _Pragma("GCC unroll 12") for (int c = 0; c < kChains; ++c) { \
      __asm__ volatile("" : "+v"(x));                            \
      sums[c] = step;                                            \
    }                                                            \
  }                                                              \
  for (Vector& sum : sums) __asm__ volatile("" : : "v"(sum));    \
  (void)y

namespace bitloom::scalar {
void multiply_f32(int64_t iterations, const bench::MultiplyOperands&) {
  BENCH_CHAINS(__m128, _mm_set1_ps(0.5f), _mm_add_ps(sums[c], _mm_mul_ps(x, y)));
}
// SSE2 has no 8-bit multiply: pairs of 16 bits.
void multiply_i8(int64_t iterations, const bench::MultiplyOperands&) {
  BENCH_CHAINS(__m128i, _mm_set1_epi8(1), _mm_add_epi32(sums[c], _mm_madd_epi16(x, y)));
}
}  // namespace bitloom::scalar

#include "../../native/isa/avx2_begin.h"
void multiply_f32(int64_t iterations, const bench::MultiplyOperands&) {
  BENCH_CHAINS(__m256, _mm256_set1_ps(0.5f), _mm256_fmadd_ps(x, y, sums[c]));
}
// Sums kept in 16 bits: the least a kernel can do per product; widening to 32 bits comes on top.
void multiply_i8(int64_t iterations, const bench::MultiplyOperands&) {
  BENCH_CHAINS(__m256i, _mm256_set1_epi8(1), _mm256_add_epi16(sums[c], _mm256_maddubs_epi16(x, y)));
}
#include "../../native/isa/end.h"

#include "../../native/isa/avx512_begin.h"
void multiply_f32(int64_t iterations, const bench::MultiplyOperands&) {
  BENCH_CHAINS(__m512, _mm512_set1_ps(0.5f), _mm512_fmadd_ps(x, y, sums[c]));
}
void multiply_i8(int64_t iterations, const bench::MultiplyOperands&) {
  BENCH_CHAINS(__m512i, _mm512_set1_epi8(1), _mm512_dpbusd_epi32(sums[c], x, y));
}
#include "../../native/isa/end.h"

#include "amx_begin.h"

struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64);

// GCC 12's _tile_loadconfig does not tell the compiler that it reads the struct, so that the stores to it
// are dropped; this one does.
inline void configure_tiles() {
  TileConfig config{};
  config.palette = 1;
  for (int tile = 0; tile < 8; ++tile) {
    config.row_bytes[tile] = 64;
    config.rows[tile] = 16;
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
}

// A 2 x 2 block of result tiles over 8 steps of depth: A (2 tiles a step) comes from L2, the panel of B
// (16 KB) stays in L1. Four tile loads feed four products, as in the inner loop of a matrix product.
#define BENCH_TILE_BLOCKS(product)                      \
  configure_tiles();                                    \
  _tile_zero(0);                                        \
  _tile_zero(1);                                        \
  _tile_zero(2);                                        \
  _tile_zero(3);                                        \
  size_t offset = 0;                                    \
  for (int64_t i = 0; i < iterations; ++i) {            \
    const uint8_t* a = operands.a + offset;             \
    const uint8_t* b = operands.b;                      \
    for (int step = 0; step < 8; ++step) {              \
      _tile_loadd(4, a, 64);                            \
      _tile_loadd(6, b, 64);                            \
      _tile_loadd(5, a + 1024, 64);                     \
      _tile_loadd(7, b + 1024, 64);                     \
      product(0, 4, 6);                                 \
      product(1, 4, 7);                                 \
      product(2, 5, 6);                                 \
      product(3, 5, 7);                                 \
      a += 2048;                                        \
      b += 2048;                                        \
    }                                                   \
    offset = (offset + 16384) % bench::kMultiplyBytesA; \
  }                                                     \
  _tile_release()

void multiply_i8(int64_t iterations, const bench::MultiplyOperands& operands) {
  BENCH_TILE_BLOCKS(_tile_dpbssd);
}
void multiply_bf16(int64_t iterations, const bench::MultiplyOperands& operands) {
  BENCH_TILE_BLOCKS(_tile_dpbf16ps);
}
#include "../../native/isa/end.h"

namespace bitloom::bench {

// Operations: 12 chains x 2 x products per instruction; AMX: 32 tile products of 16 x 16 x depth.
const MultiplyRoof kMultiplyRoofs[] = {
    {"f32_scalar", "f32", BL_ISA_scalar, 12 * 2 * 4, scalar::multiply_f32},
    {"i8_scalar", "i8", BL_ISA_scalar, 12 * 2 * 8, scalar::multiply_i8},
    {"f32_avx2", "f32", BL_ISA_avx2, 12 * 2 * 8, avx2::multiply_f32},
    {"i8_avx2", "i8", BL_ISA_avx2, 12 * 2 * 32, avx2::multiply_i8},
    {"f32_avx512", "f32", BL_ISA_avx512, 12 * 2 * 16, avx512::multiply_f32},
    {"i8_avx512", "i8", BL_ISA_avx512, 12 * 2 * 64, avx512::multiply_i8},
    {"bf16_amx", "bf16", BL_ISA_amx, 32 * 2 * 16 * 16 * 32, amx::multiply_bf16},
    {"i8_amx", "i8", BL_ISA_amx, 32 * 2 * 16 * 16 * 64, amx::multiply_i8},
};
const int32_t kMultiplyRoofCount = sizeof(kMultiplyRoofs) / sizeof(kMultiplyRoofs[0]);

std::vector<double> multiply_roof(const MultiplyRoof& roof, int32_t threads, double seconds, int32_t rounds) {
  struct Free {
    void operator()(uint8_t* memory) const { std::free(memory); }
  };
  const size_t bytes = kMultiplyBytesA + kMultiplyBytesB;
  std::vector<std::unique_ptr<uint8_t, Free>> memory(static_cast<size_t>(threads));
  std::vector<MultiplyOperands> operands(static_cast<size_t>(threads));
  auto prepare = [&](int32_t thread) {
    const size_t t = static_cast<size_t>(thread);
    memory[t].reset(static_cast<uint8_t*>(std::aligned_alloc(4096, bytes)));
    if (memory[t] == nullptr) return;
    std::memset(memory[t].get(), 1, bytes);
    operands[t] = {memory[t].get(), memory[t].get() + kMultiplyBytesA};
    roof.run(64, operands[t]);
  };
  int64_t iterations = 256;
  auto body = [&](int32_t thread) {
    const size_t t = static_cast<size_t>(thread);
    if (memory[t] != nullptr) roof.run(iterations, operands[t]);
  };
  const double once = run_together(threads, prepare, body);
  const double wanted = static_cast<double>(iterations) * seconds / std::max(once, 1e-7);
  iterations = std::max<int64_t>(1, std::llround(wanted));
  std::vector<double> speeds;
  for (int32_t round = 0; round < rounds; ++round) {
    const double time = run_together(threads, [](int32_t) {}, body);
    speeds.push_back(roof.operations * static_cast<double>(iterations) * threads / time);
  }
  return speeds;
}

}  // namespace bitloom::bench
