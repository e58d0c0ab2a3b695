// moe_route: which experts each token goes to, and with what weight. In double, and the same bits at every
// level: it reads each logit once.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <type_traits>

#include "../../base/backend.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../include/bitloom_moe.h"
#include "../choose.h"
#include "route_kernel.h"
#include "validate_route.h"

namespace bitloom {

namespace {

const KernelRow<RouteScore, RouteKernel> kKernels[] = {
#define BL_ROUTE_KERNEL(op, isa) {RouteScore::op, "route_" #op "_f64_" #isa, BL_ISA_##isa, isa::op##_f64},
#include "route_kernels.inc"
#undef BL_ROUTE_KERNEL
};

constexpr int64_t kTokensPerTask = 16;
// Experts of a token up to which each is inserted where it belongs; more of them are sorted by a heap, whose
// work does not grow with the square of their number.
constexpr int64_t kInserted = 32;
constexpr double kBehindAll = -std::numeric_limits<double>::infinity();

// Whether a row has an order: no NaN, no +infinity, and a number besides -infinity. Its largest to *largest.
bool has_order(const float* row, int64_t count, float* largest) {
  // In lanes, which become a vector: one after the other each comparison waits for the last.
  constexpr int kLanes = 8;
  float lanes[kLanes];
  int odd[kLanes] = {};
  std::fill(lanes, lanes + kLanes, -std::numeric_limits<float>::infinity());
  const auto take = [&](float z, int lane) {
    odd[lane] |= !(z <= std::numeric_limits<float>::max());
    lanes[lane] = z > lanes[lane] ? z : lanes[lane];
  };
  int64_t e = 0;
  for (; e + kLanes <= count; e += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) take(row[e + lane], lane);
  }
  for (; e < count; ++e) take(row[e], 0);
  const float most = *std::max_element(lanes, lanes + kLanes);
  *largest = most;
  return std::count(odd, odd + kLanes, 0) == kLanes && most > -std::numeric_limits<float>::infinity();
}

// The first token without an order, or -1; *expert: its logit that is none, or -1 if all are -infinity.
int64_t first_odd(const bl_moe_route_args& args, int64_t* expert, float* memory) {
  const Rows logits(args.logits);
  float largest = 0;
  for (int64_t t = 0; t < logits.count; ++t) {
    const float* row = logits.direct(t);
    if (row == nullptr) {
      logits.load(t, memory);
      row = memory;
    }
    if (has_order(row, logits.length, &largest)) continue;
    const float* end = row + logits.length;
    const float* odd =
        std::find_if(row, end, [](float z) { return !(z <= std::numeric_limits<float>::max()); });
    *expert = odd == end ? -1 : odd - row;
    return t;
  }
  return -1;
}

bl_status validate_values(const bl_moe_route_args& args, float* row, bl_error* error) {
  int64_t expert = 0;
  const int64_t token = first_odd(args, &expert, row);
  BL_CHECK(token < 0 || expert < 0, non_finite,
           "moe_route: logits[%lld, %lld] is NaN or infinity, expected a number",
           static_cast<long long>(token), static_cast<long long>(expert));
  BL_CHECK(token < 0, non_finite, "moe_route: logits[%lld] are all -infinity, expected a number among them",
           static_cast<long long>(token));
  for (int64_t e = 0; args.bias.data != nullptr && e < args.logits.shape[1]; ++e) {
    const float bias = static_cast<const float*>(args.bias.data)[e];
    BL_CHECK(std::isfinite(bias), non_finite, "moe_route: bias[%lld] is %g, expected a finite number",
             static_cast<long long>(e), static_cast<double>(bias));
  }
  return BL_STATUS_ok;
}

// A thread's memory for one token.
struct Work {
  int64_t experts, padded, groups;
  double* score;         // [padded] s
  double* choice;        // [experts] c, or what has its order
  double* worth;         // [groups]
  double* best;          // [kInserted] c of order
  float* logits;         // [padded]
  int32_t* order;        // [experts], the first top_k best first
  int32_t* group_order;  // [groups]
  uint64_t bytes;

