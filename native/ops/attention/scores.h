// What attention says of the weights themselves: sums over queries, entropy, variance.
#pragma once

#include "kernel.h"

namespace bitloom {

inline bool has_scores(const bl_attention_args& args) {
  return args.score_sums.data != nullptr || args.score_squares.data != nullptr ||
         args.score_entropy.data != nullptr || args.score_variance.data != nullptr;
}

// Writes the scores of a call. The weights [rows][keys] of a few tasks are made, added up and forgotten;
// threads share them along chunks of keys, each chunk's rows in their order: bits do not depend on threads.
// writes_output: all queries are observed, and output and lse are written on the way. Else they are left
// alone, and values are not read by kernels that can do without.
bl_status run_scores(const AttentionCall& call, const AttentionKernelRow& kernel,
                     const bl_attention_args& args, const bl_run& run, bool writes_output, bl_error* error);

bl_status check_scores(const bl_attention_args& args, bl_error* error);                       // shapes
bl_status check_score_keys(const bl_attention_args& args, int64_t longest, bl_error* error);  // and columns

// sums[s] += p, squares[s] += p^2, logs[s] += p ln p for weights p in [0, 1] of `count` keys, 0 for p = 0,
// NaN for NaN; logs null: not wanted.
using AddWeights = void (*)(const float* weights, int64_t count, double* sums, double* squares, double* logs);

#define BL_SCORE_KERNEL(isa)                                                                          \
  namespace isa {                                                                                     \
  void add_weights(const float* weights, int64_t count, double* sums, double* squares, double* logs); \
  }
#include "score_kernels.inc"
#undef BL_SCORE_KERNEL

}  // namespace bitloom
