#include "choose.h"

#include <cstdio>
#include <string>

#include "../../base/error.h"
#include "../../isa/isa.h"
#include "prepared.h"
#include "tuning.h"

namespace bitloom {
namespace {

// What brings activations into the form that an algorithm reads, by the kernel's level.
#define BL_PACK_dequant(isa) isa::pack_activations_i8, nullptr, nullptr
#define BL_PACK_lut(isa) isa::pack_activations_i8, nullptr, nullptr
#define BL_PACK_lut_fast(isa) isa::pack_activations_i8, nullptr, nullptr
#define BL_PACK_lut_wide(isa) isa::pack_activations_i8, nullptr, nullptr
#define BL_PACK_tile(isa) nullptr, isa::pack_tile_codes, isa::pack_tile_halves

const MatmulKernelRow kKernels[] = {
#define BL_MATMUL_KERNEL(isa, algorithm, compute, formats, panels, rows, scratch) \
  {"matmul_" #algorithm "_" #compute "_" #isa,                                    \
   BL_ISA_##isa,                                                                  \
   BL_ALGORITHM_##algorithm,                                                      \
   BL_COMPUTE_##compute,                                                          \
   formats,                                                                       \
   panels,                                                                        \
   rows,                                                                          \
   scratch,                                                                       \
   isa::matmul_##algorithm##_##compute,                                           \
   BL_PACK_##algorithm(isa)},
#include "kernels.inc"
#undef BL_MATMUL_KERNEL
};
#undef BL_PACK_dequant
#undef BL_PACK_lut
#undef BL_PACK_lut_fast
#undef BL_PACK_lut_wide
#undef BL_PACK_tile

const MatmulKernelRow* find(int32_t isa, int32_t algorithm, int32_t compute, const PanelFormat& f) {
  for (const MatmulKernelRow& row : kKernels) {
    const char* reason = row.isa > isa                ? "ISA level"
                         : row.algorithm != algorithm ? "algorithm"
                         : row.compute != compute     ? "compute mode"
                         : !row.takes(f)              ? "format"
                                                      : nullptr;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: matmul %s: %s: %s\n", f.info->name, row.name,
                   reason == nullptr ? "taken" : reason);
    }
    if (reason == nullptr) return &row;
  }
  return nullptr;
}

// Tiles share an activation scale among 512. A call that asks for one per 32, or for 4 bits, of which 7 steps
// must do for the largest of those that share a scale, would lose what it asked for.
bool suits_tile(const bl_matmul_args& args, const PanelFormat& f) {
  if (args.compute != BL_COMPUTE_i8 || !takes_tile_i8(f)) return true;
  if (args.activation_group == BL_ACTIVATION_GROUP_row) return true;
  return args.activation_group != BL_ACTIVATION_GROUP_32 && args.activation_bits != 4;
}

constexpr const char* kAlgorithmNames[] = {"auto", "lut", "dequant", "tile"};
constexpr const char* kComputeNames[] = {"f32", "i8", "bf16", "i1", "e4m3"};

}  // namespace

