#include "random_calls.h"

#include <cstdio>
#include <cstdlib>

#include "coverage.h"

namespace bitloom::cuda::testing {
namespace {

struct Seeds {
  const char* kind;
  std::vector<uint64_t> seeds;
};
const Seeds kSeeds[] = {
#define BL_SEEDS(kind, ...) {kind, {__VA_ARGS__}},
#include "random_seeds.inc"
#undef BL_SEEDS
};

}  // namespace

void run_random(const char* kind, const std::function<void(const Settings& settings, uint64_t seed)>& call) {
  for (const Seeds& row : kSeeds) {
    if (std::string(row.kind) != kind) continue;
    for (uint64_t seed : row.seeds) {
      for (const Settings& settings : all_archs()) call(settings, seed);
    }
  }
  const char* explored = std::getenv("BITLOOM_CUDA_EXPLORE");
  if (explored == nullptr) return;
  for (uint64_t seed = 0; seed < std::strtoull(explored, nullptr, 10); ++seed) {
    const size_t before = instructions_executed();
    for (const Settings& settings : all_archs()) call(settings, seed);
    const size_t found = instructions_executed() - before;
    if (found == 0) continue;
    std::printf("seed of %s: %llu, %zu new\n", kind, static_cast<unsigned long long>(seed), found);
    std::fflush(stdout);
  }
}

}  // namespace bitloom::cuda::testing
