// moe_forward: sorts the routes by expert; then, in waves of experts, packs their rows of x, multiplies gate
// and up and what stands between, packs that, and adds the products of down into the output.
#include <algorithm>
#include <new>

#include "../../base/backend.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "routes.h"
#include "validate_forward.h"
#include "wave.h"

namespace bitloom {

namespace {

// What stands between the projections of the experts of a wave. Small enough that it stays in a usual L3 and
// that the allocator keeps a call's memory for the next one.
constexpr int64_t kWaveBytes = int64_t{16} << 20;
constexpr int64_t kLeastRows = 64;
constexpr const char* kAlgorithms[] = {"auto", "lut", "dequant", "tile"};
constexpr const char* kComputes[] = {"f32", "i8", "bf16", "i1"};
// Multiply-adds below which waking other threads costs more than it brings.
constexpr int64_t kSerialWork = int64_t{1} << 18;

// Rows of an expert of this width that pass together.
int64_t rows_together(const bl_moe_forward_args& args, int64_t width) {
  if (args.max_rows > 0) return args.max_rows;
  const int64_t fit = kWaveBytes / (static_cast<int64_t>(sizeof(float)) * std::max<int64_t>(width, 1));
  return std::max(fit / kLeastRows * kLeastRows, kLeastRows);
}

// What all products have in common, as matmul chooses kernels by it.
bl_matmul_args common_args(const bl_moe_forward_args& args) {
  bl_matmul_args common{};
  common.size = sizeof(common);
  common.run = args.run;
  common.compute = args.compute;
  common.algorithm = args.algorithm;
  return common;
}

bl_status check_experts(const bl_moe_forward_args& args, const SortedRoutes& routes, bl_error* error) {
  for (int64_t i = 0; i < routes.experts; ++i) {
    const int64_t number = routes.of[i].expert;
    BL_RETURN_IF_ERROR(validate_expert(args.experts[number], number, args.x.shape[1], error));
    BL_RETURN_IF_ERROR(check_expert_apart(args.experts[number], number, args.output, error));
    BL_CHECK(args.activation != BL_MOE_swiglu_oai || args.experts[number].gate.data != nullptr,
             invalid_argument, "moe_forward: experts[%lld].gate is not given, expected one for swiglu_oai",
             static_cast<long long>(number));
  }
  return BL_STATUS_ok;
}

int64_t count_pieces(const bl_moe_forward_args& args, const SortedRoutes& routes) {
  int64_t pieces = 0;
  for (int64_t i = 0; i < routes.experts; ++i) {
    const int64_t rows = rows_together(args, args.experts[routes.of[i].expert].up.rows);
    pieces += (routes.of[i].count + rows - 1) / rows;
  }
  return pieces;
}

// The pieces of all experts, in `memory`.
bl_status make_pieces(const WaveCall& call, const SortedRoutes& routes, int64_t count, uint8_t* memory,
                      bl_error* error) {
  const bl_moe_forward_args& args = call.args;
  Piece* next = reinterpret_cast<Piece*>(memory);
  for (int64_t i = 0; i < routes.experts; ++i) {
    const ExpertRows& of = routes.of[i];
    const bl_moe_expert& expert = args.experts[of.expert];
    const int64_t most = rows_together(args, expert.up.rows);
    for (int64_t done = 0; done < of.count; done += most, ++next) {
      const int64_t at = of.begin + done;
      new (next)
          Piece(call, expert, routes.tokens + at, routes.weights + at, std::min(most, of.count - done));
      const Stage stage = next->plan(call, count);
      BL_CHECK(stage == kStages, unsupported,
               "moe_forward: algorithm is %s, which has no kernel for compute %s of experts[%lld].%s, of "
               "format %s",
               kAlgorithms[args.algorithm], kComputes[args.compute], static_cast<long long>(of.expert),
               next->part(stage), next->products[stage]->weights().info->name);
    }
  }
  return BL_STATUS_ok;
}

// The end of the wave that begins at `begin`.
int64_t wave_end(const Piece* pieces, int64_t begin, int64_t count) {
  int64_t end = begin;
  uint64_t bytes = 0;
  do {
    bytes += pieces[end++].between_bytes();
  } while (end < count && bytes + pieces[end].between_bytes() <= static_cast<uint64_t>(kWaveBytes));
  return end;
}

bl_status run_pieces(const WaveCall& call, Piece* pieces, int64_t count, bl_error* error) {
  uint64_t bytes = 0;
  for (int64_t begin = 0; begin < count;) {
    const int64_t end = wave_end(pieces, begin, count);
    bytes = std::max(bytes, wave_bytes(call, pieces + begin, end - begin));
    begin = end;
  }
  const Scratch scratch(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "moe_forward: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(bytes));
  begin_sums(call);
  for (int64_t begin = 0; begin < count;) {
    const int64_t end = wave_end(pieces, begin, count);
    run_wave(call, pieces + begin, end - begin, scratch.data());
    begin = end;
  }
  end_sums(call);
  return BL_STATUS_ok;
}

bl_status forward(const bl_moe_forward_args& args, bl_error* error) {
  const int64_t tokens = args.x.shape[0], hidden = args.x.shape[1];
  const Scratch sorted(sorted_routes_bytes(args));
  BL_CHECK(sorted.data() != nullptr, out_of_memory, "moe_forward: cannot allocate %llu bytes for routes",
           static_cast<unsigned long long>(sorted_routes_bytes(args)));
  SortedRoutes routes;
  BL_RETURN_IF_ERROR(sort_routes(args, sorted.data(), &routes, error));
  BL_RETURN_IF_ERROR(check_experts(args, routes, error));
  if (tokens == 0 || hidden == 0) return BL_STATUS_ok;
  int64_t work = 0;
  for (int64_t i = 0; i < routes.experts; ++i)
    work += routes.of[i].count * args.experts[routes.of[i].expert].up.rows * hidden;
  bl_matmul_args common = common_args(args);
  if (work < kSerialWork) common.run.threads = 1;
  const bool direct = sums_lie_in_output(args);
  const uint64_t sum_bytes = direct ? 0 : align_up(static_cast<uint64_t>(tokens * hidden) * sizeof(float));
  const int64_t count = count_pieces(args, routes);
  const uint64_t bytes = sum_bytes + static_cast<uint64_t>(count) * sizeof(Piece);
  const Scratch scratch(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "moe_forward: cannot allocate %llu bytes for sums",
           static_cast<unsigned long long>(bytes));
  const ExpertKernels kernels(isa_of(args.run));
  const SumRows sums = direct ? SumRows{static_cast<float*>(args.output.data), args.output.strides[0]}
                              : SumRows{reinterpret_cast<float*>(scratch.data()), hidden};
  const WaveCall call{args, common, kernels, sums, direct};
  uint8_t* memory = scratch.data() + sum_bytes;
  BL_RETURN_IF_ERROR(make_pieces(call, routes, count, memory, error));
  return run_pieces(call, reinterpret_cast<Piece*>(memory), count, error);
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_moe_forward(const bl_moe_forward_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_moe_forward_args, "moe_forward", call);
  BL_RETURN_IF_ERROR(validate_forward(call, error));
  BL_RUN_ON_DEVICE(moe_forward, call);
  return forward(call, error);
}
