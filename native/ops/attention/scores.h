// What attention says of the weights themselves: sums over queries, entropy, variance.
#pragma once

#include "kernel.h"

namespace bitloom {

inline bool has_scores(const bl_attention_args& args) {
  return args.score_sums.data != nullptr || args.score_squares.data != nullptr ||
         args.score_entropy.data != nullptr || args.score_variance.data != nullptr;
}

// Writes the scores of a call. A task's weights [rows][keys] are added up and forgotten, so that memory is
// that of a task's rows for each thread. Each kv head of a sequence is one thread's, its queries in their
// order: bits do not depend on threads. writes_output: all queries are observed, and output and lse are
// written on the way. Else they are left alone, and values are not read by kernels that can do without.
bl_status run_scores(const AttentionCall& call, const AttentionKernelRow& kernel,
                     const bl_attention_args& args, const bl_run& run, bool writes_output, bl_error* error);

bl_status check_scores(const bl_attention_args& args, bl_error* error);                       // shapes
bl_status check_score_keys(const bl_attention_args& args, int64_t longest, bl_error* error);  // and columns

}  // namespace bitloom
