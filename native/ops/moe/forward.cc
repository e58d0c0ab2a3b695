// moe_forward: sorts the routes by expert; then, in waves of experts, packs their rows of x, multiplies gate
// and up and what stands between, packs that, and adds the products of down into the output.
#include <algorithm>

#include "../../base/backend.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "pieces.h"
#include "validate_forward.h"

namespace bitloom {

namespace {

// Multiply-adds below which waking other threads costs more than it brings.
constexpr int64_t kSerialWork = int64_t{1} << 18;

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

bl_status run_pieces(const WaveCall& call, Piece* pieces, int64_t count, Workspace& workspace,
                     bl_error* error) {
  uint64_t bytes = 0;
  for (int64_t begin = 0; begin < count;) {
    const int64_t end = wave_end(pieces, begin, count);
    bytes = std::max(bytes, wave_bytes(call, pieces + begin, end - begin));
    begin = end;
  }
  const Scratch scratch = workspace.take(bytes);
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
  BL_RETURN_IF_ERROR(check_workspace_apart(args, error));
  Workspace workspace(args.workspace, args.workspace_bytes);
  const Scratch sorted = workspace.take(sorted_routes_bytes(args));
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
  const int64_t count = count_pieces(args, routes);
  const uint64_t bytes = sum_bytes(args) + static_cast<uint64_t>(count) * sizeof(Piece);
  const Scratch scratch = workspace.take(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "moe_forward: cannot allocate %llu bytes for sums",
           static_cast<unsigned long long>(bytes));
  const ExpertKernels kernels(isa_of(args.run));
  const SumRows sums = direct ? SumRows{static_cast<float*>(args.output.data), args.output.strides[0]}
                              : SumRows{reinterpret_cast<float*>(scratch.data()), hidden};
  const WaveCall call{args, common, kernels, sums, direct};
  uint8_t* memory = scratch.data() + sum_bytes(args);
  BL_RETURN_IF_ERROR(make_pieces(call, routes, count, memory, error));
  return run_pieces(call, reinterpret_cast<Piece*>(memory), count, workspace, error);
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
