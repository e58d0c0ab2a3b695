#include <immintrin.h>
#include <sys/mman.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "roofs.h"
#include "threads.h"

// A read pass: `lines` cache lines of each of 8 streams that start `stride` bytes apart. The result
// depends on every byte so that no load is dropped. With `prefetch`, lines 1 KB ahead are asked for:
// it helps beyond L2 and costs load slots below.
#define BENCH_READ_STREAMS(Vector, zero, load, combine, per_line)                                   \
  constexpr int kStreams = 8;                                                                       \
  constexpr size_t kVectorBytes = 64 / per_line;                                                    \
  Vector sums[kStreams];                                                                            \
  for (Vector& sum : sums) sum = zero;                                                              \
  for (size_t i = 0; i < lines; ++i) {                                                              \
    _Pragma("GCC unroll 8") for (int s = 0; s < kStreams; ++s) {                                    \
      const uint8_t* line = data + static_cast<size_t>(s) * stride + i * 64;                        \
      if (prefetch) _mm_prefetch(reinterpret_cast<const char*>(line + 1024), _MM_HINT_T0);          \
      _Pragma("GCC unroll 4") for (int v = 0; v < per_line; ++v) {                                  \
        sums[s] = combine(sums[s], load(reinterpret_cast<const Vector*>(line + v * kVectorBytes))); \
      }                                                                                             \
    }                                                                                               \
  }                                                                                                 \
  Vector total = sums[0];                                                                           \
  for (int s = 1; s < kStreams; ++s) total = combine(total, sums[s]);                               \
  uint8_t bytes[kVectorBytes];                                                                      \
  std::memcpy(bytes, &total, kVectorBytes);                                                         \
  return bytes[0];

namespace bitloom::scalar {
template <bool prefetch>
uint8_t read_streams(const uint8_t* data, size_t stride, size_t lines) {
  BENCH_READ_STREAMS(__m128i, _mm_setzero_si128(), _mm_loadu_si128, _mm_xor_si128, 4)
}
}  // namespace bitloom::scalar

#include "../../native/isa/avx2_begin.h"
template <bool prefetch>
uint8_t read_streams(const uint8_t* data, size_t stride, size_t lines) {
  BENCH_READ_STREAMS(__m256i, _mm256_setzero_si256(), _mm256_loadu_si256, _mm256_xor_si256, 2)
}
#include "../../native/isa/end.h"

#include "../../native/isa/avx512_begin.h"
template <bool prefetch>
uint8_t read_streams(const uint8_t* data, size_t stride, size_t lines) {
  BENCH_READ_STREAMS(__m512i, _mm512_setzero_si512(), _mm512_loadu_si512, _mm512_xor_si512, 1)
}
#include "../../native/isa/end.h"

namespace bitloom::bench {

namespace {

using ReadStreams = uint8_t (*)(const uint8_t* data, size_t stride, size_t lines);

ReadStreams choose_read(int32_t isa, bool prefetch) {
  if (isa >= BL_ISA_avx512) return prefetch ? avx512::read_streams<true> : avx512::read_streams<false>;
  if (isa >= BL_ISA_avx2) return prefetch ? avx2::read_streams<true> : avx2::read_streams<false>;
  return prefetch ? scalar::read_streams<true> : scalar::read_streams<false>;
}

// Pages of 2 MB where the system gives them: the roof is the memory's, not the page table's.
struct Pages {
  void* data = MAP_FAILED;
  size_t bytes = 0;
  explicit Pages(size_t size) : bytes(size) {
    data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data != MAP_FAILED) madvise(data, size, MADV_HUGEPAGE);
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() {
    if (data != MAP_FAILED) munmap(data, bytes);
  }
};

}  // namespace

std::vector<double> read_roof(int32_t isa, int32_t threads, size_t bytes, double seconds, int32_t rounds) {
  constexpr size_t kL2Bytes = 1024 * 1024;
  constexpr size_t kHugePage = 2u << 20;
  const size_t share = bytes / static_cast<size_t>(threads);
  const ReadStreams read = choose_read(isa, share > kL2Bytes);
  // An odd number of lines per stream, so that the 8 streams do not fall on the same cache sets.
  const size_t lines = (share / 8 / 64) | 1;
  const size_t stride = lines * 64;
  const size_t thread_bytes = (stride * 8 + 4096 + kHugePage - 1) / kHugePage * kHugePage;
  Pages pages(thread_bytes * static_cast<size_t>(threads));
  if (pages.data == MAP_FAILED) return {};
  uint8_t* base = static_cast<uint8_t*>(pages.data);
  // Reads `count` lines of each stream from line `first` on, as often as `passes` says.
  auto pass = [&](int32_t thread, size_t first, size_t count, int64_t passes) {
    const uint8_t* data = base + static_cast<size_t>(thread) * thread_bytes + first * 64;
    for (int64_t i = 0; i < passes; ++i) {
      // Through a volatile: passes are neither dropped nor merged.
      const volatile uint8_t sum = read(data, stride, count);
      (void)sum;
    }
  };
  auto touch = [&](int32_t thread) {
    std::memset(base + static_cast<size_t>(thread) * thread_bytes, 1 + thread, stride * 8);
    pass(thread, 0, lines, 1);
  };
  // A first pass over at most 8 MB says how much one round reads: a small buffer many times, a large
  // one in pieces, so that a round is short enough to fall between interruptions.
  size_t count = std::min(lines, size_t{16384});
  const double once = run_together(threads, touch, [&](int32_t thread) { pass(thread, 0, count, 1); });
  const double wanted = seconds / std::max(once, 1e-8);
  const int64_t passes = count == lines ? std::max<int64_t>(1, std::llround(wanted)) : 1;
  if (passes == 1)
    count = std::clamp<size_t>(static_cast<size_t>(static_cast<double>(count) * wanted), 1, lines);
  std::vector<double> speeds;
  size_t first = 0;
  for (int32_t round = 0; round < rounds; ++round) {
    if (first + count > lines) first = 0;
    const double time =
        run_together(threads, [](int32_t) {}, [&](int32_t thread) { pass(thread, first, count, passes); });
    speeds.push_back(static_cast<double>(passes) * static_cast<double>(count * 64 * 8) * threads / time);
    first += count;
  }
  return speeds;
}

}  // namespace bitloom::bench
