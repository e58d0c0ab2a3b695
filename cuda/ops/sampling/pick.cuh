// The draw: one block walks the candidates in their order, 1024 at a time. A batch is found by a search for a threshold
// that has 512 to 1024 keys above it, 3 bits a pass over all keys, then sorted, weighed and summed up. Everything that
// sampling asks is "the first rank at which ..." (Walk::find), and mostly the first batch answers all of it.
#pragma once

#include "../../tile/reduce.cuh"
#include "keys.cuh"

namespace bitloom::cuda {

constexpr int kDigitBits = 3, kDigits = 1 << kDigitBits;

struct PickShared {
  uint64_t keys[kPickKeys];    // of the batch, descending
  double weights[kPickKeys];
  double sums[2][kPickKeys];   // of weights up to and with each; two buffers of the scan
  uint32_t counts[kDigits];
  int32_t found;
  double reduce[32];
};

// What is asked for: the first rank below `limit` (1 to all candidates) that is at least `rank`, or at which the sum is at
// least `sum`, or the weight below `weight`.
struct Question {
  int64_t limit, rank;
  double sum, weight;
};

struct Found {
  bool is;          // else: of the last rank looked at
  int64_t rank;     // in the order of all candidates
  uint64_t key;
  double weight;
  double sum;       // of the weights up to and with this rank
  uint64_t before;  // key of the rank before, 0 if there is none
  double before_weight;
};

class Walk {
 public:
  __device__ Walk(const SampleParams& p, PickShared& shared)
      : p_(p), shared_(shared), largest_(logit_of(p.result->largest)), candidates_(p.result->candidates) {}

  __device__ float largest() const { return largest_; }
  __device__ int64_t candidates() const { return candidates_; }

  // All threads call it and get the same. Stands once in the kernel, where it is inlined: calls would cost a stack.
  __device__ __forceinline__ Found find(const Question& question) {
    int64_t base = 0;
    double sum = 0;
    uint64_t bound = ~uint64_t{0}, before = 0;
    double before_weight = 0;
#pragma unroll 1
    for (;;) {
      load(bound);
      const int inside = static_cast<int>(min(static_cast<int64_t>(count_), question.limit - base));
      const int i = threadIdx.x;
      __syncthreads();
      if (i == 0) shared_.found = kPickKeys;
      __syncthreads();
      if (i < inside && (base + i >= question.rank || sum + sums()[i] >= question.sum ||
                         shared_.weights[i] < question.weight)) {
        atomicMin(&shared_.found, i);
      }
      __syncthreads();
      const bool is = shared_.found < inside, ends = base + inside >= question.limit;
      if (is || ends) {
        const int at = is ? shared_.found : inside - 1;
        return {is,
                base + at,
                shared_.keys[at],
                shared_.weights[at],
                sum + sums()[at],
                at > 0 ? shared_.keys[at - 1] : before,
                at > 0 ? shared_.weights[at - 1] : before_weight};
      }
      bound = before = shared_.keys[count_ - 1];
      before_weight = shared_.weights[count_ - 1];
      base += count_;
      sum += sums()[count_ - 1];
    }
  }

 private:
  __device__ const double* sums() const { return shared_.sums[kScanSteps % 2]; }

  // The batch of keys below `bound`, of which there is at least one.
  __device__ __forceinline__ void load(uint64_t bound) {
    if (bound == bound_) return;
    bound_ = bound;
    const uint64_t least = threshold(bound);
    gather(least, bound);
    sort();
    weigh();
  }

