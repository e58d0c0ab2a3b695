// Host side of matmul: which kernels run, with which grid.
#include <algorithm>
#include <cstring>
#include <iterator>

#include "../../backend.h"
#include "matmul_i8.h"
#include "operands.h"
#include "weights.h"

namespace bitloom::cuda {

extern const ModuleImages matmul_module, matmul_bf16_module;

namespace gemm {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A launch of the products of one matrix of a stack.
struct Launch {
  bool stream;
  int64_t splits;
  LaunchShape shape;
  char name[32];
};

// Whether codes have a kernel for up to 8 rows of a.
bool has_narrow_stream(const char* product) {
  static constexpr const char* kRare[] = {
#define BL_MATMUL_KERNEL(...)
#define BL_MATMUL_RARE_KERNEL(name, ...) #name,
#include "kernels.inc"
#define BL_MATMUL_KERNEL(...)
#define BL_MATMUL_RARE_KERNEL(name, ...) #name,
#include "kernels_bf16.inc"
  };
  return std::none_of(std::begin(kRare), std::end(kRare),
                      [&](const char* name) { return std::strcmp(name, product) == 0; });
}

// kPlainScale of the kernel's codes.
bool has_plain_scale(const PlannedWeights& b) { return b.product[0] == 'c' || b.product == b.bf16; }

// The stream kernel: as many warps as give each about what it has under way at once, and splits of K where
// the row tiles are fewer than two for a multiprocessor. Of M it depends not at all, so that a row's bits do
// not depend on the rows beside it.
void plan_stream(const Limits& limits, const PlannedWeights& b, Launch* launch) {
  const int64_t units = b.weights.units, tiles = b.weights.row_tiles;
  const int64_t wanted = std::min<int64_t>(32, 2 * limits.multiprocessors / tiles);
  launch->splits = std::max<int64_t>(1, std::min(wanted, units / 8));
  const int64_t per_split = ceil_div(units, launch->splits);
  const int64_t depth = stream_depth(b.weights.unit_bytes / 128, has_plain_scale(b));
  const uint32_t warps =
      static_cast<uint32_t>(std::clamp<int64_t>(ceil_div(per_split, depth), 1, kStreamWarps));
  launch->shape.grid = {static_cast<uint32_t>(tiles), static_cast<uint32_t>(launch->splits), 1};
  launch->shape.block = {32, warps, 1};
  launch->shape.shared_bytes =
      std::max<uint32_t>(warps * kStreamWarpBytes, static_cast<uint32_t>(b.table_bytes));
}

void plan_prompt(const Limits& limits, const PlannedWeights& b, const ProductParams& p, Launch* launch) {
  const int64_t columns = ceil_div(b.weights.row_tiles, kPromptRowTiles), rows = ceil_div(p.m, kPromptRows);
  const int64_t wanted = std::min<int64_t>(16, 2 * limits.multiprocessors / (columns * rows));
  launch->splits = std::max<int64_t>(1, std::min<int64_t>(wanted, b.weights.units / 8));
  launch->shape.grid = {static_cast<uint32_t>(columns), static_cast<uint32_t>(rows),
                        static_cast<uint32_t>(launch->splits)};
  launch->shape.block = {kPromptThreads, 1, 1};
  launch->shape.shared_bytes = static_cast<uint32_t>(
      prompt_shared_bytes(b.weights.unit_bytes, p.raw_bytes, b.weights.super_bytes, p.ready_groups,
                          scale_parts(has_plain_scale(b), b.table_bytes != 0), b.table_bytes));
}

Rounding8 rounding_of(const bl_matmul_args& args) {
  if (args.compute != BL_COMPUTE_e4m3) return Rounding8::none;
  return args.activation_group == BL_ACTIVATION_GROUP_32 ? Rounding8::columns32 : Rounding8::row;
}

// Whether kernels can read a as it lies: rows of `dtype` at multiples of 16 bytes.
bool is_direct(const bl_matmul_args& args, const Matrix& a, int32_t dtype) {
  return rounding_of(args) == Rounding8::none && a.dtype == dtype && args.column_scale.data == nullptr &&
         args.column_order.data == nullptr && a.column == 1 && a.row % 8 == 0 && a.columns % 8 == 0 &&
         reinterpret_cast<uintptr_t>(a.data) % 16 == 0;
}

// Whether rows of a are f32 that a block takes into its registers as they lie.
bool is_wide(const bl_matmul_args& args, const Matrix& a) {
  return a.dtype == BL_DTYPE_f32 && args.column_scale.data == nullptr && args.column_order.data == nullptr &&
         a.column == 1 && a.row % 4 == 0 && a.columns % 4 == 0 &&
         a.columns <= 4 * kPrepareVectors * kPrepareWideThreads &&
         reinterpret_cast<uintptr_t>(a.data) % 16 == 0;
}

bl_status prepare(Queue& queue, const bl_matmul_args& args, int64_t batch, const Matrix& a, int32_t dtype,
                  Scratch& rows, Scratch& factors, ProductParams* p, bl_error* error) {
  PrepareParams prepare{};
  BL_RETURN_IF_ERROR(plan_rows(args, batch, a, p->m, p->k, &prepare, error));
  prepare.padded_k = static_cast<int32_t>(ceil_div(p->k, kUnitDepth) * kUnitDepth);
  BL_RETURN_IF_ERROR(
      rows.allocate(static_cast<uint64_t>(p->m) * static_cast<uint64_t>(prepare.padded_k) * 2, error));
  prepare.out = rows.as<void>();
  prepare.out_dtype = dtype;
  prepare.rounding = rounding_of(args);
  if (dtype == BL_DTYPE_f16 || prepare.rounding == Rounding8::row) {
    BL_RETURN_IF_ERROR(factors.allocate(static_cast<uint64_t>(p->m) * sizeof(float), error));
    prepare.row_factors = factors.as<float>();
  }
  p->a = prepare.out;
  p->a_row_bytes = static_cast<int64_t>(prepare.padded_k) * 2;
  p->k = prepare.padded_k;
  p->epilogue.row_factors = prepare.row_factors;
  LaunchShape shape;
  shape.grid.x = static_cast<uint32_t>(std::min(p->m, 1 << 16));
  shape.block.x = 256;
  const char* kernel = prepare.rounding == Rounding8::none ? "matmul_prepare" : "matmul_prepare_e4m3";
  if (prepare.rounding == Rounding8::none && is_wide(args, a)) {
    kernel = "matmul_prepare_wide";
    shape.block.x =
        static_cast<uint32_t>(std::min(kPrepareWideThreads, (prepare.padded_k / 4 + 31) / 32 * 32));
  }
  return queue.launch(matmul_module, kernel, shape, prepare, error);
}

bl_status project(Queue& queue, const bl_matmul_args& args, int64_t batch, const Matrix& a, Scratch& low,
                  Epilogue* e, bl_error* error) {
  LowRankParams p{};
  Matrix down, scales;
  BL_RETURN_IF_ERROR(read_scales("a_scales", args.a_scales, args.a.rank, args.batch, batch, &scales, error));
  BL_RETURN_IF_ERROR(
      read_adapters("low_rank_down", args.low_rank_down, args, batch, &down, &p.down_adapter, error));
  p.ids = static_cast<const int32_t*>(args.low_rank_ids.data);
  p.adapters = e->adapters;
  p.a = a.data;
  p.a_row = a.row;
  p.a_column = a.column;
  p.a_dtype = a.dtype;
  p.down = down.data;
  p.down_row = down.row;
  p.down_column = down.column;
  p.down_dtype = down.dtype;
  p.m = static_cast<int32_t>(a.rows);
  p.k = static_cast<int32_t>(a.columns);
  p.rank = e->rank;
  p.a_scales = static_cast<const float*>(scales.data);
  p.scales_row = scales.row;
  p.scales_column = scales.column;
  p.scale_columns = args.a_scales.rank == args.a.rank ? 32 : 0;
  const int64_t count = a.rows * e->rank;
  if (count == 0) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(low.allocate(static_cast<uint64_t>(count) * sizeof(float), error));
  p.low = low.as<float>();
  e->low = p.low;
  LaunchShape shape;
  shape.grid.x = static_cast<uint32_t>(std::min<int64_t>(ceil_div(count, 8), 1 << 16));
  shape.block.x = 256;
  return queue.launch(matmul_module, "matmul_low_rank", shape, p, error);
}

bl_status launch_finish(Queue& queue, const ProductParams& p, bl_error* error) {
  FinishParams finish{};
  finish.partial = p.partial;
  finish.splits = p.splits;
  finish.m = p.m;
  finish.n = p.n;
  finish.columns = p.epilogue.gated_columns != 0 ? p.epilogue.gated_columns : p.n;
  finish.epilogue = p.epilogue;
  LaunchShape shape;
  shape.grid.x = static_cast<uint32_t>(ceil_div(finish.columns, 32));
  shape.grid.y = static_cast<uint32_t>(std::min<int64_t>(ceil_div(p.m, 4), 65535));
  shape.block = {32, 4, 1};
  return queue.launch(matmul_module, "matmul_finish", shape, finish, error);
}

// What all matrices of a stack share.
struct Plan {
  PlannedWeights b;  // of the whole stack
  IntegerPlan integers;
  bool bf16;  // products are of bf16
  int64_t batches, n;
};

bl_status run(Queue& queue, const bl_matmul_args& args, const Plan& plan, int64_t batch, bl_error* error) {
  Matrix a;
  BL_RETURN_IF_ERROR(read_matrix("a", args.a, args.batch, batch, &a, error));
  ProductParams p{};
  BL_RETURN_IF_ERROR(plan_epilogue(args, batch, plan.n, &p.epilogue, error));
  p.m = static_cast<int32_t>(a.rows);
  p.n = static_cast<int32_t>(plan.n);
  p.k = static_cast<int32_t>(args.b.cols);
  PlannedWeights b = plan.b;
  b.weights.row_tiles = static_cast<int32_t>(ceil_div(plan.n, kUnitRows));
  const int64_t first = batch * b.weights.row_tiles;
  b.weights.codes = static_cast<const char*>(b.weights.codes) + first * b.weights.tile_codes;
  b.weights.records = static_cast<const char*>(b.weights.records) + first * b.weights.tile_records;
  b.weights.supers = static_cast<const char*>(b.weights.supers) + first * b.weights.tile_supers;
  p.b = b.weights;
  p.epilogue.header = p.b.header;
  Scratch rows(queue), factors(queue), low(queue), partial(queue);
  if (args.low_rank_down.data != nullptr) {
    BL_RETURN_IF_ERROR(project(queue, args, batch, a, low, &p.epilogue, error));
  }
  if (p.k == 0) {  // no products: their sum, over no splits, is zero
    p.epilogue.header = nullptr;
    return launch_finish(queue, p, error);
  }
  if (plan.integers.codes != nullptr) {
    BL_RETURN_IF_ERROR(run_integers(queue, args, plan.integers, batch, a, p.b, needs_finish(args), &p,
                                    partial, rows, factors, error));
    return p.partial == nullptr ? BL_STATUS_ok : launch_finish(queue, p, error);
  }
  const int32_t dtype = plan.bf16 ? BL_DTYPE_bf16 : BL_DTYPE_f16;
  if (plan.bf16) p.epilogue.header = nullptr;
  if (is_direct(args, a, dtype)) {
    p.a = a.data;
    p.a_row_bytes = a.row * 2;
  } else {
    BL_RETURN_IF_ERROR(prepare(queue, args, batch, a, dtype, rows, factors, &p, error));
  }
  const int groups = p.b.group_shift >= 6 ? 1 : kUnitDepth >> p.b.group_shift;
  p.ready_groups = p.b.record_bytes == 0 ? 0 : groups;
  p.raw_bytes = p.ready_groups * p.b.record_bytes;
  Launch launch{};
  launch.stream = p.m <= kStreamRows;
  if (launch.stream) {
    plan_stream(queue.limits(), b, &launch);
    // Its kernels of centred codes take scales as they are stored.
    if (b.product[0] == 'c') p.epilogue.header = nullptr;
  } else {
    plan_prompt(queue.limits(), b, p, &launch);
  }
  p.splits = static_cast<int32_t>(launch.splits);
  const bool finishes = launch.splits > 1 || needs_finish(args);
  if (finishes) {
    const uint64_t count =
        static_cast<uint64_t>(launch.splits) * static_cast<uint64_t>(p.m) * static_cast<uint64_t>(p.n);
    BL_RETURN_IF_ERROR(partial.allocate(count * sizeof(float), error));
    p.partial = partial.as<float>();
  }
  std::snprintf(launch.name, sizeof(launch.name), "matmul_%s_%s",
                !launch.stream                             ? "prompt"
                : p.m <= 8 && has_narrow_stream(b.product) ? "stream"
                                                           : "stream16",
                b.product);
  const ModuleImages& module = plan.bf16 ? matmul_bf16_module : matmul_module;
  BL_RETURN_IF_ERROR(queue.launch(module, launch.name, launch.shape, p, error));
  return finishes ? launch_finish(queue, p, error) : BL_STATUS_ok;
}

// Weights of rare formats become f16 fragments in scratch.
bl_status unpack(Queue& queue, Scratch& to, Scratch& tables, PlannedWeights* b, bl_error* error) {
  UnpackParams p{};
  const int64_t units = static_cast<int64_t>(b->weights.row_tiles) * b->weights.units;
  BL_RETURN_IF_ERROR(to.allocate(static_cast<uint64_t>(units) * 2048, error));
  if (b->entry_count > 0) {
    const uint64_t bytes = static_cast<uint64_t>(b->entry_count) * sizeof(float);
    BL_RETURN_IF_ERROR(tables.allocate_table(b->entries, bytes, error));
    p.entries = tables.as<float>();
  }
  p.from = b->weights;
  p.to = to.as<void>();
  p.bits = b->bits;
  p.kind = static_cast<int32_t>(b->unpack);
  LaunchShape shape;
  shape.grid.x = static_cast<uint32_t>(std::min<int64_t>(units, 1 << 20));
  shape.block.x = 256;
  b->weights = unpacked_weights(b->weights, p.to);
  b->product = "f16";
  b->table_bytes = 0;
  return queue.launch(matmul_module, "matmul_unpack", shape, p, error);
}

}  // namespace
}  // namespace gemm

