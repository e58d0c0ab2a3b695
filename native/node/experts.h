// The experts of a mixture in JavaScript: read once, so that a call of moeForward passes one value for
// hundreds of weights. An object holds the memory of all of them.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "../include/bitloom_moe.h"
#include "hold_memory.h"

namespace bitloom::node {

struct ExpertTable {
  std::vector<bl_moe_expert> experts;
  std::vector<std::vector<BackingStore>> memory;  // of each
};

// The table of a value that createExperts() made, null if it is another value or was disposed.
std::shared_ptr<ExpertTable> experts_of(napi_env env, napi_value value);

void init_experts(Napi::Env env, Napi::Object exports);

}  // namespace bitloom::node