bl_status fail_without_kernel(const bl_matmul_args& args, const PanelFormat& f, int64_t m, int32_t tables,
                              bl_error* error) {
  std::string algorithms, computes;
  const auto add = [](std::string* list, const char* name) {
    *list += (list->empty() ? "" : " or ") + std::string(name);
  };
  bl_matmul_args other = args;
  for (int32_t i = BL_ALGORITHM_lut; i <= BL_ALGORITHM_tile; ++i) {
    other.algorithm = i;
    if (choose_matmul(other, f, m, tables) != nullptr) add(&algorithms, kAlgorithmNames[i]);
  }
  other.algorithm = args.algorithm;
  for (int32_t i = BL_COMPUTE_f32; i <= BL_COMPUTE_e4m3; ++i) {
    other.compute = i;
    // Other options may need compute i8, and prepared activations do.
    const bool others = args.prepared == nullptr && args.activation_bits != 4 && args.activation_group == 0 &&
                        args.tables == BL_TABLES_lossless && args.a.dtype != BL_DTYPE_i8;
    if ((others || i == BL_COMPUTE_i8) && choose_matmul(other, f, m, tables) != nullptr) {
      add(&computes, kComputeNames[i]);
    }
  }
  std::string expected;
  if (!algorithms.empty()) expected = "algorithm " + algorithms;
  if (!computes.empty()) expected += (expected.empty() ? "compute " : ", or compute ") + computes;
  if (args.algorithm == BL_ALGORITHM_lut && args.tables == BL_TABLES_fast) {
    bl_matmul_args lossless = args;
    lossless.tables = BL_TABLES_lossless;
    if (choose_matmul(lossless, f, m, tables) != nullptr) expected += ", or lossless tables";
  }
  if (expected.empty()) {
    expected = args.prepared == nullptr ? "weights of another format"
                                        : "a format of integers, or activations that are not prepared";
  }
  return fail(error, BL_STATUS_unsupported,
              "matmul: algorithm is %s, which cannot do compute %s%s of format %s, expected %s",
              kAlgorithmNames[args.algorithm], kComputeNames[args.compute],
              args.tables == BL_TABLES_fast ? " with fast tables" : "", f.info->name, expected.c_str());
}

const MatmulKernelRow* choose_matmul(const bl_matmul_args& args, const PanelFormat& f, int64_t m,
                                     int32_t tables) {
  const int32_t isa = isa_of(args.run);
  const bool automatic = args.algorithm == BL_ALGORITHM_auto;
  int32_t compute = args.compute;
  // i8 is a permission: formats without integer values are computed in floats.
  const bool integers = compute == BL_COMPUTE_i8 && f.has_integer_values();
  const bool prepared = args.prepared != nullptr;
  const int32_t lut = args.tables == BL_TABLES_fast ? BL_ALGORITHM_lut_fast : BL_ALGORITHM_lut;
  if (prepared && !integers) return nullptr;  // there are no floats to compute with
  int32_t algorithm = args.algorithm == BL_ALGORITHM_lut ? lut : args.algorithm;
  if (automatic) {
    // f32 means f32: tiles would round to bf16. Signs times signs have one kernel.
    const bool tuned = compute == BL_COMPUTE_i8 || compute == BL_COMPUTE_bf16;
    algorithm = tuned ? tuned_algorithm(isa, integers ? f.bits : 0, m, args.tables == BL_TABLES_fast)
                      : BL_ALGORITHM_dequant;
    if (algorithm == BL_ALGORITHM_lut) algorithm = lut;
    const bool lacks_tables = (table_kinds_of(f, algorithm) & ~tables) != 0;
    if (prepared && (lacks_tables || algorithm == BL_ALGORITHM_tile)) algorithm = BL_ALGORITHM_dequant;
    if (algorithm == BL_ALGORITHM_tile && !suits_tile(args, f)) algorithm = BL_ALGORITHM_dequant;
  }
  for (;;) {
    if (args.compute == BL_COMPUTE_i1) {
      compute = BL_COMPUTE_i1;
    } else if (algorithm == BL_ALGORITHM_tile) {
      compute = args.compute == BL_COMPUTE_i8 && !takes_tile_i8(f) ? BL_COMPUTE_bf16 : args.compute;
    } else {
      compute = integers ? BL_COMPUTE_i8 : BL_COMPUTE_f32;
    }
    const MatmulKernelRow* row = find(isa, algorithm, compute, f);
    if (row == nullptr && !automatic && algorithm == BL_ALGORITHM_lut) {
      row = find(isa, BL_ALGORITHM_lut_wide, compute, f);
    }
    if (row != nullptr || !automatic || algorithm == BL_ALGORITHM_dequant) return row;
    algorithm = BL_ALGORITHM_dequant;  // the format is one that the tuned algorithm does not take
  }
}

const MatmulKernelRow* choose_spare(const bl_matmul_args& args, const MatmulKernelRow& kernel,
                                    const PanelFormat& f) {
  if (kernel.algorithm != BL_ALGORITHM_tile || kernel.compute != BL_COMPUTE_i8) return nullptr;
  return find(isa_of(args.run), BL_ALGORITHM_tile, BL_COMPUTE_bf16, f);
}

}  // namespace bitloom
