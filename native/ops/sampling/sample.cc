// sample: validate, penalize, select, draw. One thread, double arithmetic, the same on every ISA level.
//
// Candidates are ordered by (logit descending, id ascending). top_k, top_p and min_p each keep a prefix of
// that order, so only as much of it is sorted as the call looks at.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../../base/backend.h"
#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "draw.h"

namespace bitloom {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Candidate {
  double weight;  // exp((logit - largest) / temperature)
  float logit;
  int32_t id;
};

bool before(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// The order of candidates, sorted only as far as asked for.
class Ordered {
 public:
  Ordered(Candidate* begin, int64_t count) : begin_(begin), count_(count) {}

  int64_t count() const { return count_; }
  Candidate* begin() const { return begin_; }
  // Number i of the order. Grows the sorted part fourfold at a time: O(count) in all when little is read.
  const Candidate& operator[](int64_t i) {
    if (i >= sorted_) sort(std::max<int64_t>({i + 1, 4 * sorted_, 64}));
    return begin_[i];
  }
  void sort(int64_t n) {
    n = std::min(n, count_);
    if (n <= sorted_) return;
    if (n < count_) std::nth_element(begin_ + sorted_, begin_ + n - 1, begin_ + count_, before);
    std::sort(begin_ + sorted_, begin_ + n, before);
    sorted_ = n;
  }
  // Keeps the first n, which must be sorted already, or any n when `begin` was rearranged by the caller.
  void keep(int64_t n) {
    count_ = n;
    sorted_ = std::min(sorted_, n);
  }
  bool sorted(int64_t n) const { return n <= sorted_; }

 private:
  Candidate* begin_;
  int64_t count_;
  int64_t sorted_ = 0;
};

int32_t previous_at(const bl_tensor& previous, int64_t i) {
  return load_as<int32_t>(static_cast<const uint8_t*>(previous.data) + i * previous.strides[0] * 4);
}

// A stride of 0 repeats one id, however many the view claims.
int64_t previous_count(const bl_tensor& previous) {
  return previous.strides[0] == 0 ? std::min<int64_t>(previous.shape[0], 1) : previous.shape[0];
}

float logit_at(const bl_tensor& logits, int64_t i) {
  return load_as<float>(static_cast<const float*>(logits.data) + i);
}

bl_status check_options(const bl_sample_args& args, bl_error* error) {
  BL_CHECK(std::isfinite(args.temperature) && args.temperature >= 0, out_of_range,
           "sample: temperature is %g, expected a finite number of at least 0", args.temperature);
  BL_CHECK(args.top_k >= 0, out_of_range, "sample: top_k is %d, expected at least 0", args.top_k);
  BL_CHECK(args.top_p >= 0 && args.top_p <= 1, out_of_range, "sample: top_p is %g, expected 0 to 1",
           args.top_p);
  BL_CHECK(args.min_p >= 0 && args.min_p < 1, out_of_range,
           "sample: min_p is %g, expected at least 0 and below 1", args.min_p);
  BL_CHECK(std::isfinite(args.repetition_penalty) && args.repetition_penalty >= 0, out_of_range,
           "sample: repetition_penalty is %g, expected a finite number of at least 0",
           args.repetition_penalty);
  BL_CHECK(args.token != nullptr, invalid_argument, "sample: token is null");
  return BL_STATUS_ok;
}

bl_status validate(const bl_sample_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({"sample", "logits"}, args.logits, dtype_bit(BL_DTYPE_f32), 1, 1, error));
  const int64_t vocab = args.logits.shape[0];
  BL_CHECK(vocab >= 1 && vocab <= INT32_MAX, invalid_shape,
           "sample: logits.shape[0] is %lld, expected 1 to 2^31 - 1", static_cast<long long>(vocab));
  BL_CHECK(is_contiguous(args.logits), invalid_shape, "sample: logits.strides[0] is %lld, expected 1",
           static_cast<long long>(args.logits.strides[0]));
  BL_RETURN_IF_ERROR(check_options(args, error));
  if (args.previous.data != nullptr) {
    BL_RETURN_IF_ERROR(
        check_tensor({"sample", "previous"}, args.previous, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  }
  if (args.run.device != 0) return BL_STATUS_ok;  // values are checked on the device
  bool any = false;
  for (int64_t i = 0; i < vocab; ++i) {
    const float logit = logit_at(args.logits, i);
    BL_CHECK(!std::isnan(logit), non_finite, "sample: logits[%lld] is NaN", static_cast<long long>(i));
    any = any || logit > -kInfinity;
  }
  BL_CHECK(any, non_finite,
           "sample: every logit is -infinity, expected at least one token that can be picked");
  if (args.previous.data == nullptr) return BL_STATUS_ok;
  for (int64_t i = 0; i < previous_count(args.previous); ++i) {
    const int32_t id = previous_at(args.previous, i);
    BL_CHECK(id >= 0 && id < vocab, out_of_range, "sample: previous[%lld] is %d, expected 0 to %lld",
             static_cast<long long>(i), id, static_cast<long long>(vocab - 1));
  }
  return BL_STATUS_ok;
}

// Divides the positive and multiplies the negative logits of tokens seen before, once each. The result
// stays finite where the logit was, so that a penalty alone never makes a token certain or impossible.
float penalized(float logit, float penalty) {
  if (std::isinf(logit)) return logit;
  const double value =
      logit > 0 ? static_cast<double>(logit) / penalty : static_cast<double>(logit) * penalty;
  constexpr double kLargest = std::numeric_limits<float>::max();
  return static_cast<float>(std::clamp(value, -kLargest, kLargest));
}

void load(const bl_sample_args& args, Candidate* candidates) {
  for (int64_t i = 0; i < args.logits.shape[0]; ++i) {
    candidates[i] = {0, logit_at(args.logits, i), static_cast<int32_t>(i)};
  }
  const float penalty = args.repetition_penalty;
  if (args.previous.data == nullptr || penalty == 0 || penalty == 1) return;
  for (int64_t i = 0; i < previous_count(args.previous); ++i) {
    const int32_t id = previous_at(args.previous, i);
    candidates[id].logit = penalized(logit_at(args.logits, id), penalty);
  }
}

// Fills the weights and gives their sum, in the order in which the candidates lie.
double weigh(const Ordered& candidates, double largest, double temperature) {
  double total = 0;
  Candidate* const end = candidates.begin() + candidates.count();
  for (Candidate* c = candidates.begin(); c != end; ++c) {
    // Equal logits first: it also makes infinite ones share all of the probability.
    c->weight = c->logit == largest ? 1 : std::exp((c->logit - largest) / temperature);
    total += c->weight;
  }
  return total;
}

// The smallest prefix whose weights reach `wanted`.
void keep_top_p(Ordered& candidates, double wanted) {
  double sum = 0;
  for (int64_t i = 0; i < candidates.count(); ++i) {
    sum += candidates[i].weight;
    if (sum >= wanted) {
      candidates.keep(i + 1);
      return;
    }
  }
}

void keep_min_p(Ordered& candidates, double smallest) {
  const auto enough = [=](const Candidate& c) { return c.weight >= smallest; };
  Candidate* const begin = candidates.begin();
  // Keeps what is sorted in place: a sorted part is a prefix, and what is dropped lies behind it.
  candidates.keep(std::partition(begin, begin + candidates.count(), enough) - begin);
}

double sorted_sum(Ordered& candidates) {
  candidates.sort(candidates.count());
  double sum = 0;
  for (int64_t i = 0; i < candidates.count(); ++i) sum += candidates[i].weight;
  return sum;
}

struct Pick {
  int32_t id;
  double probability;
};

Pick draw(Ordered& candidates, double mass, double u) {
  const double target = u * mass;
  double sum = 0;
  for (int64_t i = 0; i < candidates.count(); ++i) {
    const Candidate& c = candidates[i];
    if (c.weight == 0) break;  // the rest has underflowed
    sum += c.weight;
    if (sum > target) return {c.id, c.weight / mass};
  }
  // u was within a rounding error of 1, or the sums in two orders differ by one: the last that can be drawn.
  int64_t last = candidates.count() - 1;
  while (candidates[last].weight == 0) --last;
  return {candidates[last].id, candidates[last].weight / mass};
}

Pick sample(const bl_sample_args& args, Candidate* begin, int64_t count) {
  const Candidate first = *std::min_element(begin, begin + count, before);
  if (args.temperature == 0) return {first.id, 1};
  Ordered candidates(begin, count);
  if (args.top_k > 0 && args.top_k < count) {
    candidates.sort(args.top_k);
    candidates.keep(args.top_k);
  }
  double mass = weigh(candidates, first.logit, args.temperature);
  const int64_t all = candidates.count();
  if (args.top_p > 0 && args.top_p < 1) keep_top_p(candidates, args.top_p * mass);
  if (args.min_p > 0) keep_min_p(candidates, args.min_p);
  if (candidates.count() != all) mass = sorted_sum(candidates);
  return draw(candidates, mass, uniform_draw(args.seed, args.position));
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_sample(const bl_sample_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_sample_args, "sample", call);
  BL_RETURN_IF_ERROR(validate(call, error));
  BL_RUN_ON_DEVICE(sample, call);
  const int64_t vocab = call.logits.shape[0];
  const uint64_t bytes = static_cast<uint64_t>(vocab) * sizeof(Candidate);
  const Scratch scratch(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "sample: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(bytes));
  Candidate* candidates = reinterpret_cast<Candidate*>(scratch.data());
  load(call, candidates);
  Candidate* end = std::remove_if(candidates, candidates + vocab,
                                  [](const Candidate& c) { return c.logit == -kInfinity; });
  const Pick pick = sample(call, candidates, end - candidates);
  *call.token = pick.id;
  if (call.probability != nullptr) *call.probability = static_cast<float>(pick.probability);
  return BL_STATUS_ok;
}