  Work(const bl_moe_route_args& args, uint8_t* memory)
      : experts(args.logits.shape[1]),
        padded((experts + kRouteLanes - 1) / kRouteLanes * kRouteLanes),
        groups(std::max(args.num_groups, 1)) {
    uint8_t* next = memory;
    const auto take = [&](auto** pointer, int64_t count) {
      *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(next);
      next += align_up(static_cast<uint64_t>(count) * sizeof(**pointer));
    };
    take(&score, padded);
    take(&choice, experts);
    take(&worth, groups);
    take(&best, kInserted);
    take(&logits, padded);
    take(&order, experts);
    take(&group_order, groups);
    bytes = static_cast<uint64_t>(next - memory);
  }
};

// s[e] of all experts; of softmax_chosen not divided yet.
void score_experts(int32_t scoring, RouteKernel kernel, Work& work) {
  std::fill(work.logits + work.experts, work.logits + work.padded, -std::numeric_limits<float>::infinity());
  float largest = 0;
  has_order(work.logits, work.experts, &largest);
  const double sum = kernel(work.logits, work.padded, largest, work.score);
  if (scoring != BL_MOE_softmax) return;
  for (int64_t e = 0; e < work.experts; ++e) work.score[e] /= sum;
}

// Orders experts by falling value, of equals the lower number first.
struct BestFirst {
  const double* values;
  bool operator()(int32_t a, int32_t b) const {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  }
};

// Takes experts [begin, end), after all lower numbers, into the `most` best so far, of which there are
// `count`; returns how many there are then. Few experts get past the first comparison.
int64_t insert_best(int64_t begin, int64_t end, int64_t most, int64_t count, Work& work) {
  for (int64_t e = begin; e < end; ++e) {
    const double value = work.choice[e];
    if (count == most && !(value > work.best[most - 1])) continue;
    int64_t at = count < most ? count++ : most - 1;
    for (; at > 0 && value > work.best[at - 1]; --at) {
      work.best[at] = work.best[at - 1];
      work.order[at] = work.order[at - 1];
    }
    work.best[at] = value;
    work.order[at] = static_cast<int32_t>(e);
  }
  return count;
}

// The groups that count, by their numbers, to the first of work.group_order.
void keep_groups(const bl_moe_route_args& args, Work& work) {
  const int64_t size = work.experts / work.groups;
  const bool sum = args.group_score == BL_MOE_top2 && size > 1;
  const float* bias = static_cast<const float*>(args.bias.data);
  for (int64_t g = 0; g < work.groups; ++g) {
    double first = kBehindAll, second = kBehindAll;
    for (int64_t e = g * size; e < (g + 1) * size; ++e) {
      // Scores that underflow are equal where logits are not.
      const double value = sum && bias == nullptr ? work.score[e] : work.choice[e];
      second = std::max(second, std::min(first, value));
      first = std::max(first, value);
    }
    work.worth[g] = sum ? first + second : first;
    work.group_order[g] = static_cast<int32_t>(g);
  }
  std::partial_sort(work.group_order, work.group_order + args.top_groups, work.group_order + work.groups,
                    BestFirst{work.worth});
  std::sort(work.group_order, work.group_order + args.top_groups);
}

// The top_k experts that count, best first, to work.order.
void choose_experts(const bl_moe_route_args& args, Work& work) {
  const float* bias = static_cast<const float*>(args.bias.data);
  const int64_t top_k = args.indices.shape[1];
  for (int64_t e = 0; e < work.experts; ++e) {
    const double logit = static_cast<double>(work.logits[e]);
    const bool in_order = bias == nullptr || logit == kBehindAll;
    work.choice[e] = in_order ? logit : work.score[e] + static_cast<double>(bias[e]);
  }
  int64_t groups = 1, size = work.experts, count = 0;
  work.group_order[0] = 0;
  if (work.groups > 1) {
    keep_groups(args, work);
    groups = args.top_groups;
    size = work.experts / work.groups;
  }
  for (int64_t i = 0; i < groups; ++i) {
    const int64_t begin = work.group_order[i] * size;
    if (top_k <= kInserted) {
      count = insert_best(begin, begin + size, top_k, count, work);
    } else {
      for (int64_t e = begin; e < begin + size; ++e) work.order[count++] = static_cast<int32_t>(e);
    }
  }
  if (top_k > kInserted) {
    std::partial_sort(work.order, work.order + top_k, work.order + count, BestFirst{work.choice});
  }
}

void route(const bl_moe_route_args& args, RouteKernel kernel, int64_t token, Work& work) {
  const int64_t top_k = args.indices.shape[1];
  Rows(args.logits).load(token, work.logits);
  score_experts(args.scoring, kernel, work);
  choose_experts(args, work);
  double sum = 0;
  for (int64_t i = 0; i < top_k; ++i) sum += work.score[work.order[i]];
  const bool chosen_alone = args.scoring == BL_MOE_softmax_chosen;
  const double inverse = sum > 0 ? 1 / sum : 0;
  const double factor = static_cast<double>(args.scale) * (args.normalize != 0 || chosen_alone ? inverse : 1);
  int32_t* indices = static_cast<int32_t*>(args.indices.data) + token * args.indices.strides[0];
  float* weights = static_cast<float*>(args.weights.data) + token * args.weights.strides[0];
  for (int64_t i = 0; i < top_k; ++i) {
    indices[i * args.indices.strides[1]] = work.order[i];
    weights[i * args.weights.strides[1]] = static_cast<float>(work.score[work.order[i]] * factor);
  }
  if (args.scores.data == nullptr) return;
  float* scores = static_cast<float*>(args.scores.data) + token * args.scores.strides[0];
  const int64_t stride = args.scores.strides[1];
  for (int64_t e = 0; e < work.experts; ++e)
    scores[e * stride] = chosen_alone ? 0 : static_cast<float>(work.score[e]);
  for (int64_t i = 0; i < top_k && chosen_alone; ++i) {
    scores[work.order[i] * stride] = static_cast<float>(work.score[work.order[i]] * inverse);
  }
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_moe_route(const bl_moe_route_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_moe_route_args, "moe_route", checked);
  BL_RETURN_IF_ERROR(validate_route(checked, error));
  BL_RUN_ON_DEVICE(moe_route, checked);
  const int64_t tokens = checked.logits.shape[0];
  const int64_t tasks = (tokens + kTokensPerTask - 1) / kTokensPerTask;
  const int64_t slots = std::min<int64_t>(std::max<int64_t>(tasks, 1), thread_count(checked.run));
  const uint64_t slot_bytes = Work(checked, nullptr).bytes;
  const Scratch scratch(static_cast<uint64_t>(slots) * slot_bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "moe_route: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(static_cast<uint64_t>(slots) * slot_bytes));
  BL_RETURN_IF_ERROR(validate_values(checked, Work(checked, scratch.data()).logits, error));
  const RouteScore score = checked.scoring == BL_MOE_sigmoid ? RouteScore::sigmoid : RouteScore::softmax;
  const RouteKernel kernel =
      choose(kKernels, score, "moe_route", checked.run, tokens, checked.logits.shape[1]).run;
  std::atomic<int64_t> next{0};
  parallel_for(checked.run, slots, [&](int64_t slot) {
    Work work(checked, scratch.data() + static_cast<uint64_t>(slot) * slot_bytes);
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      const int64_t end = std::min((task + 1) * kTokensPerTask, tokens);
      for (int64_t token = task * kTokensPerTask; token < end; ++token) route(checked, kernel, token, work);
    }
  });
  return BL_STATUS_ok;
}