bl_status matmul(Queue& queue, const bl_matmul_args& args, bl_error* error) {
  using namespace gemm;
  Plan plan{};
  plan.integers = args.compute == BL_COMPUTE_e4m3 ? plan_fp8(queue, args) : plan_integers(args);
  BL_RETURN_IF_ERROR(check_supported(args, plan.integers.codes != nullptr, error));
  if (args.b.rows == 0 || element_count(args.c) == 0) return BL_STATUS_ok;
  plan.batches = std::max<int64_t>(args.batch, 1);
  plan.n = args.b.rows / plan.batches;
  // What may fail fails before anything is written.
  for (int64_t batch = 0; batch < std::min<int64_t>(plan.batches, 1); ++batch) {
    Epilogue epilogue{};
    Matrix a, scales, down;
    int64_t stride = 0;
    BL_RETURN_IF_ERROR(plan_epilogue(args, batch, plan.n, &epilogue, error));
    BL_RETURN_IF_ERROR(read_matrix("a", args.a, args.batch, batch, &a, error));
    BL_RETURN_IF_ERROR(
        read_scales("a_scales", args.a_scales, args.a.rank, args.batch, batch, &scales, error));
    BL_RETURN_IF_ERROR(
        read_adapters("low_rank_down", args.low_rank_down, args, batch, &down, &stride, error));
    BL_CHECK(a.rows <= 65535 * kPromptRows, unsupported,
             "matmul: a has %lld rows, too many for a call on device", static_cast<long long>(a.rows));
  }
  Scratch unpacked(queue), tables(queue);
  if (args.b.cols > 0) {
    plan.b = plan_weights(args.b);
    // Numbers of compute e4m3 are bf16, from whatever they were rounded.
    const bool values_are_bf16 = rounding_of(args) != Rounding8::none ||
                                 (args.a.dtype == BL_DTYPE_bf16 && args.column_scale.data == nullptr);
    plan.bf16 = plan.integers.codes == nullptr && values_are_bf16 && plan.b.bf16 != nullptr;
    if (plan.bf16) plan.b.product = plan.b.bf16;
    if (plan.b.product == nullptr && plan.integers.codes == nullptr)
      BL_RETURN_IF_ERROR(unpack(queue, unpacked, tables, &plan.b, error));
  }
  for (int64_t batch = 0; batch < plan.batches; ++batch) {
    BL_RETURN_IF_ERROR(run(queue, args, plan, batch, error));
  }
  return BL_STATUS_ok;
}

}  // namespace bitloom::cuda
