// moe_route: which experts each token goes to, and with what weight. In double at every level: it reads each
// logit once.
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

namespace bitloom {

namespace {

constexpr int64_t kTokensPerTask = 16;
constexpr double kBehindAll = -std::numeric_limits<double>::infinity();

bl_status validate_outputs(const bl_moe_route_args& args, bl_error* error) {
  const char* op = "moe_route";
  const int64_t tokens = args.logits.shape[0], experts = args.logits.shape[1];
  BL_RETURN_IF_ERROR(check_output({op, "indices"}, args.indices, dtype_bit(BL_DTYPE_i32), 2, 2, error));
  BL_RETURN_IF_ERROR(check_output({op, "weights"}, args.weights, dtype_bit(BL_DTYPE_f32), 2, 2, error));
  BL_RETURN_IF_ERROR(check_dim({op, "indices"}, args.indices, 0, tokens, "logits.shape[0]", error));
  BL_RETURN_IF_ERROR(check_same_shape({op, "weights"}, args.weights, "indices", args.indices, error));
  const int64_t top_k = args.indices.shape[1];
  BL_CHECK(top_k >= 1 && top_k <= experts, out_of_range,
           "moe_route: top_k is %lld, expected 1 to %lld (logits.shape[1])", static_cast<long long>(top_k),
           static_cast<long long>(experts));
  if (args.scores.data != nullptr) {
    BL_RETURN_IF_ERROR(check_output({op, "scores"}, args.scores, dtype_bit(BL_DTYPE_f32), 2, 2, error));
    BL_RETURN_IF_ERROR(check_same_shape({op, "scores"}, args.scores, "logits", args.logits, error));
  }
  const bl_tensor* outputs[] = {&args.indices, &args.weights, &args.scores};
  const char* names[] = {"indices", "weights", "scores"};
  for (int i = 0; i < 3; ++i) {
    if (outputs[i]->data == nullptr) continue;
    const Argument output{op, names[i]};
    BL_RETURN_IF_ERROR(
        check_apart(output, *outputs[i], "logits", args.logits.data, args.logits.bytes, error));
    if (args.bias.data != nullptr) {
      BL_RETURN_IF_ERROR(check_apart(output, *outputs[i], "bias", args.bias.data, args.bias.bytes, error));
    }
    for (int j = 0; j < i; ++j) {
      BL_RETURN_IF_ERROR(
          check_apart(output, *outputs[i], names[j], outputs[j]->data, outputs[j]->bytes, error));
    }
  }
  return BL_STATUS_ok;
}

bl_status validate(const bl_moe_route_args& args, bl_error* error) {
  const char* op = "moe_route";
  BL_RETURN_IF_ERROR(check_tensor({op, "logits"}, args.logits, kFloatTypes, 2, 2, error));
  const int64_t experts = args.logits.shape[1];
  BL_CHECK(experts >= 1, invalid_shape, "moe_route: logits.shape[1] is 0, expected at least 1 expert");
  BL_CHECK(experts <= std::numeric_limits<int32_t>::max(), out_of_range,
           "moe_route: logits.shape[1] is %lld, expected at most 2147483647",
           static_cast<long long>(experts));
  BL_RETURN_IF_ERROR(check_optional_vector({op, "bias"}, args.bias, dtype_bit(BL_DTYPE_f32), experts,
                                           "logits.shape[1]", error));
  BL_CHECK(args.scoring >= BL_MOE_softmax && args.scoring <= BL_MOE_sigmoid, invalid_argument,
           "moe_route: scoring is %d, expected 0 to 2", args.scoring);
  BL_CHECK(args.scoring != BL_MOE_softmax_chosen || args.bias.data == nullptr, invalid_argument,
           "moe_route: bias is given, expected none with softmax over the chosen experts");
  BL_CHECK(args.group_score >= BL_MOE_max && args.group_score <= BL_MOE_top2, invalid_argument,
           "moe_route: group_score is %d, expected 0 or 1", args.group_score);
  BL_CHECK(args.normalize == 0 || args.normalize == 1, invalid_argument,
           "moe_route: normalize is %d, expected 0 or 1", args.normalize);
  BL_CHECK(std::isfinite(args.scale), invalid_argument, "moe_route: scale is %g, expected a finite number",
           static_cast<double>(args.scale));
  BL_RETURN_IF_ERROR(validate_outputs(args, error));
  if (args.num_groups == 0 || args.num_groups == 1) return BL_STATUS_ok;
  BL_CHECK(args.num_groups > 0 && experts % args.num_groups == 0, out_of_range,
           "moe_route: num_groups is %d, expected a divisor of %lld (logits.shape[1])", args.num_groups,
           static_cast<long long>(experts));
  const int64_t size = experts / args.num_groups, top_k = args.indices.shape[1];
  BL_CHECK(args.top_groups >= 1 && args.top_groups <= args.num_groups, out_of_range,
           "moe_route: top_groups is %d, expected 1 to %d (num_groups)", args.top_groups, args.num_groups);
  BL_CHECK(args.top_groups * size >= top_k, out_of_range,
           "moe_route: top_groups is %d, expected at least %lld (%lld experts in groups of %lld)",
           args.top_groups, static_cast<long long>((top_k + size - 1) / size), static_cast<long long>(top_k),
           static_cast<long long>(size));
  return BL_STATUS_ok;
}

// The first token without an order, or -1; *expert: its logit that is none, or -1 if all are -infinity.
int64_t first_odd(const bl_moe_route_args& args, int64_t* expert, float* row) {
  const Rows logits(args.logits);
  for (int64_t t = 0; t < logits.count; ++t) {
    logits.load(t, row);
    bool any = false;
    for (int64_t e = 0; e < logits.length; ++e) {
      if (std::isnan(row[e]) || row[e] == std::numeric_limits<float>::infinity()) {
        *expert = e;
        return t;
      }
      any |= std::isfinite(row[e]);
    }
    *expert = -1;
    if (!any) return t;
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
  int64_t experts, groups, allowed;
  double* score;   // [experts] s
  double* choice;  // [experts] c, or what has its order
  double* worth;   // [groups]
  float* logits;   // [experts]
  int32_t* order;  // [experts]: the allowed ones, then by choice
  int32_t* group_order;
  uint64_t bytes;

  Work(const bl_moe_route_args& args, uint8_t* memory)
      : experts(args.logits.shape[1]), groups(std::max(args.num_groups, 1)), allowed(experts) {
    uint8_t* next = memory;
    const auto take = [&](auto** pointer, int64_t count) {
      *pointer = reinterpret_cast<std::remove_reference_t<decltype(*pointer)>>(next);
      next += align_up(static_cast<uint64_t>(count) * sizeof(**pointer));
    };
    take(&score, experts);
    take(&choice, experts);
    take(&worth, groups);
    take(&logits, experts);
    take(&order, experts);
    take(&group_order, groups);
    bytes = static_cast<uint64_t>(next - memory);
  }
};

// s[e] of all experts; of softmax_chosen not divided yet.
void score_experts(int32_t scoring, Work& work) {
  if (scoring == BL_MOE_sigmoid) {
    for (int64_t e = 0; e < work.experts; ++e) {
      work.score[e] = 1 / (1 + std::exp(-static_cast<double>(work.logits[e])));
    }
    return;
  }
  const double largest = static_cast<double>(*std::max_element(work.logits, work.logits + work.experts));
  double sum = 0;
  for (int64_t e = 0; e < work.experts; ++e) {
    work.score[e] = std::exp(static_cast<double>(work.logits[e]) - largest);
    sum += work.score[e];
  }
  if (scoring == BL_MOE_softmax_chosen) return;
  for (int64_t e = 0; e < work.experts; ++e) work.score[e] /= sum;
}

// The best `count` of order[0, size) to its beginning: by falling value, lower numbers first among equals.
void best_first(const double* values, int64_t count, int64_t size, int32_t* order) {
  std::partial_sort(order, order + count, order + size, [values](int32_t a, int32_t b) {
    return values[a] != values[b] ? values[a] > values[b] : a < b;
  });
}

// The experts of the groups that count, to work.order.
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
  best_first(work.worth, args.top_groups, work.groups, work.group_order);
  work.allowed = 0;
  for (int32_t i = 0; i < args.top_groups; ++i) {
    for (int64_t e = 0; e < size; ++e) {
      work.order[work.allowed++] = static_cast<int32_t>(work.group_order[i] * size + e);
    }
  }
}

void route(const bl_moe_route_args& args, int64_t token, Work& work) {
  const int64_t top_k = args.indices.shape[1];
  Rows(args.logits).load(token, work.logits);
  score_experts(args.scoring, work);
  const float* bias = static_cast<const float*>(args.bias.data);
  work.allowed = work.experts;
  for (int64_t e = 0; e < work.experts; ++e) {
    const double logit = static_cast<double>(work.logits[e]);
    const bool in_order = bias == nullptr || logit == kBehindAll;
    work.choice[e] = in_order ? logit : work.score[e] + static_cast<double>(bias[e]);
    work.order[e] = static_cast<int32_t>(e);
  }
  if (work.groups > 1) keep_groups(args, work);
  best_first(work.choice, top_k, work.allowed, work.order);
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
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(moe_route, checked);
  const int64_t tokens = checked.logits.shape[0];
  const int64_t tasks = (tokens + kTokensPerTask - 1) / kTokensPerTask;
  const int64_t slots = std::min<int64_t>(std::max<int64_t>(tasks, 1), thread_count(checked.run));
  const uint64_t slot_bytes = Work(checked, nullptr).bytes;
  const Scratch scratch(static_cast<uint64_t>(slots) * slot_bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "moe_route: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(static_cast<uint64_t>(slots) * slot_bytes));
  BL_RETURN_IF_ERROR(validate_values(checked, Work(checked, scratch.data()).logits, error));
  std::atomic<int64_t> next{0};
  parallel_for(checked.run, slots, [&](int64_t slot) {
    Work work(checked, scratch.data() + static_cast<uint64_t>(slot) * slot_bytes);
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
      const int64_t end = std::min((task + 1) * kTokensPerTask, tokens);
      for (int64_t token = task * kTokensPerTask; token < end; ++token) route(checked, token, work);
    }
  });
  return BL_STATUS_ok;
}
