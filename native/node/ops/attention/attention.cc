#include "../../call.h"
#include "../rope/numbers.h"

namespace bitloom::node {

namespace {

// pages(data, format, pageSize, numHeads, dim, numPages); of values only data, format and dim: the rest is as
// for keys
bool read_keys(Arguments& arguments, const char* name, bl_kv_pages* pages) {
  bl_tensor data{};
  int32_t num_pages = 0;
  if (!(arguments.tensor(name, &data) && arguments.integer("format", &pages->format) &&
        arguments.integer("pageSize", &pages->page_size) &&
        arguments.integer("numHeads", &pages->num_heads) && arguments.integer("keyDim", &pages->dim) &&
        arguments.integer("numPages", &num_pages))) {
    return false;
  }
  pages->data = data.data;
  pages->bytes = data.bytes;
  pages->num_pages = num_pages;
  return true;
}

bool read_values(Arguments& arguments, const char* name, const bl_kv_pages& keys, bl_kv_pages* pages) {
  bl_tensor data{};
  *pages = keys;
  if (!(arguments.optional_tensor(name, &data) && arguments.integer("format", &pages->format) &&
        arguments.integer("valueDim", &pages->dim))) {
    return false;
  }
  pages->data = data.data;
  pages->bytes = data.bytes;
  return true;
}

bool read_segment(Arguments& arguments, bl_kv_segment* segment) {
  return read_keys(arguments, "keys", &segment->keys) &&
         read_values(arguments, "values", segment->keys, &segment->values) &&
         arguments.tensor("blockTable", &segment->block_table) &&
         arguments.tensor("lengths", &segment->lengths);
}

// rope(numbers..., freqFactors | undefined, queryPositions | undefined, keyPositions | undefined)
bool read_attention_rope(Arguments& arguments, bl_attention_args* args) {
  args->rope.size = sizeof(args->rope);
  return read_rope_numbers(arguments, &args->rope) &&
         arguments.optional_tensor("rope.freqFactors", &args->rope.freq_factors) &&
         arguments.optional_tensor("rope.queryPositions", &args->rope.positions) &&
         arguments.optional_tensor("rope.keyPositions", &args->key_positions);
}

}  // namespace

// attention(q, output, scale, causal, window, compute, given, ...what is given, run): bit i of `given` says
// that the i-th of the options below follows. The same order stands in lib/ops/attention/values.ts.
bool read_attention(Arguments& arguments, bl_attention_args* args) {
  int32_t given = 0;
  if (!(arguments.tensor("q", &args->q) && arguments.tensor("output", &args->output) &&
        arguments.number("scale", &args->scale) && arguments.integer("causal", &args->causal) &&
        arguments.integer("window", &args->window) && arguments.integer("compute", &args->compute) &&
        arguments.integer("given", &given))) {
    return false;
  }
  const auto has = [given](int bit) { return (given >> bit & 1) != 0; };
  return (!has(0) || (arguments.tensor("k", &args->k) && arguments.tensor("v", &args->v))) &&
         (!has(1) || read_segment(arguments, &args->segments[0])) &&
         (!has(2) || read_segment(arguments, &args->segments[1])) &&
         (!has(3) || arguments.tensor("cuQueries", &args->cu_queries)) &&
         (!has(4) || arguments.tensor("cuKeys", &args->cu_keys)) &&
         (!has(5) || arguments.number("softCap", &args->soft_cap)) &&
         (!has(6) || arguments.tensor("slopes", &args->slopes)) &&
         (!has(7) || arguments.tensor("sinks", &args->sinks)) &&
         (!has(8) || arguments.tensor("mask", &args->mask)) &&
         (!has(9) || (arguments.tensor("blockMask.mask", &args->block_mask) &&
                      arguments.integer("blockMask.queries", &args->block_queries) &&
                      arguments.integer("blockMask.keys", &args->block_keys))) &&
         (!has(10) || arguments.integer("prefix", &args->prefix)) &&
         (!has(11) || arguments.integer("causalBlock", &args->causal_block)) &&
         (!has(12) || arguments.integer("sinkTokens", &args->sink_tokens)) &&
         (!has(13) || arguments.tensor("windows", &args->windows)) &&
         (!has(14) || arguments.tensor("sinkCounts", &args->sink_counts)) &&
         (!has(15) || arguments.tensor("lse", &args->lse)) &&
         (!has(16) || arguments.tensor("probabilities", &args->probabilities)) &&
         (!has(17) || arguments.integer("scores.queries", &args->score_queries)) &&
         (!has(18) || arguments.tensor("scores.sums", &args->score_sums)) &&
         (!has(19) || arguments.tensor("scores.squares", &args->score_squares)) &&
         (!has(20) || arguments.tensor("scores.entropy", &args->score_entropy)) &&
         (!has(21) || arguments.tensor("scores.variance", &args->score_variance)) &&
         (!has(22) || read_attention_rope(arguments, args));
}

}  // namespace bitloom::node
