#include "tuning.h"

#include <atomic>

#include "../../base/error.h"
#include "../../base/tensor.h"
#include "../../include/bitloom.h"

namespace bitloom {
namespace {

constexpr int32_t kLevels = BL_ISA_i8mm + 1;

struct Rule {
  std::atomic<int32_t> lut_rows, fast_rows, tile_rows;
};

struct BuiltIn {
  int32_t isa, bits, lut_rows, fast_rows, tile_rows;
};
constexpr BuiltIn kBuiltIn[] = {
#define BL_MATMUL_TUNING(isa, bits, lut_rows, fast_rows, tile_rows) \
  {BL_ISA_##isa, bits, lut_rows, fast_rows, tile_rows},
#include "tuning.inc"
#undef BL_MATMUL_TUNING
};
static_assert(sizeof(kBuiltIn) / sizeof(kBuiltIn[0]) == kLevels * BL_MATMUL_TUNING_WIDTHS);

// In force. Single numbers are atomic; a call that runs while a table is set may see some of the old ones.
struct Rules {
  Rule at[kLevels][BL_MATMUL_TUNING_WIDTHS];

  Rules() {
    for (int32_t isa = 0; isa < kLevels; ++isa) reset(isa);
  }
  void reset(int32_t isa) {
    for (const BuiltIn& row : kBuiltIn) {
      if (row.isa != isa) continue;
      at[isa][row.bits].lut_rows = row.lut_rows;
      at[isa][row.bits].fast_rows = row.fast_rows;
      at[isa][row.bits].tile_rows = row.tile_rows;
    }
  }
};

Rules& rules() {
  static Rules rules;
  return rules;
}

}  // namespace

int32_t tuned_algorithm(int32_t isa, int32_t bits, int64_t m, bool fast) {
  const Rule& rule = rules().at[isa][bits <= 8 ? bits : 0];
  if (m >= rule.tile_rows.load(std::memory_order_relaxed)) return BL_ALGORITHM_tile;
  const std::atomic<int32_t>& rows = fast ? rule.fast_rows : rule.lut_rows;
  return m <= rows.load(std::memory_order_relaxed) ? BL_ALGORITHM_lut : BL_ALGORITHM_dequant;
}

}  // namespace bitloom

extern "C" {

bl_status bl_get_matmul_tuning(int32_t isa, bl_matmul_tuning* tuning, bl_error* error) {
  using namespace bitloom;
  BL_CHECK(isa >= 0 && isa < kLevels, invalid_argument, "matmul_tuning: isa is %d, expected a known level",
           isa);
  BL_CHECK(tuning != nullptr && tuning->size == sizeof(bl_matmul_tuning), invalid_argument,
           "matmul_tuning: tuning is null or tuning.size is not sizeof(bl_matmul_tuning)");
  for (int32_t bits = 0; bits < BL_MATMUL_TUNING_WIDTHS; ++bits) {
    tuning->lut_rows[bits] = rules().at[isa][bits].lut_rows;
    tuning->tile_rows[bits] = rules().at[isa][bits].tile_rows;
  }
  return BL_STATUS_ok;
}

bl_status bl_set_matmul_tuning(int32_t isa, const bl_matmul_tuning* tuning, bl_error* error) {
  using namespace bitloom;
  BL_CHECK(isa >= 0 && isa < kLevels, invalid_argument, "matmul_tuning: isa is %d, expected a known level",
           isa);
  if (tuning == nullptr) {
    rules().reset(isa);
    return BL_STATUS_ok;
  }
  BL_CHECK(tuning->size == sizeof(bl_matmul_tuning), invalid_argument,
           "matmul_tuning: tuning.size is %llu, expected %llu", static_cast<unsigned long long>(tuning->size),
           static_cast<unsigned long long>(sizeof(bl_matmul_tuning)));
  for (int32_t bits = 0; bits < BL_MATMUL_TUNING_WIDTHS; ++bits) {
    BL_CHECK(tuning->lut_rows[bits] >= 0, invalid_argument,
             "matmul_tuning: lut_rows[%d] is %d, expected at least 0", bits, tuning->lut_rows[bits]);
    BL_CHECK(tuning->tile_rows[bits] >= 1, invalid_argument,
             "matmul_tuning: tile_rows[%d] is %d, expected at least 1", bits, tuning->tile_rows[bits]);
  }
  for (int32_t bits = 0; bits < BL_MATMUL_TUNING_WIDTHS; ++bits) {
    rules().at[isa][bits].lut_rows = tuning->lut_rows[bits];
    rules().at[isa][bits].fast_rows = tuning->lut_rows[bits];
    rules().at[isa][bits].tile_rows = tuning->tile_rows[bits];
  }
  return BL_STATUS_ok;
}

}  // extern "C"
