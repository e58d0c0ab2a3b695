// matmul: validate, choose a kernel, pack the activations, partition N, run, finish (epilogue.h).
#include <algorithm>
#include <new>

#include "../../base/backend.h"
#include "../../base/scratch.h"
#include "../../base/shares.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "../quantize/pack_panel.h"
#include "activations.h"
#include "choose.h"
#include "epilogue.h"
#include "plan.h"
#include "validate.h"

namespace bitloom {

namespace {

// Multiply-adds below which waking other threads costs more than it brings (about 10 microseconds).
constexpr int64_t kSerialWork = int64_t{1} << 18;

struct Call {
  const bl_matmul_args& args;
  const WeightsView& b;
  const Input& input;
  const Plan& plan;
  const Epilogue& epilogue;
  PackPanel pack;
};

// Rows of a that one kernel computes: packed rows [i * m, (i + 1) * m) belong to batch first_batch + i.
struct Pass {
  const MatmulKernelRow& kernel;
  Activations a;
  int64_t m, first_batch, batches;
  const int64_t* rows;  // of a and c, for each packed row; null: the same
};

// Panels side by side, as kernels read them.
struct Panels {
  const uint8_t* data;
  int64_t stride, count;
};

// The panels with `rows` rows of b.
struct Part {
  Panels panels[2];  // those in memory, then canonical rows brought into place
  int kinds = 0;     // how many of the two there are
  int64_t before;    // rows of the first panel that stand before the first of them
};

// Those from `row` on; canonical rows are brought into place in `packed`.
Part find_panels(const Call& call, int64_t row, int64_t rows, uint8_t* packed) {
  const WeightsView& b = call.b;
  Part part;
  part.before = b.in_panel(row) ? row % kPanelRows : 0;
  row -= part.before;
  rows += part.before;
  const int64_t wanted = (rows + kPanelRows - 1) / kPanelRows;
  const int64_t in_memory = std::clamp<int64_t>(b.panels() - row / kPanelRows, 0, wanted);
  if (in_memory > 0) {
    part.panels[part.kinds++] = {b.panel_of(row), b.panel.panel_bytes, in_memory};
    row += in_memory * kPanelRows;
    rows -= in_memory * kPanelRows;
  }
  if (rows <= 0) return part;
  part.panels[part.kinds++] = {packed, call.plan.packed_stride, (rows + kPanelRows - 1) / kPanelRows};
  for (int64_t done = 0; done < rows; done += kPanelRows, packed += call.plan.packed_stride) {
    call.pack(b.panel, b.canonical_row(row + done), b.row_bytes, std::min(rows - done, kPanelRows), packed);
  }
  return part;
}

// Products of packed rows [m, m_end) with panels of b, to columns of `values` from the first on.
void multiply(const Call& call, const Pass& pass, const Panels& panels, int64_t m, int64_t m_end,
              float* values, int64_t stride, uint8_t* scratch) {
  for (int64_t panel = 0; panel < panels.count; panel += pass.kernel.panels) {
    const Tile tile{panels.data + panel * panels.stride,
                    panels.stride,
                    std::min<int64_t>(pass.kernel.panels, panels.count - panel),
                    m,
                    m_end,
                    values + panel * kPanelRows,
                    stride,
                    false,
                    scratch};
    pass.kernel.run(call.b.panel, pass.a, tile);
  }
}

// Computes and stores packed rows [m_begin, m_end) and the columns of units [unit, unit + units), in the
// memory of one slot.
void run_units(const Call& call, const Pass& pass, int64_t batch, int64_t m_begin, int64_t m_end,
               int64_t unit, int64_t units, uint8_t* memory) {
  const Plan& plan = call.plan;
  const int64_t parts = call.epilogue.parts();
  const int64_t n = unit * plan.unit_panels * kPanelRows;
  const int64_t count = std::min(units * plan.unit_panels * kPanelRows, plan.columns - n);
  float* values = reinterpret_cast<float*>(memory);
  uint8_t* scratch = memory + plan.values_bytes;
  uint8_t* packed = scratch + plan.kernel_bytes;
  Part found[2];
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t row = (batch * parts + part) * plan.columns + n;
    found[part] = find_panels(call, row, count, packed + part * plan.packed_panels * plan.packed_stride);
  }
  const int64_t stride = parts * plan.part_width();
  for (int64_t m = m_begin; m < m_end; m += pass.kernel.rows) {
    const int64_t last = std::min<int64_t>(m + pass.kernel.rows, m_end);
    for (int64_t part = 0; part < parts; ++part) {
      float* out = values + part * plan.part_width() + plan.margin - found[part].before;
      for (int kind = 0; kind < found[part].kinds; ++kind) {
        multiply(call, pass, found[part].panels[kind], m, last, out, stride, scratch);
        out += found[part].panels[kind].count * kPanelRows;
      }
    }
    call.epilogue.store({values + plan.margin,
                         stride,
                         plan.part_width(),
                         {m, last, pass.rows},
                         batch,
                         n,
                         count,
                         packed + plan.packed_bytes,
                         m == m_begin});
  }
}

void run_pass(const Call& call, const Pass& pass, uint8_t* slots) {
  if (pass.m == 0) return;
  const Plan& plan = call.plan;
  bl_run run = call.args.run;
  if (pass.m * call.b.rows * std::max<int64_t>(call.b.cols, 1) < kSerialWork) run.threads = 1;
  const int64_t rows = plan.block_rows(pass.kernel);
  const int64_t batch_tasks = plan.units * plan.blocks(pass.m, pass.kernel);
  const int64_t tasks = pass.batches * batch_tasks;
  const auto run_tasks = [&](int64_t begin, int64_t end, uint8_t* memory) {
    while (begin < end) {
      const int64_t batch = begin / batch_tasks, block = begin % batch_tasks / plan.units;
      const int64_t unit = begin % plan.units, units = std::min(end - begin, plan.units - unit);
      const int64_t m = batch * pass.m + block * rows;
      run_units(call, pass, pass.first_batch + batch, m, std::min(m + rows, (batch + 1) * pass.m), unit,
                units, memory);
      begin += units;
    }
  };
  // Neighbouring units for each slot: kernels fetch the units after their own ahead, which one counter for
  // all slots would hand to other threads.
  const int64_t parts = std::min(plan.slots, tasks);
  Share* shares = reinterpret_cast<Share*>(slots + static_cast<uint64_t>(plan.slots) * plan.slot_bytes());
  for (int64_t part = 0; part < parts; ++part) new (shares + part) Share;
  cut_shares(shares, parts, tasks);
  parallel_for(run, parts, [&](int64_t slot) {
    uint8_t* memory = slots + static_cast<uint64_t>(slot) * plan.slot_bytes();
    run_shares(shares, parts, slot, plan.most_units,
               [&](int64_t begin, int64_t end) { run_tasks(begin, end, memory); });
  });
}

// Algorithm tile, one matrix of b after the other: int8 for the rows that it suits, bf16 for the others.
void run_tile(const Call& call, int64_t batch, uint8_t* memory, uint8_t* slots) {
  const Plan& plan = call.plan;
  const bl_run& run = call.args.run;
  const int64_t m = plan.batch_rows;
  int64_t* rows = reinterpret_cast<int64_t*>(memory);
  for (int64_t i = 0; i < m; ++i) rows[i] = batch * m + i;
  uint8_t* packed = memory + plan.rows_bytes;
  const Rounding rounding = rounding_of(call.args);
  const TileActivations most = pack_tile_activations(plan.kernel, call.b.panel, plan.activations, run,
                                                     call.input, rounding, rows, m, packed);
  run_pass(call, {plan.kernel, most.a, most.count, batch, 1, rows}, slots);
  if (most.count == m) return;
  int64_t* others = rows + most.count;
  const TileActivations rest =
      pack_tile_activations(*plan.spare, call.b.panel, plan.spare_activations, run, call.input, rounding,
                            others, m - most.count, packed + plan.activations.total());
  run_pass(call, {*plan.spare, rest.a, rest.count, batch, 1, others}, slots);
}

void run_matmul(const Call& call, uint8_t* memory, uint8_t* slots) {
  const Plan& plan = call.plan;
  if (plan.tile()) {
    for (int64_t batch = 0; batch < plan.batches; ++batch) run_tile(call, batch, memory, slots);
    return;
  }
  const Activations a = pack_activations(plan.kernel, call.b.panel, plan.activations, call.args.run,
                                         call.input, rounding_of(call.args), memory);
  run_pass(call, {plan.kernel, a, plan.batch_rows, 0, plan.batches, nullptr}, slots);
}

// The objects of a call, made from valid arguments.
struct Operands {
  WeightsView b;
  Input input;
  const MatmulKernelRow* kernel;
  Additions additions;
  Epilogue epilogue;

