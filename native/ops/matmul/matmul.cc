// matmul: validate, choose a kernel, pack the activations, partition N, run.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "kernel.h"

namespace bitloom {

namespace {

const MatmulKernelRow kKernels[] = {
#define BL_MATMUL_KERNEL(isa, compute, formats, lanes16, mr, nr) \
  {"matmul_" #compute "_" #isa,                                  \
   BL_ISA_##isa,                                                 \
   BL_COMPUTE_##compute,                                         \
   formats,                                                      \
   lanes16,                                                      \
   mr,                                                           \
   nr,                                                           \
   isa::matmul_##compute,                                        \
   isa::pack_activations_i8},
#include "kernels.inc"
#undef BL_MATMUL_KERNEL
};

// Rows of b per task. A multiple of every nr and of the panel height; 32 rows of K = 4096 at 4 bits are
// 72 KB, some 5 microseconds of reading: long against the cost of a task, short against a thread's share.
constexpr int64_t kTaskN = 32;
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
  BL_CHECK(args.compute == BL_COMPUTE_f32 || args.compute == BL_COMPUTE_i8, invalid_argument,
           "matmul: compute is %d, expected 0 (f32) or 1 (i8)", args.compute);
  BL_RETURN_IF_ERROR(check_apart({"matmul", "c"}, args.c, "a", args.a.data, args.a.bytes, error));
  BL_RETURN_IF_ERROR(check_apart({"matmul", "c"}, args.c, "b", args.b.data,
                                 bl_weights_bytes(args.b.format, args.b.rows, args.b.cols), error));
  return check_apart({"matmul", "c"}, args.c, "bias", args.bias.data,
                     args.bias.data == nullptr ? 0 : args.bias.bytes, error);
}

const MatmulKernelRow& choose(const bl_matmul_args& args) {
  const bl_format_info& info = *bl_get_format_info(args.b.format);
  const int32_t isa = isa_of(args.run);
  // i8 is a permission: formats without integer codes are computed in f32.
  const int32_t compute =
      args.compute == BL_COMPUTE_i8 && has_integer_codes(info) ? BL_COMPUTE_i8 : BL_COMPUTE_f32;
  const MatmulKernelRow* chosen = nullptr;
  for (const MatmulKernelRow& row : kKernels) {
    const char* reason = row.isa > isa                                        ? "ISA level"
                         : row.compute != compute                             ? "compute mode"
                         : !row.takes(info)                                   ? "format"
                         : args.b.layout == BL_LAYOUT_lanes16 && !row.lanes16 ? "layout"
                                                                              : nullptr;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: matmul %s %lldx%lld: %s: %s\n", info.name,
                   static_cast<long long>(args.b.rows), static_cast<long long>(args.b.cols), row.name,
                   reason == nullptr ? "taken" : reason);
    }
    if (reason == nullptr) {
      chosen = &row;
      break;
    }
  }
  return *chosen;  // the scalar rows take everything
}

// Sizes of the packed activations in the workspace.
struct Plan {
  int64_t m, k_padded;
  uint64_t codes_bytes, scales_bytes, starts_bytes, values_bytes, row_bytes;

  Plan(const bl_matmul_args& args, const MatmulKernelRow& kernel) {
    m = Rows(args.a).count;
    k_padded = padded_k(args.b.cols);
    const bool i8 = kernel.compute == BL_COMPUTE_i8;
    codes_bytes = i8 ? align_up(static_cast<uint64_t>(m * k_padded)) : 0;
    scales_bytes = i8 ? align_up(static_cast<uint64_t>(m * k_padded / kGroup) * 4) : 0;
    const bool starts = i8 && (args.b.format == BL_FORMAT_q4_0 || args.b.format == BL_FORMAT_q8_0);
    starts_bytes = starts ? align_up(static_cast<uint64_t>(m * k_padded / kGroup) * 8 * sizeof(int32_t)) : 0;
    values_bytes = i8 ? 0 : align_up(static_cast<uint64_t>(m * k_padded) * 4);
    row_bytes = i8 ? align_up(static_cast<uint64_t>(k_padded) * 4) : 0;
  }
  // One f32 row per task of the packing: rows are packed 8 at a time, see pack().
  uint64_t total() const {
    return codes_bytes + scales_bytes + starts_bytes + values_bytes + pack_tasks() * row_bytes;
  }
  uint64_t pack_tasks() const { return static_cast<uint64_t>(std::min<int64_t>(m, 16)); }
};

