// matmul: validate, choose a kernel, pack the activations, partition N, run, finish (epilogue.h).
#include <algorithm>
#include <new>

#include "../../base/backend.h"
#include "../../base/scratch.h"
#include "../../base/shares.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "activations.h"
#include "choose.h"
#include "epilogue.h"
#include "plan.h"
#include "units.h"
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

// Computes and stores packed rows [m_begin, m_end) and the columns of units [unit, unit + units), in the
// memory of one slot.
void run_units(const Call& call, const Pass& pass, int64_t batch, int64_t m_begin, int64_t m_end,
               int64_t unit, int64_t units, uint8_t* memory) {
  const Plan& plan = call.plan;
  const int64_t parts = call.epilogue.parts();
  const int64_t n = unit * plan.unit_panels * kPanelRows;
  const int64_t count = std::min(units * plan.unit_panels * kPanelRows, plan.columns - n);
  const int64_t first = batch * parts * plan.columns;
  run_columns({plan,
               call.epilogue,
               call.pack,
               {{&call.b, first}, {&call.b, first + plan.columns}},
               batch,
               m_begin,
               m_end,
               n,
               count},
              pass, memory);
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
  Plan plan(const bl_matmul_args& args) const {
    const int64_t batches = std::max<int64_t>(args.batch, 1);
    const MatmulKernelRow* spare = choose_spare(args, *kernel, b.panel);
    const int64_t columns = b.rows / batches / epilogue.parts();
    return Plan(args.run, {kernel, spare}, b, input, epilogue, columns, batches, additions.shared_bytes());
  }
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
  if (call.run.device != 0) return 0;
  const Operands it(call, header);
  return it.kernel == nullptr ? 0 : it.plan(call).total() + kScratchAlignment;
}

const char* bl_matmul_kernel(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  PreparedHeader header;
  if (!read_args(args, &call) || validate_matmul(&call, &header, nullptr) != BL_STATUS_ok) return nullptr;
  if (call.run.device != 0) return nullptr;
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
