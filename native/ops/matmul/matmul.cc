// matmul: validate, choose a kernel, pack the activations, partition N, run, finish (epilogue.h).
#include <algorithm>
#include <atomic>

#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "../quantize/pack_panel.h"
#include "activations.h"
#include "choose.h"
#include "epilogue.h"
#include "validate.h"

namespace bitloom {

namespace {

// Multiply-adds below which waking other threads costs more than it brings (about 10 microseconds).
constexpr int64_t kSerialWork = int64_t{1} << 18;

// How a call is cut into pieces, and what memory each piece needs.
struct Plan {
  ActivationsPlan activations;
  uint64_t additions_bytes;
  int64_t batches, batch_rows;  // matrices in b; rows of a for each
  int64_t columns;              // of c
  int64_t unit_panels,
      units;            // a unit: 16 * unit_panels columns of c (and gate and up rows of b) in one batch
  int64_t batch_units;  // units of a batch
  int64_t slots;        // units worked on at a time, each with memory of its own:
  uint64_t values_bytes, kernel_bytes, packed_bytes, epilogue_bytes;

  Plan(const bl_matmul_args& args, const MatmulKernelRow& kernel, const WeightsView& b, const Input& input,
       const Additions& additions, const Epilogue& epilogue)
      : activations(kernel, b.panel, input),
        additions_bytes(additions.shared_bytes()),
        batches(std::max<int64_t>(args.batch, 1)),
        batch_rows(input.rows() / batches),
        columns(b.rows / batches / epilogue.parts()) {
    const int64_t panels = (columns + kPanelRows - 1) / kPanelRows;
    const int32_t threads = args.run.executor == nullptr ? thread_count(args.run) : 16;
    // Canonical weights are brought into panels one by one; panels in memory are read several at a time, but
    // no more than lets every thread have some.
    const int64_t least = (epilogue.granularity() + kPanelRows - 1) / kPanelRows;
    unit_panels = b.panels() == 0 ? 1 : std::min<int64_t>(kernel.panels, batches * panels / (2 * threads));
    unit_panels = std::max<int64_t>(unit_panels / least, 1) * least;
    batch_units = (panels + unit_panels - 1) / unit_panels;
    units = batches * batch_units;
    slots = std::min<int64_t>(threads, units);
    const int64_t rows = std::min<int64_t>(batch_rows, kernel.rows);
    values_bytes = align_up(static_cast<uint64_t>(rows * epilogue.parts() * width()) * sizeof(float));
    kernel_bytes = align_up(static_cast<uint64_t>(kernel.scratch_bytes(b.panel)));
    packed_stride = static_cast<int64_t>(align_up(static_cast<uint64_t>(b.panel.panel_bytes)));
    // All panels of a unit of canonical weights; of weights in panels the last one, which may be canonical.
    const int64_t packed = b.panels() == 0            ? epilogue.parts() * unit_panels
                           : b.rows % kPanelRows == 0 ? 0
                                                      : 1;
    packed_bytes = static_cast<uint64_t>(packed * packed_stride);
    epilogue_bytes = epilogue.slot_bytes(width());
  }
  int64_t packed_stride;  // bytes between panels brought into place
  int64_t width() const { return unit_panels * kPanelRows; }
  uint64_t slot_bytes() const { return values_bytes + kernel_bytes + packed_bytes + epilogue_bytes; }
  uint64_t total() const {
    return activations.total() + additions_bytes + static_cast<uint64_t>(slots) * slot_bytes();
  }
};

struct Call {
  const MatmulKernelRow& kernel;
  const WeightsView& b;
  const Plan& plan;
  const Activations& a;
  const Epilogue& epilogue;
  PackPanel pack;
};

// Panels side by side, as kernels read them: those of rows [row, row + 16 * count) of b.
struct Panels {
  const uint8_t* data;
  int64_t stride, count;
};

// The panels of `rows` rows of b from `row` on: those in memory, then canonical rows brought into place in
// `packed`. Gives how many of the two kinds there are.
int find_panels(const Call& call, int64_t row, int64_t rows, uint8_t* packed, Panels found[2]) {
  const WeightsView& b = call.b;
  int kinds = 0;
  const int64_t in_memory = std::clamp<int64_t>(b.panels() - row / kPanelRows, 0, rows / kPanelRows);
  if (in_memory > 0) {
    found[kinds++] = {b.panel_of(row), b.panel.panel_bytes, in_memory};
    row += in_memory * kPanelRows;
    rows -= in_memory * kPanelRows;
  }
  if (rows == 0) return kinds;
  found[kinds++] = {packed, call.plan.packed_stride, (rows + kPanelRows - 1) / kPanelRows};
  for (int64_t done = 0; done < rows; done += kPanelRows, packed += call.plan.packed_stride) {
    call.pack(b.panel, b.canonical_row(row + done), b.row_bytes, std::min(rows - done, kPanelRows), packed);
  }
  return kinds;
}

// Products of rows [m, m_end) of a with panels of b, to columns of `values` from the first on.
void multiply(const Call& call, const Panels& panels, int64_t m, int64_t m_end, float* values, int64_t stride,
              uint8_t* scratch) {
  for (int64_t panel = 0; panel < panels.count; panel += call.kernel.panels) {
    const Tile tile{panels.data + panel * panels.stride,
                    panels.stride,
                    std::min<int64_t>(call.kernel.panels, panels.count - panel),
                    m,
                    m_end,
                    values + panel * kPanelRows,
                    stride,
                    false,
                    scratch};
    call.kernel.run(call.b.panel, call.a, tile);
  }
}

// Computes and stores the columns of unit `unit` in the memory of one slot.
void run_unit(const Call& call, int64_t unit, uint8_t* memory) {
  const Plan& plan = call.plan;
  const int64_t batch = unit / plan.batch_units, parts = call.epilogue.parts();
  const int64_t n = unit % plan.batch_units * plan.width();
  const int64_t count = std::min(plan.width(), plan.columns - n);
  float* values = reinterpret_cast<float*>(memory);
  uint8_t* scratch = memory + plan.values_bytes;
  uint8_t* packed = scratch + plan.kernel_bytes;
  Panels panels[2][2];
  int kinds[2] = {};
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t row = (batch * parts + part) * plan.columns + n;
    kinds[part] =
        find_panels(call, row, count, packed + part * plan.unit_panels * plan.packed_stride, panels[part]);
  }
  const int64_t m_last = (batch + 1) * plan.batch_rows;
  for (int64_t m = batch * plan.batch_rows; m < m_last; m += call.kernel.rows) {
    const int64_t m_end = std::min<int64_t>(m + call.kernel.rows, m_last);
    for (int64_t part = 0; part < parts; ++part) {
      float* out = values + part * plan.width();
      for (int kind = 0; kind < kinds[part]; ++kind) {
        multiply(call, panels[part][kind], m, m_end, out, parts * plan.width(), scratch);
        out += panels[part][kind].count * kPanelRows;
      }
    }
    call.epilogue.store({values, parts * plan.width(), plan.width(), m, m_end, batch, n, count,
                         packed + plan.packed_bytes, m == batch * plan.batch_rows});
  }
}

// The objects of a call, made from valid arguments.
struct Prepared {
  WeightsView b;
  Input input;
  const MatmulKernelRow* kernel;
  Additions additions;
  Epilogue epilogue;

