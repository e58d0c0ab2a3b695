// matmul: validate, choose a kernel, pack the activations, partition N, run.
#include <algorithm>
#include <atomic>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "../quantize/pack_panel.h"
#include "activations.h"
#include "choose.h"

namespace bitloom {

namespace {

// Multiply-adds below which waking other threads costs more than it brings (about 10 microseconds).
constexpr int64_t kSerialWork = int64_t{1} << 18;
bl_status validate(const bl_matmul_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({"matmul", "a"}, args.a, kFloatTypes, 1, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_weights({"matmul", "b"}, args.b, error));
  BL_RETURN_IF_ERROR(check_output({"matmul", "c"}, args.c, kFloatTypes, 1, BL_MAX_RANK, error));
  BL_CHECK(args.b.cols == args.a.shape[args.a.rank - 1], invalid_shape,
           "matmul: b.cols is %lld, expected %lld (= a.shape[%d])", static_cast<long long>(args.b.cols),
           static_cast<long long>(args.a.shape[args.a.rank - 1]), args.a.rank - 1);
  BL_CHECK(args.c.rank == args.a.rank, invalid_shape, "matmul: c.rank is %d, expected %d (= a.rank)",
           args.c.rank, args.a.rank);
  for (int axis = 0; axis + 1 < args.a.rank; ++axis) {
    BL_CHECK(args.c.shape[axis] == args.a.shape[axis], invalid_shape,
             "matmul: c.shape[%d] is %lld, expected %lld (= a.shape[%d])", axis,
             static_cast<long long>(args.c.shape[axis]), static_cast<long long>(args.a.shape[axis]), axis);
  }
  BL_RETURN_IF_ERROR(check_dim({"matmul", "c"}, args.c, args.c.rank - 1, args.b.rows, "b.rows", error));
  BL_RETURN_IF_ERROR(check_optional_vector({"matmul", "bias"}, args.bias, dtype_bit(BL_DTYPE_f32),
                                           args.b.rows, "b.rows", error));
  BL_CHECK(args.compute >= BL_COMPUTE_f32 && args.compute <= BL_COMPUTE_bf16, invalid_argument,
           "matmul: compute is %d, expected 0 (f32), 1 (i8) or 2 (bf16)", args.compute);
  BL_CHECK(args.algorithm >= BL_ALGORITHM_auto && args.algorithm <= BL_ALGORITHM_tile, invalid_argument,
           "matmul: algorithm is %d, expected 0 (auto), 1 (lut), 2 (dequant) or 3 (tile)", args.algorithm);
  BL_RETURN_IF_ERROR(check_apart({"matmul", "c"}, args.c, "a", args.a.data, args.a.bytes, error));
  BL_RETURN_IF_ERROR(check_apart({"matmul", "c"}, args.c, "b", args.b.data,
                                 bl_layout_bytes(args.b.format, args.b.layout, args.b.rows, args.b.cols),
                                 error));
  return check_apart({"matmul", "c"}, args.c, "bias", args.bias.data,
                     args.bias.data == nullptr ? 0 : args.bias.bytes, error);
}

// How a call is cut into pieces, and what memory each piece needs.
struct Plan {
  ActivationsPlan activations;
  int64_t unit_panels, units;  // pieces of N
  int64_t slots;               // pieces worked on at a time, each with memory of its own:
  uint64_t values_bytes, kernel_bytes, panel_bytes;

