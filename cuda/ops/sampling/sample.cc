// Host side of sample. The one operator that waits for the device: its result is host memory.
#include <algorithm>

#include "../../../native/ops/sampling/draw.h"
#include "../../backend.h"
#include "../rows.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages sampling_module;

namespace {

int64_t index_of(uint32_t mark) { return int64_t{0x7fffffff} - mark; }

// What only the device could check.
bl_status check_result(const bl_sample_args& args, const SampleResult& result, bl_error* error) {
  BL_CHECK(result.nan == 0, non_finite, "sample: logits[%lld] is NaN",
           static_cast<long long>(index_of(result.nan)));
  BL_CHECK(result.bad_previous == 0, out_of_range,
           "sample: previous[%lld] is outside the vocabulary, expected 0 to %lld",
           static_cast<long long>(index_of(result.bad_previous)),
           static_cast<long long>(args.logits.shape[0] - 1));
  BL_CHECK(result.largest != 0, non_finite,
           "sample: every logit is -infinity, expected at least one token that can be picked");
  return BL_STATUS_ok;
}

// A token of each launch's own grid: enough blocks, no more than run at once.
LaunchShape over(const Queue& queue, int64_t count) {
  LaunchShape shape;
  shape.block.x = kSampleThreads;
  shape.grid.x = static_cast<uint32_t>(
      std::min<int64_t>(ceil_div(count, kSampleThreads), int64_t{queue.limits().multiprocessors} * 8));
  return shape;
}

SampleParams params_of(const bl_sample_args& args) {
  SampleParams params{};
  params.logits = static_cast<const float*>(args.logits.data);
  params.vocab = args.logits.shape[0];
  // Ids are checked even where nothing is penalized.
  if (args.previous.data != nullptr) {
    params.previous = static_cast<const int32_t*>(args.previous.data);
    params.previous_stride = args.previous.strides[0];
    params.previous_count =
        args.previous.strides[0] == 0 ? std::min<int64_t>(args.previous.shape[0], 1) : args.previous.shape[0];
  }
  params.penalty = args.repetition_penalty == 0 ? 1 : args.repetition_penalty;
  params.temperature = args.temperature;
  params.top_k = args.top_k;
  params.top_p = args.top_p;
  params.min_p = args.min_p;
  params.draw = uniform_draw(args.seed, args.position);
  return params;
}

bl_status launch(Queue& queue, const SampleParams& params, bl_error* error) {
  BL_RETURN_IF_ERROR(queue.launch(sampling_module, "sample_keys", over(queue, params.vocab), params, error));
  if (params.previous_count > 0) {
    BL_RETURN_IF_ERROR(
        queue.launch(sampling_module, "sample_penalize", over(queue, params.previous_count), params, error));
  }
  BL_RETURN_IF_ERROR(
      queue.launch(sampling_module, "sample_largest", over(queue, params.vocab), params, error));
  if (params.temperature == 0) return BL_STATUS_ok;
  LaunchShape mass;
  mass.grid.x = static_cast<uint32_t>(params.mass_blocks);
  mass.block.x = kSampleThreads;
  BL_RETURN_IF_ERROR(queue.launch(sampling_module, "sample_mass", mass, params, error));
  LaunchShape pick;
  pick.block.x = kPickThreads;
  return queue.launch(sampling_module, "sample_pick", pick, params, error);
}

}  // namespace

bl_status sample(Queue& queue, const bl_sample_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_element_alignment("sample", "logits", args.logits, error));
  BL_RETURN_IF_ERROR(check_element_alignment("sample", "previous", args.previous, error));
  SampleParams params = params_of(args);
  params.mass_blocks = ceil_div(params.vocab, kMassTokens);
  Scratch keys(queue), masses(queue), memory(queue);
  BL_RETURN_IF_ERROR(keys.allocate(static_cast<uint64_t>(params.vocab) * 8, error));
  BL_RETURN_IF_ERROR(masses.allocate(static_cast<uint64_t>(params.mass_blocks) * 8, error));
  BL_RETURN_IF_ERROR(memory.allocate(sizeof(SampleResult), error));
  params.keys = keys.as<uint64_t>();
  params.masses = masses.as<double>();
  params.result = memory.as<SampleResult>();
  BL_RETURN_IF_ERROR(queue.fill_zero(params.result, sizeof(SampleResult), error));
  BL_RETURN_IF_ERROR(launch(queue, params, error));
  SampleResult result{};
  BL_RETURN_IF_ERROR(queue.download(&result, params.result, sizeof(result), error));
  BL_RETURN_IF_ERROR(check_result(args, result, error));
  const bool greedy = args.temperature == 0;
  *args.token =
      greedy ? static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(result.largest)) : result.token;
  if (args.probability != nullptr) *args.probability = greedy ? 1.0f : result.probability;
  return BL_STATUS_ok;
}

}  // namespace bitloom::cuda