  // counts[d] = keys in [t + d << shift, bound), d from 1; counts[0]: in [t, bound).
  __device__ void count_keys(uint64_t t, int shift, uint64_t bound) {
    uint32_t mine[kDigits] = {};
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p_.vocab; i += blockDim.x) {
      const uint64_t key = p_.keys[i];
      if (key >= bound || key < t || key == 0) continue;
      const uint64_t digit = (key - t) >> shift;
#pragma unroll
      for (int d = 0; d < kDigits; ++d) mine[d] += digit >= d ? 1 : 0;
    }
    __syncthreads();  // the last counts are done with
    if (threadIdx.x < kDigits) shared_.counts[threadIdx.x] = 0;
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kDigits; ++d) {
      const uint32_t sum = warp_reduce(mine[d], Sum{});
      if (threadIdx.x % 32 == 0) atomicAdd(&shared_.counts[d], sum);
    }
    __syncthreads();
  }

  // The least key of the batch, or a number below it and above all others: so many keys that they fit, at least half as
  // many unless there are no more. More than kPickKeys keys are not below t, less than half as many are behind its digits:
  // these are of more than kPickKeys / 2 keys, none equal, and one of at most so many ends the search: no shift is below 0.
  __device__ uint64_t threshold(uint64_t bound) {
    uint64_t t = 0;
#pragma unroll 1
    for (int shift = 64 - kDigitBits;; shift -= kDigitBits) {
      count_keys(t, shift, bound);
      if (shared_.counts[0] <= kPickKeys) return t;
      int digit = 1;
      while (digit < kDigits && shared_.counts[digit] > kPickKeys) ++digit;
      if (digit < kDigits) {
        const uint64_t best = t + (static_cast<uint64_t>(digit) << shift);
        if (shared_.counts[digit] >= kPickKeys / 2) return best;
      }
      t += static_cast<uint64_t>(digit - 1) << shift;
      __syncthreads();  // the counts have been read
    }
  }

  __device__ void gather(uint64_t least, uint64_t bound) {
    __syncthreads();
    shared_.keys[threadIdx.x] = 0;
    if (threadIdx.x == 0) shared_.counts[0] = 0;
    __syncthreads();
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p_.vocab; i += blockDim.x) {
      const uint64_t key = p_.keys[i];
      // Places differ from run to run; sorting makes them the same.
      if (key >= least && key < bound && key != 0) shared_.keys[atomicAdd(&shared_.counts[0], 1u)] = key;
    }
    __syncthreads();
    count_ = static_cast<int>(shared_.counts[0]);
  }

  // Bitonic, descending: each thread one of a pair's two places.
  __device__ void sort() {
    const uint32_t i = threadIdx.x;
#pragma unroll 1
    for (uint32_t run = 2; run <= kPickKeys; run *= 2) {
#pragma unroll 1
      for (uint32_t distance = run / 2; distance > 0; distance /= 2) {
        const uint32_t other = i ^ distance;
        const uint64_t a = shared_.keys[i], b = shared_.keys[other];
        const bool wants_larger = ((i & run) == 0) == (i < other);
        __syncthreads();
        shared_.keys[i] = (a > b) == wants_larger ? a : b;
        __syncthreads();
      }
    }
  }

  static constexpr int kScanSteps = 10;  // log2(kPickKeys)

  __device__ void weigh() {
    const int i = threadIdx.x;
    const double weight = i < count_ ? weight_of(shared_.keys[i], largest_, p_.temperature) : 0;
    shared_.weights[i] = weight;
    shared_.sums[0][i] = weight;
    __syncthreads();
#pragma unroll 1
    for (int step = 0; step < kScanSteps; ++step) {
      const double* from = shared_.sums[step % 2];
      const int distance = 1 << step;
      shared_.sums[(step + 1) % 2][i] = i >= distance ? from[i - distance] + from[i] : from[i];
      __syncthreads();
    }
  }

  const SampleParams& p_;
  PickShared& shared_;
  float largest_;
  int64_t candidates_;
  uint64_t bound_ = 0;  // of the batch that is loaded; 0: none
  int count_ = 0;       // keys of it
};

constexpr double kNever = 1.0 / 0.0;

// The questions of a draw, in their order.
enum class Asked : int { top_k_mass, top_p, min_p, kept_mass, draw, end };

// One block.
__device__ __forceinline__ void pick(const SampleParams& p, PickShared& shared) {
  if (p.result->nan != 0 || p.result->bad_previous != 0 || p.result->largest == 0) return;  // the host reports it
  Walk walk(p, shared);
  int64_t all = walk.candidates();
  const bool has_top_k = p.top_k > 0 && p.top_k < all;
  double mass = 0;
  if (has_top_k) {
    all = p.top_k;
  } else {
    double part = 0;
#pragma unroll 1
    for (int64_t i = threadIdx.x; i < p.mass_blocks; i += blockDim.x) part += p.masses[i];
    mass = block_reduce(part, 0.0, Sum{}, shared.reduce);
  }
  int64_t kept = all;
#pragma unroll 1
  for (int number = 0; number < static_cast<int>(Asked::end); ++number) {
    const Asked asked = static_cast<Asked>(number);
    Question question = {kept, kept - 1, kNever, -1};  // the sum of the first `kept`
    if (asked == Asked::top_k_mass) {
      if (!has_top_k) continue;
    } else if (asked == Asked::top_p) {
      if (!(p.top_p > 0 && p.top_p < 1)) continue;
      question.rank = kept, question.sum = p.top_p * mass;
    } else if (asked == Asked::min_p) {
      if (!(p.min_p > 0)) continue;
      question.rank = kept, question.weight = p.min_p;
    } else if (asked == Asked::kept_mass) {
      if (kept == all) continue;
    } else {  // a sum above draw * mass, which is not negative; or what has underflowed
      question.rank = kept;
      question.sum = __longlong_as_double(__double_as_longlong(p.draw * mass) + 1);
      question.weight = 0x1p-1074;
    }
    const Found at = walk.find(question);
    if (asked == Asked::top_k_mass || asked == Asked::kept_mass) {
      mass = at.sum;
    } else if (asked == Asked::top_p) {
      if (at.is) kept = at.rank + 1;
    } else if (asked == Asked::min_p) {
      if (at.is) kept = at.rank;  // never 0: the first weighs 1
    } else if (threadIdx.x == 0) {
      // What has underflowed can't be drawn: the last before it.
      const bool vanished = at.weight == 0;
      p.result->token = id_of(vanished ? at.before : at.key);
      p.result->probability = static_cast<float>((vanished ? at.before_weight : at.weight) / mass);
    }
  }
}

}  // namespace bitloom::cuda
