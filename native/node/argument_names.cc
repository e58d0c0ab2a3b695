#include "argument_names.h"

#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

namespace bitloom::node {
namespace {

struct Name {
  std::string_view c, js;
};

constexpr Name kMatmulNames[] = {
    {"c", "out"},
    {"row_scale", "rowScale"},
    {"a_scales", "aScales"},
    {"c_scales", "cScales"},
    {"c_scale", "cScale"},
    {"column_scale", "columnScale"},
    {"column_order", "columnOrder"},
    {"low_rank_down", "lowRank.down"},
    {"low_rank_up", "lowRank.up"},
    {"low_rank_ids", "adapters.ids"},
    {"low_rank_scale", "lowRank.scale"},
    {"outlier_row_offsets", "outliers.rowOffsets"},
    {"outlier_columns", "outliers.columns"},
    {"outlier_values", "outliers.values"},
    {"activation_bits", "activationBits"},
    {"activation_group", "activationGroup"},
};
constexpr Name kKvNames[] = {{"key_mean", "keyMean"},
                             {"num_heads", "numKvHeads"},
                             {"num_pages", "numPages"},
                             {"page_size", "pageSize"}};
constexpr Name kAttentionNames[] = {{"rotary_dim", "rotaryDim"},
                                    {"freq_factors", "freqFactors"},
                                    {"low_freq_factor", "lowFreqFactor"},
                                    {"high_freq_factor", "highFreqFactor"},
                                    {"original_context", "originalContext"},
                                    {"attention_factor", "attentionFactor"},
                                    {"beta_fast", "betaFast"},
                                    {"beta_slow", "betaSlow"}};
constexpr Name kLinearAttentionNames[] = {{"cu_tokens", "cuTokens"}, {"output", "out"}};
constexpr Name kPermuteNames[] = {{"block_size", "blockSize"}, {"output", "out"}};
constexpr Name kProductNames[] = {{"c", "out"},
                                  {"values", "s.values"},
                                  {"row_starts", "topology.rowStarts"},
                                  {"column_starts", "topology.columnStarts"},
                                  {"block_offsets", "topology.offsets"},
                                  {"column_indices", "topology.columnIndices"},
                                  {"row_indices", "topology.rowIndices"},
                                  {"transpose_offsets", "topology.transposeOffsets"},
                                  {"transpose_indices", "topology.transposeIndices"}};
constexpr Name kMoeRouteNames[] = {
    {"num_groups", "numGroups"}, {"top_groups", "topGroups"}, {"top_k", "topK"}};
constexpr Name kMoeForwardNames[] = {{"output", "out"},           {"shared_weights", "sharedWeights"},
                                     {"num_shared", "numShared"}, {"max_rows", "maxRows"},
                                     {"gate_bias", "gateBias"},   {"up_bias", "upBias"},
                                     {"down_bias", "downBias"}};
constexpr Name kPrepareNames[] = {{"norm_weight", "norm.weight"}, {"output", "out"}};

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

template <size_t kCount>
std::string_view find(const Name (&names)[kCount], std::string_view word) {
  for (const Name& name : names) {
    if (name.c == word) return name.js;
  }
  return word;
}

std::string js_word(const Call& call, std::string_view word) {
  if (word == call.op->name) return call.op->js_name;
  const std::string_view op = call.op->js_name;
  if (op == "prepareActivations") return std::string(find(kPrepareNames, word));
  if (op == "kvAppend" || op == "kvGather") return std::string(find(kKvNames, word));
  if (op == "attention") return std::string(find(kAttentionNames, word));
  if (op == "linearAttention") return std::string(find(kLinearAttentionNames, word));
  if (op == "moeForward") return std::string(find(kMoeForwardNames, word));
  if (op == "moeRoute") return std::string(find(kMoeRouteNames, word));
  if (op == "moePermute" || op == "moeUnpermute") return std::string(find(kPermuteNames, word));
  if (op == "groupedMatmul" || op == "sdd" || op == "dsd" || op == "dds") {
    return std::string(find(kProductNames, word));
  }
  if (op != "matmul") return std::string(word);
  std::string name(find(kMatmulNames, word));
  const std::string_view low_rank = "lowRank";
  if (call.args.matmul.low_rank_ids.data != nullptr && name.compare(0, low_rank.size(), low_rank) == 0) {
    name.replace(0, low_rank.size(), "adapters");
  }
  return name;
}

}  // namespace

void name_arguments(const Call& call, bl_error* error) {
  const std::string_view message(error->message, strnlen(error->message, sizeof(error->message)));
  std::string named;
  for (size_t at = 0; at < message.size();) {
    size_t end = at;
    while (end < message.size() && is_word(message[end])) ++end;
    if (end == at) {
      named += message[at++];
    } else {
      named += js_word(call, message.substr(at, end - at));
      at = end;
    }
  }
  std::snprintf(error->message, sizeof(error->message), "%s", named.c_str());
}

}  // namespace bitloom::node
