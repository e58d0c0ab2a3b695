#include "../../call.h"

namespace bitloom::node {

// sample(logits, previous | undefined, temperature, topK, topP, minP, repetitionPenalty, seed, position,
//        token: Int32Array(1), probability: Float32Array(1), run)
bool read_sample(Arguments& arguments, bl_sample_args* args) {
  void* token = nullptr;
  void* probability = nullptr;
  const bool ok =
      arguments.tensor("logits", &args->logits) && arguments.optional_tensor("previous", &args->previous) &&
      arguments.number("temperature", &args->temperature) && arguments.integer("topK", &args->top_k) &&
      arguments.number("topP", &args->top_p) && arguments.number("minP", &args->min_p) &&
      arguments.number("repetitionPenalty", &args->repetition_penalty) &&
      arguments.bits64("seed", &args->seed) && arguments.bits64("position", &args->position) &&
      arguments.memory("token", sizeof(int32_t), &token) &&
      arguments.memory("probability", sizeof(float), &probability);
  args->token = static_cast<int32_t*>(token);
  args->probability = static_cast<float*>(probability);
  return ok;
}

}  // namespace bitloom::node