void set_starts(const int8_t* codes, int64_t k_padded, int32_t zero, int32_t* starts) {
  for (int64_t group = 0; group < k_padded; group += kGroup, codes += kGroup, starts += 8) {
    int32_t total = 0;
    for (int i = 0; i < 4; ++i) {
      int32_t sum = 0;
      for (int j = 4 * i; j < 4 * i + 4; ++j) sum += codes[j] + codes[j + 16];
      starts[i] = -zero * sum;
      total += starts[i];
    }
    for (int i = 4; i < 8; ++i) starts[i] = total;
  }
}

Activations pack(const bl_matmul_args& args, const MatmulKernelRow& kernel, const Plan& plan,
                 uint8_t* memory) {
  int8_t* codes = reinterpret_cast<int8_t*>(memory);
  float* scales = reinterpret_cast<float*>(memory + plan.codes_bytes);
  memory += plan.codes_bytes + plan.scales_bytes;
  int32_t* starts = plan.starts_bytes == 0 ? nullptr : reinterpret_cast<int32_t*>(memory);
  memory += plan.starts_bytes;
  float* values = reinterpret_cast<float*>(memory);
  uint8_t* rows_memory = memory + plan.values_bytes;
  const Rows a(args.a);
  const int64_t k = args.b.cols;
  const int64_t tasks = static_cast<int64_t>(plan.pack_tasks());
  bl_run run = args.run;
  if (plan.m * k < kSerialWork / 16) run.threads = 1;
  parallel_for(run, tasks, [&](int64_t task) {
    for (int64_t m = plan.m * task / tasks; m < plan.m * (task + 1) / tasks; ++m) {
      if (kernel.compute == BL_COMPUTE_i8) {
        float* row = a.direct(m);
        if (row == nullptr) {
          row = reinterpret_cast<float*>(rows_memory + static_cast<uint64_t>(task) * plan.row_bytes);
          a.load(m, row);
        }
        const int64_t group = m * plan.k_padded / kGroup;
        kernel.pack(row, k, codes + m * plan.k_padded, scales + group);
        if (starts != nullptr) {
          set_starts(codes + m * plan.k_padded, plan.k_padded, args.b.format == BL_FORMAT_q4_0 ? 8 : 128,
                     starts + 8 * group);
        }
      } else {
        float* row = values + m * plan.k_padded;
        a.load(m, row);
        std::memset(row + k, 0, static_cast<size_t>(plan.k_padded - k) * sizeof(float));
      }
    }
  });
  return {plan.k_padded, values, codes, scales, starts};
}

// c's part of a finished tile: bias added, converted.
void store(const Tile& tile, const float* bias, const Rows& c) {
  const int64_t count = tile.n_end - tile.n_begin;
  const int64_t step = c.stride * dtype_bytes(c.tensor.dtype);
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    float* row = tile.values + (m - tile.m_begin) * tile.stride;
    if (bias != nullptr) {
      for (int64_t n = 0; n < count; ++n) row[n] += load_as<float>(bias + tile.n_begin + n);
    }
    store_values(c.tensor.dtype, c.at(m) + tile.n_begin * step, c.stride, count, row);
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
  const MatmulKernelRow& kernel = choose(call);
  const Plan plan(call, kernel);
  const WeightsView b(call.b);
  if (plan.m == 0 || b.rows == 0) return BL_STATUS_ok;
  const Scratch scratch(call.workspace, call.workspace_bytes, plan.total());
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "matmul: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(plan.total()));
  const Activations a = pack(call, kernel, plan, scratch.data());
  const Rows c(call.c);
  bl_run run = call.run;
  if (plan.m * b.rows * std::max<int64_t>(b.cols, 1) < kSerialWork) run.threads = 1;
  parallel_for(run, (b.rows + kTaskN - 1) / kTaskN, [&](int64_t task) {
    alignas(kScratchAlignment) float values[kMaxTileM * kTaskN];
    const int64_t n = task * kTaskN;
    for (int64_t m = 0; m < plan.m; m += kMaxTileM) {
      const Tile tile{m, std::min(m + kMaxTileM, plan.m), n, std::min(n + kTaskN, b.rows), values, kTaskN};
      kernel.run(a, b, tile);
      store(tile, static_cast<const float*>(call.bias.data), c);
    }
  });
  return BL_STATUS_ok;
}

uint64_t bl_matmul_workspace_bytes(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  if (!read_args(args, &call) || validate(call, nullptr) != BL_STATUS_ok) return 0;
  return Plan(call, choose(call)).total() + kScratchAlignment;
}

const char* bl_matmul_kernel(const bl_matmul_args* args) {
  using namespace bitloom;
  bl_matmul_args call;
  if (!read_args(args, &call) || validate(call, nullptr) != BL_STATUS_ok) return nullptr;
  return choose(call).name;
}

}  // extern "C"