  explicit Prepared(const bl_matmul_args& args)
      : b(args.b),
        input(args),
        kernel(choose_matmul(args, b.panel, input.rows())),
        additions(args, input, std::max<int64_t>(args.batch, 1)),
        epilogue(args, additions, std::max<int64_t>(args.batch, 1)) {}
  Plan plan(const bl_matmul_args& args) const { return Plan(args, *kernel, b, input, additions, epilogue); }
};

// Codes of -128 would pass the bounds that kernels rely on.
bl_status check_codes(const Input& input, int64_t bad_row, bl_error* error) {
  if (bad_row < 0) return BL_STATUS_ok;
  int64_t k = 0;
  while (k + 1 < input.columns() && input.code_at(bad_row, k) != -128) ++k;
  return fail(error, BL_STATUS_out_of_range, "matmul: a[%lld][%lld] is -128, expected codes of -127 to 127",
              static_cast<long long>(bad_row), static_cast<long long>(k));
}

}  // namespace

}  // namespace bitloom

extern "C" {

bl_status bl_matmul(const bl_matmul_args* args_in, bl_error* error) {
  using namespace bitloom;
  const bl_matmul_args* args = args_in;
  BL_READ_ARGS(bl_matmul_args, "matmul", call);
  BL_RETURN_IF_ERROR(validate_matmul(call, error));
  Prepared it(call);
  BL_CHECK(it.kernel != nullptr, unsupported,
           "matmul: algorithm is %d, which cannot do compute %d of format %s", call.algorithm, call.compute,
           it.b.info->name);
  if (it.input.rows() == 0 || it.b.rows == 0) return BL_STATUS_ok;
  const Plan plan = it.plan(call);
  const Scratch scratch(call.workspace, call.workspace_bytes, plan.total());
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "matmul: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(plan.total()));
  uint8_t* memory = scratch.data();
  int64_t bad_row = -1;
  const Activations a = pack_activations(*it.kernel, it.b.panel, plan.activations, call.run, it.input,
                                         rounding_of(call), memory, &bad_row);
  BL_RETURN_IF_ERROR(check_codes(it.input, bad_row, error));
  it.additions.prepare(call.run, it.input, memory + plan.activations.total());
  const Call work{*it.kernel, it.b, plan, a, it.epilogue, choose_pack_panel(isa_of(call.run), it.b.panel)};
  bl_run run = call.run;
  if (plan.batch_rows * it.b.rows * std::max<int64_t>(it.b.cols, 1) < kSerialWork) run.threads = 1;
  std::atomic<int64_t> next{0};
  uint8_t* slots = memory + plan.activations.total() + plan.additions_bytes;
  parallel_for(run, plan.slots, [&](int64_t slot) {
    uint8_t* own = slots + static_cast<uint64_t>(slot) * plan.slot_bytes();
    for (int64_t unit = next++; unit < plan.units; unit = next++) run_unit(work, unit, own);
  });
  return BL_STATUS_ok;
}

uint64_t bl_matmul_workspace_bytes(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  if (!read_args(args, &call) || validate_matmul(call, nullptr) != BL_STATUS_ok) return 0;
  const Prepared it(call);
  return it.kernel == nullptr ? 0 : it.plan(call).total() + kScratchAlignment;
}

const char* bl_matmul_kernel(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  if (!read_args(args, &call) || validate_matmul(call, nullptr) != BL_STATUS_ok) return nullptr;
  const MatmulKernelRow* kernel = choose_matmul(call, WeightsView(call.b).panel, Rows(call.a).count);
  return kernel == nullptr ? nullptr : kernel->name;
}

}  // extern "C"
