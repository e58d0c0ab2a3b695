// Host side of int8 products: activations to codes, then the kernel of the weights' width and scales.
#include "matmul_i8.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "../../../native/formats/formats.h"
#include "config_i8.h"

namespace bitloom::cuda {

extern const ModuleImages matmul_i8_module, matmul_fp8_module;

namespace gemm {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// Whole rows of 255 * 127 stay below 2^31, those of 4 bits times 16 too.
constexpr int64_t kMostWholeColumns = 65536;

bool has_row_scales(const bl_matmul_args& args) {
  if (args.a.dtype == BL_DTYPE_i8) return args.a_scales.rank + 1 == args.a.rank;
  return args.activation_group == BL_ACTIVATION_GROUP_row;
}

// The pieces of one scratch allocation.
struct Sides {
  uint64_t floats, stride;  // of all arrays, of one
  uint64_t bytes(int64_t m) const { return (floats + 2 * static_cast<uint64_t>(m) + 2) * sizeof(float); }
};
Sides sides_of(Steps steps, int64_t rows, int64_t stages) {
  if (steps == Steps::whole) return {0, 0};
  const uint64_t cells = static_cast<uint64_t>(rows * stages);
  return steps == Steps::fine ? Sides{kSideKinds * 4 * cells, 4 * cells} : Sides{cells, cells};
}

bl_status round_rows(Queue& queue, const bl_matmul_args& args, const IntegerPlan& plan, int64_t batch,
                     const Matrix& a, IntegerParams* p, Scratch& rows, Scratch& sides, bl_error* error) {
  IntegerRowsParams r{};
  BL_RETURN_IF_ERROR(plan_rows(args, batch, a, p->m, static_cast<int32_t>(args.b.cols), &r.from, error));
  const Sides shape = sides_of(plan.steps, p->rows, p->stages);
  BL_RETURN_IF_ERROR(
      rows.allocate(static_cast<uint64_t>(p->m) * static_cast<uint64_t>(p->stages) * kStageDepth, error));
  BL_RETURN_IF_ERROR(sides.allocate(shape.bytes(p->m), error));
  r.codes = rows.as<int8_t>();
  r.sides = sides.as<float>();
  r.side_stride = static_cast<int64_t>(shape.stride);
  r.row_scales = r.sides + shape.floats;
  r.row_sums = reinterpret_cast<int32_t*>(r.row_scales + p->m);
  r.ones = r.row_scales + 2 * static_cast<int64_t>(p->m);
  r.rows = p->rows;
  r.units = 2 * p->stages;
  r.steps = static_cast<int32_t>(plan.steps);
  r.a_is_codes = args.a.dtype == BL_DTYPE_i8;
  r.scale_per_row = plan.scale_per_row;
  r.levels = plan.levels;
  r.zero = plan.zero;
  r.places = code_places(plan.bits);
  p->a = r.codes;
  p->sides = r.sides;
  p->side_stride = r.side_stride;
  p->row_scales = r.row_scales;
  p->row_sums = r.row_sums;
  p->epilogue.header = r.ones;
  if (plan.steps == Steps::coarse) p->epilogue.row_factors = r.row_scales;
  LaunchShape shape_of_rows;
  shape_of_rows.grid.x = static_cast<uint32_t>(std::min(p->rows, 1 << 16));
  shape_of_rows.block.x = 256;
  return plan.fp8 ? queue.launch(matmul_fp8_module, "matmul_fp8_rows", shape_of_rows, r, error)
                  : queue.launch(matmul_i8_module, "matmul_integer_rows", shape_of_rows, r, error);
}

// As plan_stream and plan_prompt of matmul.cc.
LaunchShape plan_stream(const Limits& limits, const IntegerPlan& plan, IntegerParams* p) {
  const int64_t units = p->b.units, tiles = p->b.row_tiles;
  const int64_t wanted = std::min<int64_t>(32, 2 * limits.multiprocessors / tiles);
  p->splits = static_cast<int32_t>(std::max<int64_t>(1, std::min(wanted, units / 8)));
  const int64_t depth = integer_depth(p->b.unit_bytes / 128, plan.centred);
  const int64_t warps = ceil_div(ceil_div(units, p->splits), depth);
  LaunchShape shape;
  shape.grid = {static_cast<uint32_t>(tiles), static_cast<uint32_t>(p->splits), 1};
  shape.block = {32, static_cast<uint32_t>(std::clamp<int64_t>(warps, 1, kIntegerStreamWarps)), 1};
  shape.shared_bytes = shape.block.y * kStreamWarpBytes;
  return shape;
}

LaunchShape plan_prompt(const Limits& limits, const IntegerPlan& plan, IntegerParams* p) {
  const int64_t columns = ceil_div(p->b.row_tiles, kPromptRowTiles), rows = p->rows / kPromptRows;
  const int64_t wanted = std::min<int64_t>(16, 2 * limits.multiprocessors / (columns * rows));
  p->splits = static_cast<int32_t>(std::max<int64_t>(1, std::min<int64_t>(wanted, p->stages / 4)));
  LaunchShape shape;
  shape.grid = {static_cast<uint32_t>(columns), static_cast<uint32_t>(rows),
                static_cast<uint32_t>(p->splits)};
  shape.block.x = kPromptThreads;
  shape.shared_bytes = static_cast<uint32_t>(integer_shared_bytes(
      plan.steps, plan.centred, p->b.unit_bytes, p->raw_bytes, p->b.super_bytes, p->ready_groups));
  return shape;
}

bl_status launch_collect(Queue& queue, const IntegerPlan& plan, const IntegerParams& p, bl_error* error) {
  CollectParams c{};
  c.b = p.b;
  c.partial = p.partial;
  c.row_scales = p.row_scales;
  c.row_sums = p.row_sums;
  c.splits = p.splits;
  c.m = p.m;
  c.n = p.n;
  c.times = plan.centred && plan.bits == 4 ? 4 : 0;
  LaunchShape shape;
  shape.grid.x = static_cast<uint32_t>(std::min<int64_t>(ceil_div(int64_t{p.m} * p.n, 256), 1 << 16));
  shape.block.x = 256;
  return queue.launch(matmul_i8_module, "matmul_collect", shape, c, error);
}

}  // namespace

IntegerPlan plan_integers(const bl_matmul_args& args) {
  IntegerPlan plan{};
  const PanelFormat f = WeightsView(args.b).panel;
  if (args.compute != BL_COMPUTE_i8 || args.b.cols == 0 || f.value_kind != ValueKind::integer) return plan;
  const bool whole_row = f.info->group_size == 0 && f.info->kind != BL_KIND_block;
  if (!whole_row && f.group < 32) return plan;
  static constexpr const char* kNames[] = {"", "z1", "z2", "z3", "z4", "z5", "z6", "z7", "z8"};
  const bool plain =
      f.offset_kind == OffsetKind::none && f.sub_bits == 0 && f.scale_bytes == 2 && f.shift == 0;
  const bool centred = plain && (f.bits == 4 || f.bits == 8) && f.zero == 1 << (f.bits - 1);
  plan.codes = !centred ? kNames[f.bits] : f.bits == 4 ? "c4" : "c8";
  plan.centred = centred;
  plan.bits = f.bits;
  plan.levels = args.activation_bits == 4 ? 7.0f : 127.0f;
  plan.zero = static_cast<float>(f.zero);
  plan.value_shift = f.shift;
  plan.factor = centred && f.bits == 4 ? std::ldexp(f.scale_factor, -4) : f.scale_factor;
  plan.scale_per_row = has_row_scales(args);
  const bool zeroed = f.offset_kind == OffsetKind::zero_point && (f.bits == 4 || f.bits == 8);
  if (plan.scale_per_row && (centred || zeroed)) {
    if (whole_row && args.b.cols <= kMostWholeColumns) {
      plan.steps = Steps::whole;
    } else if (whole_row || f.group >= kStageDepth) {
      plan.steps = Steps::coarse;
    }
  }
  return plan;
}

// Weights that are e4m3 numbers times a scale of at least 32 of them.
IntegerPlan plan_fp8(const Queue& queue, const bl_matmul_args& args) {
  IntegerPlan plan{};
  const PanelFormat f = WeightsView(args.b).panel;
  if (args.compute != BL_COMPUTE_e4m3 || args.b.cols == 0 || !queue.has_code(matmul_fp8_module)) return plan;
  const bool whole_row = f.info->group_size == 0 && f.info->kind != BL_KIND_block;
  if (!whole_row && f.group < 32) return plan;
  const int32_t kind = f.info->kind;
  if (has_elements(f) && f.scale_type == BL_SCALE_e8m0 && kind != BL_KIND_e5m2) {
    plan.codes = f.bits == 4 ? "fp8_e4" : f.bits == 6 ? "fp8_e6" : "fp8_e8";
    plan.value_shift = kind == BL_KIND_e3m2 ? 1 : 0;
    // Exponent biases: 1 of e2m1 and e2m3, 3 of e3m2, 7 of e4m3.
    plan.factor = f.bits == 8 ? 1.0f : kind == BL_KIND_e3m2 ? 0x1p4f : 0x1p6f;
  } else if (f.value_kind == ValueKind::integer && f.offset_kind == OffsetKind::none && f.sub_bits == 0 &&
             f.scale_bytes == 2 && f.bits == 4 && f.zero == 8) {
    plan.codes = "fp8_c4";
    plan.factor = std::ldexp(f.scale_factor, 9);
  }
  plan.fp8 = plan.centred = true;
  plan.bits = f.bits;
  plan.scale_per_row = args.activation_group != BL_ACTIVATION_GROUP_32;
  if (plan.scale_per_row && (whole_row || f.group >= kStageDepth)) plan.steps = Steps::coarse;
  return plan;
}

bl_status run_integers(Queue& queue, const bl_matmul_args& args, const IntegerPlan& given, int64_t batch,
                       const Matrix& a, const FragmentWeights& weights, bool finishes, ProductParams* product,
                       Scratch& partial, Scratch& rows, Scratch& sides, bl_error* error) {
  IntegerPlan plan = given;
  IntegerParams p{};
  p.b = weights;
  p.b.factor = plan.factor;
  p.m = product->m;
  p.n = product->n;
  p.value_shift = plan.value_shift;
  p.epilogue = product->epilogue;
  const bool stream = p.m <= kStreamRows;
  if (stream && plan.steps == Steps::coarse) plan.steps = Steps::fine;
  const int64_t tile = stream ? kStreamRows : kPromptRows;
  p.rows = static_cast<int32_t>(ceil_div(p.m, tile) * tile);
  p.stages = static_cast<int32_t>(ceil_div(p.b.units, 2));
  BL_RETURN_IF_ERROR(round_rows(queue, args, plan, batch, a, &p, rows, sides, error));
  p.ready_groups = plan.steps == Steps::whole ? 0 : std::max(kStageDepth >> std::min(p.b.group_shift, 30), 1);
  p.raw_bytes = p.ready_groups * p.b.record_bytes;
  const LaunchShape shape =
      stream ? plan_stream(queue.limits(), plan, &p) : plan_prompt(queue.limits(), plan, &p);
  if (p.splits > 1 || finishes) {
    const uint64_t count =
        static_cast<uint64_t>(p.splits) * static_cast<uint64_t>(p.m) * static_cast<uint64_t>(p.n);
    BL_RETURN_IF_ERROR(partial.allocate(count * sizeof(float), error));
    p.partial = partial.as<void>();
  }
  static constexpr const char* kSteps[] = {"fine", "coarse", "whole"};
  char name[48];
  std::snprintf(name, sizeof(name), "matmul_%s_%s_%s", stream ? "stream" : "prompt",
                kSteps[static_cast<int>(plan.steps)], plan.codes);
  BL_RETURN_IF_ERROR(queue.launch(plan.fp8 ? matmul_fp8_module : matmul_i8_module, name, shape, p, error));
  product->epilogue = p.epilogue;
  product->partial = static_cast<float*>(p.partial);
  product->splits = p.splits;
  if (plan.steps != Steps::whole || p.partial == nullptr) return BL_STATUS_ok;
  product->splits = 1;
  return launch_collect(queue, plan, p, error);
}

}  // namespace gemm
}  // namespace bitloom::cuda