  Plan(const bl_matmul_args& args, const MatmulKernelRow& kernel, const WeightsView& b, int64_t m)
      : activations(kernel, b.panel, m) {
    const int64_t panels = (b.rows + kPanelRows - 1) / kPanelRows;
    const int32_t threads = args.run.executor == nullptr ? thread_count(args.run) : 16;
    // Canonical weights are brought into panels one by one; panels in memory are read several at a time, but no
    // more than lets every thread have some.
    unit_panels = b.panels() == 0 ? 1 : std::min<int64_t>(kernel.panels, panels / (2 * threads));
    unit_panels = std::max<int64_t>(unit_panels, 1);
    units = (panels + unit_panels - 1) / unit_panels;
    slots = std::min<int64_t>(threads, units);
    const int64_t rows = std::min<int64_t>(m, kernel.rows);
    values_bytes = align_up(static_cast<uint64_t>(rows * unit_panels * kPanelRows) * sizeof(float));
    kernel_bytes = align_up(static_cast<uint64_t>(kernel.scratch_bytes(b.panel)));
    panel_bytes = b.panels() == panels ? 0 : align_up(static_cast<uint64_t>(b.panel.panel_bytes));
  }
  uint64_t slot_bytes() const { return values_bytes + kernel_bytes + panel_bytes; }
  uint64_t total() const { return activations.total() + static_cast<uint64_t>(slots) * slot_bytes(); }
};

// c's part of a finished tile, columns [n, n + count): bias added, converted.
void store(const Tile& tile, int64_t n, int64_t count, float tensor_scale, const float* bias, const Rows& c) {
  const int64_t step = c.stride * dtype_bytes(c.tensor.dtype);
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    float* row = tile.values + (m - tile.m_begin) * tile.stride;
    if (tensor_scale != 1) {
      for (int64_t i = 0; i < count; ++i) row[i] *= tensor_scale;
    }
    if (bias != nullptr) {
      for (int64_t i = 0; i < count; ++i) row[i] += load_as<float>(bias + n + i);
    }
    store_values(c.tensor.dtype, c.at(m) + n * step, c.stride, count, row);
  }
}

struct Call {
  const bl_matmul_args& args;
  const MatmulKernelRow& kernel;
  const WeightsView& b;
  const Plan& plan;
  Activations a;
  Rows c;
  PackPanel pack;
};

// Computes and stores the columns of unit `unit` in the memory of one slot.
void run_unit(const Call& call, int64_t unit, uint8_t* memory) {
  const WeightsView& b = call.b;
  const int64_t n = unit * call.plan.unit_panels * kPanelRows;
  const int64_t end = std::min(n + call.plan.unit_panels * kPanelRows, b.rows);
  float* values = reinterpret_cast<float*>(memory);
  uint8_t* scratch = memory + call.plan.values_bytes;
  uint8_t* packed = scratch + call.plan.kernel_bytes;
  // Full panels in memory, then what is canonical, a panel at a time.
  for (int64_t begin = n; begin < end;) {
    int64_t panels = std::min(end, b.panels() * kPanelRows) - begin;
    panels = panels > 0 ? panels / kPanelRows : 0;
    const uint8_t* source = packed;
    int64_t count = std::min(end - begin, kPanelRows);
    if (panels == 0) {
      call.pack(b.panel, b.canonical_row(begin), b.row_bytes, count, packed);
      panels = 1;
    } else {
      source = b.panel_of(begin);
      count = panels * kPanelRows;
    }
    for (int64_t m = 0; m < call.plan.activations.m; m += call.kernel.rows) {
      const int64_t m_end = std::min(m + call.kernel.rows, call.plan.activations.m);
      const Tile tile{source, b.panel.panel_bytes, panels, m,     m_end,
                      values, panels * kPanelRows, false,  scratch};
      call.kernel.run(b.panel, call.a, tile);
      store(tile, begin, count, b.tensor_scale, static_cast<const float*>(call.args.bias.data), call.c);
    }
    begin += count;
  }
}

}  // namespace

}  // namespace bitloom

extern "C" {

bl_status bl_matmul(const bl_matmul_args* args_in, bl_error* error) {
  using namespace bitloom;
  const bl_matmul_args* args = args_in;
  BL_READ_ARGS(bl_matmul_args, "matmul", call);
  BL_RETURN_IF_ERROR(validate(call, error));
  const WeightsView b(call.b);
  const Rows rows(call.a);
  const MatmulKernelRow* kernel = choose_matmul(call, b.panel, rows.count);
  BL_CHECK(kernel != nullptr, unsupported, "matmul: algorithm is %d, which cannot do compute %d of format %s",
           call.algorithm, call.compute, b.info->name);
  if (rows.count == 0 || b.rows == 0) return BL_STATUS_ok;
  const Plan plan(call, *kernel, b, rows.count);
  const Scratch scratch(call.workspace, call.workspace_bytes, plan.total());
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "matmul: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(plan.total()));
  const Activations a = pack_activations(*kernel, b.panel, plan.activations, call.run, rows, scratch.data());
  const Call work{call, *kernel, b, plan, a, Rows(call.c), choose_pack_panel(isa_of(call.run), b.panel)};
  bl_run run = call.run;
  if (rows.count * b.rows * std::max<int64_t>(b.cols, 1) < kSerialWork) run.threads = 1;
  std::atomic<int64_t> next{0};
  uint8_t* slots = scratch.data() + plan.activations.total();
  parallel_for(run, plan.slots, [&](int64_t slot) {
    uint8_t* memory = slots + static_cast<uint64_t>(slot) * plan.slot_bytes();
    for (int64_t unit = next++; unit < plan.units; unit = next++) run_unit(work, unit, memory);
  });
  return BL_STATUS_ok;
}

uint64_t bl_matmul_workspace_bytes(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  if (!read_args(args, &call) || validate(call, nullptr) != BL_STATUS_ok) return 0;
  const WeightsView b(call.b);
  const int64_t m = Rows(call.a).count;
  const MatmulKernelRow* kernel = choose_matmul(call, b.panel, m);
  return kernel == nullptr ? 0 : Plan(call, *kernel, b, m).total() + kScratchAlignment;
}

const char* bl_matmul_kernel(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  if (!read_args(args, &call) || validate(call, nullptr) != BL_STATUS_ok) return nullptr;
  const MatmulKernelRow* kernel = choose_matmul(call, WeightsView(call.b).panel, Rows(call.a).count);
  return kernel == nullptr ? nullptr : kernel->name;
}

}  // extern "C"
