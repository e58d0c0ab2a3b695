// How much memory moe_forward needs at most, whatever the routes.
#include <algorithm>
#include <vector>

#include "../../isa/isa.h"
#include "pieces.h"
#include "validate_forward.h"

namespace bitloom {

namespace {

// Up to here every number of rows is tried, as kernels change there; beyond, an eighth more at a time.
constexpr int64_t kEachRows = 64;

bool same_form(const bl_weights& a, const bl_weights& b) {
  return (a.data == nullptr) == (b.data == nullptr) && a.format == b.format && a.layout == b.layout &&
         a.rows == b.rows && a.cols == b.cols && a.codebook == b.codebook;
}

bool same_form(const bl_moe_expert& a, const bl_moe_expert& b) {
  return same_form(a.gate, b.gate) && same_form(a.up, b.up) && same_form(a.down, b.down) &&
         same_form(a.reduce, b.reduce) && same_form(a.expand, b.expand);
}

// A piece of at least so many rows, up to those of the next sample, has so many bytes at most.
struct Sample {
  int64_t rows;
  double bytes;
};

// What experts need at most.
struct Need {
  std::vector<Sample> samples;
  uint64_t slot_bytes = 0;
  int64_t least_width = INT64_MAX;
  int64_t least_rows = INT64_MAX, most_rows = 0;  // that pass together

  void include(const Need& other) {
    for (const Sample& it : other.samples) samples.push_back(it);  // copies of vectors need a newer libstdc++
    slot_bytes = std::max(slot_bytes, other.slot_bytes);
    least_width = std::min(least_width, other.least_width);
    least_rows = std::min(least_rows, other.least_rows);
    most_rows = std::max(most_rows, other.most_rows);
  }

  // Of `pieces` with `rows` together. For any price of a row, each piece has at most what a piece has above
  // its rows' price, and those: the price that makes it least is looked for among some.
  double bytes(int64_t pieces, int64_t rows) const {
    double least = 0, most = 0, result = 0;  // of the prices
    for (const Sample& it : samples) {
      const double price = it.bytes / static_cast<double>(it.rows);
      most = std::max(most, price);
      least = least == 0 ? price : std::min(least, price);
    }
    for (double price = most; price > least / 8; price *= 0.8) {
      double above = 0;
      for (const Sample& it : samples)
        above = std::max(above, it.bytes - price * static_cast<double>(it.rows));
      const double sum = above * static_cast<double>(pieces) + price * static_cast<double>(rows);
      result = result == 0 ? sum : std::min(result, sum);
    }
    return result;
  }
};

// Of one expert, which up to `rows` rows go to. More products beside each other have larger slots.
Need need_of(const WaveCall& call, const bl_moe_expert& expert, int64_t rows, int64_t sharing) {
  const int32_t nowhere = 0;  // rows are gathered, from where does not matter
  const float weight = 0;
  Need need;
  need.least_width = std::max<int64_t>(expert.up.rows, 1);
  need.least_rows = need.most_rows = rows_together(call.args, expert.up.rows);
  rows = std::min(rows, need.most_rows);
  for (int64_t before = 0; before < rows;) {
    const int64_t next = std::min(rows, before < kEachRows ? before + 1 : before + before / 8);
    Piece piece(call, expert, &nowhere, &weight, next);
    if (piece.plan(call, sharing) != kStages) return Need();  // it can not run
    // Fewer rows than `next` need no more than these.
    need.samples.push_back({before + 1, static_cast<double>(piece.bytes())});
    for (const std::optional<Product>& product : piece.products) {
      if (product) need.slot_bytes = std::max(need.slot_bytes, product->plan().slot_bytes());
    }
    before = next;
  }
  return need;
}

// Of experts [begin, end): neighbours of one form are looked at once.
Need need_of_all(const WaveCall& call, int64_t begin, int64_t end, int64_t rows, int64_t sharing) {
  Need need;
  const bl_moe_expert* last = nullptr;
  for (int64_t i = begin; i < end && rows > 0; ++i) {
    const bl_moe_expert& expert = call.args.experts[i];
    if (last != nullptr && same_form(*last, expert)) continue;
    last = &expert;
    if (validate_expert(expert, i, call.args.x.shape[1], nullptr) != BL_STATUS_ok) continue;
    need.include(need_of(call, expert, rows, sharing));
  }
  return need;
}

uint64_t workspace_bytes(const bl_moe_forward_args& args) {
  const int64_t tokens = args.x.shape[0];
  uint64_t bytes = kScratchAlignment + align_up(sorted_routes_bytes(args));
  if (tokens == 0 || args.x.shape[1] == 0) return bytes;
  const bl_matmul_args common = common_args(args);
  const ExpertKernels kernels(isa_of(args.run));
  const WaveCall call{args, common, kernels, SumRows{}, sums_lie_in_output(args)};

  // A token may go to one expert several times.
  const int64_t routed = args.num_experts == 0 ? 0 : tokens * args.indices.shape[1];
  const int64_t routes = routed + tokens * args.num_shared;
  const Need own = need_of_all(call, 0, args.num_experts, routed, routes);
  const Need shared = need_of_all(call, args.num_experts, args.num_experts + args.num_shared, tokens, routes);
  Need need;
  need.include(own);
  need.include(shared);
  // Every expert may have a piece that is not full.
  const int64_t full = need.most_rows == 0 ? 0 : routes / need.least_rows;
  const int64_t pieces = std::min(routes, std::min(routed, args.num_experts) + args.num_shared + full);
  bytes += align_up(sum_bytes(args) + static_cast<uint64_t>(pieces) * sizeof(Piece));

  // A wave is all of them, or what fits, or one piece.
  const int64_t fit =
      kWaveBytes / static_cast<int64_t>(sizeof(float)) / need.least_width;  // which may be that of none
  const int64_t rows = std::min(routes, std::max(fit, need.most_rows));
  const int64_t shared_rows = tokens * args.num_shared;
  const int64_t shared_pieces = args.num_shared + shared_rows / std::max<int64_t>(need.least_rows, 1);
  const double all = own.bytes(std::min(pieces, routed), routed) +
                     shared.bytes(std::min(shared_pieces, shared_rows), shared_rows);
  bytes += align_up(static_cast<uint64_t>(std::min(all, need.bytes(std::min(pieces, rows), rows))) + 1);
  return bytes + wave_overhead_bytes(call, need.slot_bytes, pieces);
}

}  // namespace

}  // namespace bitloom

extern "C" uint64_t bl_moe_forward_workspace_bytes(const bl_moe_forward_args* args) {
  using namespace bitloom;
  bl_moe_forward_args call;
  if (!read_args(args, &call) || validate_forward(call, nullptr) != BL_STATUS_ok) return 0;
  return workspace_bytes(call);
}
