#include "pieces.h"

#include <algorithm>
#include <new>

#include "../../isa/isa.h"

namespace bitloom {

namespace {

constexpr int64_t kLeastRows = 64;
constexpr const char* kAlgorithms[] = {"auto", "lut", "dequant", "tile"};
constexpr const char* kComputes[] = {"f32", "i8", "bf16", "i1"};

}  // namespace

int64_t rows_together(const bl_moe_forward_args& args, int64_t width) {
  if (args.max_rows > 0) return args.max_rows;
  const int64_t fit = kWaveBytes / (static_cast<int64_t>(sizeof(float)) * std::max<int64_t>(width, 1));
  return std::max(fit / kLeastRows * kLeastRows, kLeastRows);
}

bl_matmul_args common_args(const bl_moe_forward_args& args) {
  bl_matmul_args common{};
  common.size = sizeof(common);
  common.run = args.run;
  common.compute = args.compute;
  common.algorithm = args.algorithm;
  return common;
}

uint64_t sum_bytes(const bl_moe_forward_args& args) {
  if (sums_lie_in_output(args)) return 0;
  return align_up(static_cast<uint64_t>(args.x.shape[0] * args.x.shape[1]) * sizeof(float));
}

int64_t count_pieces(const bl_moe_forward_args& args, const SortedRoutes& routes) {
  int64_t pieces = 0;
  for (int64_t i = 0; i < routes.experts; ++i) {
    const int64_t rows = rows_together(args, args.experts[routes.of[i].expert].up.rows);
    pieces += (routes.of[i].count + rows - 1) / rows;
  }
  return pieces;
}

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

int64_t wave_end(const Piece* pieces, int64_t begin, int64_t count) {
  int64_t end = begin;
  uint64_t bytes = 0;
  do {
    bytes += pieces[end++].between_bytes();
  } while (end < count && bytes + pieces[end].between_bytes() <= static_cast<uint64_t>(kWaveBytes));
  return end;
}

}  // namespace bitloom