  Operands(const bl_matmul_args& args, const PreparedHeader& header)
      : b(args.b),
        input(args, header),
        kernel(choose_matmul(args, b.panel, matrix_rows(args), header.tables)),
        additions(args, input, std::max<int64_t>(args.batch, 1)),
        epilogue(args, additions, std::max<int64_t>(args.batch, 1)) {}
  // Rows of a that meet one matrix.
  int64_t matrix_rows(const bl_matmul_args& args) const {
    return input.rows() / std::max<int64_t>(args.batch, 1);
  }
  Plan plan(const bl_matmul_args& args) const { return Plan(args, *kernel, b, input, additions, epilogue); }
};

// Codes of -128 would pass the bounds that kernels rely on.
bl_status check_codes(const Input& input, bl_error* error) {
  const int64_t m = input.is_codes() ? input.find_bad_row() : -1;
  if (m < 0) return BL_STATUS_ok;
  int64_t k = 0;
  while (k + 1 < input.columns() && input.code_at(m, k) != -128) ++k;
  return fail(error, BL_STATUS_out_of_range, "matmul: a[%lld][%lld] is -128, expected codes of -127 to 127",
              static_cast<long long>(m), static_cast<long long>(k));
}

}  // namespace

}  // namespace bitloom

extern "C" {

bl_status bl_matmul(const bl_matmul_args* args_in, bl_error* error) {
  using namespace bitloom;
  const bl_matmul_args* args = args_in;
  BL_READ_ARGS(bl_matmul_args, "matmul", call);
  PreparedHeader header;
  BL_RETURN_IF_ERROR(validate_matmul(&call, &header, error));
  BL_RUN_ON_DEVICE(matmul, call);
  BL_CHECK(call.b.layout != BL_LAYOUT_fragments, invalid_layout,
           "matmul: b.layout is fragments, which CUDA devices read, expected canonical or lanes16");
  Operands it(call, header);
  if (it.kernel == nullptr) {
    return fail_without_kernel(call, it.b.panel, it.matrix_rows(call), header.tables, error);
  }
  BL_RETURN_IF_ERROR(check_codes(it.input, error));
  if (it.input.rows() == 0 || it.b.rows == 0) return BL_STATUS_ok;
  const Plan plan = it.plan(call);
  BL_CHECK(plan.tasks() <= kMaxShareTasks, unsupported, "matmul: b.rows is %lld, too many for one call",
           static_cast<long long>(call.b.rows));
  const Scratch scratch(call.workspace, call.workspace_bytes, plan.total());
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "matmul: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(plan.total()));
  uint8_t* memory = scratch.data();
  it.additions.prepare(call.run, it.input, memory);
  const Call work{call, it.b, it.input, plan, it.epilogue, choose_pack_panel(isa_of(call.run), it.b.panel)};
  run_matmul(work, memory + plan.additions_bytes, memory + plan.shared_bytes());
  return BL_STATUS_ok;
}

uint64_t bl_matmul_workspace_bytes(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  PreparedHeader header;
  if (!read_args(args, &call) || validate_matmul(&call, &header, nullptr) != BL_STATUS_ok) return 0;
  const Operands it(call, header);
  return it.kernel == nullptr ? 0 : it.plan(call).total() + kScratchAlignment;
}

const char* bl_matmul_kernel(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  PreparedHeader header;
  if (!read_args(args, &call) || validate_matmul(&call, &header, nullptr) != BL_STATUS_ok) return nullptr;
  const int64_t m = Rows(call.a).count / std::max<int64_t>(call.batch, 1);
  const MatmulKernelRow* kernel = choose_matmul(call, WeightsView(call.b).panel, m, header.tables);
  return kernel == nullptr ? nullptr : kernel->name;
}

int32_t bl_matmul_tables(const bl_weights* b, int64_t m, int32_t algorithm, int32_t tables,
                         const bl_run* run) {
  using namespace bitloom;
  if (b == nullptr || run == nullptr || m < 0 || algorithm < BL_ALGORITHM_auto ||
      algorithm > BL_ALGORITHM_tile || tables < BL_TABLES_lossless || tables > BL_TABLES_fast ||
      check_weights({"matmul", "b"}, *b, nullptr) != BL_STATUS_ok ||
      check_run("matmul", *run, nullptr) != BL_STATUS_ok) {
    return 0;
  }
  bl_matmul_args call{};
  call.run = *run;
  call.compute = BL_COMPUTE_i8;
  call.algorithm = algorithm;
  call.tables = tables;
  const PanelFormat f = WeightsView(*b).panel;
  const MatmulKernelRow* kernel = choose_matmul(call, f, m, kAllTables);
  return kernel == nullptr ? 0 : table_kinds_of(f, kernel->algorithm);
}

}  // extern "C"
