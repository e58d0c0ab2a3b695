#include "routes.h"

#include <algorithm>
#include <cstring>

#include "../../base/scratch.h"
#include "../../base/tensor.h"

namespace bitloom {

namespace {

// A route as it is sorted: its expert, then its number t * top_k + k.
constexpr uint64_t key_of(int64_t expert, int64_t route) {
  return static_cast<uint64_t>(expert) << 32 | static_cast<uint64_t>(route);
}
constexpr int64_t expert_of(uint64_t key) { return static_cast<int64_t>(key >> 32); }
constexpr int64_t route_of(uint64_t key) { return static_cast<int64_t>(key & 0xffffffffu); }

int64_t routed(const bl_moe_forward_args& args) { return args.indices.shape[0] * args.indices.shape[1]; }
int64_t all_routes(const bl_moe_forward_args& args) {
  return routed(args) + args.indices.shape[0] * args.num_shared;
}

const uint8_t* element(const bl_tensor& tensor, int64_t i, int64_t j) {
  return static_cast<const uint8_t*>(tensor.data) + 4 * (i * tensor.strides[0] + j * tensor.strides[1]);
}

bl_status read_keys(const bl_moe_forward_args& args, uint64_t* keys, int64_t* count, bl_error* error) {
  const int64_t tokens = args.indices.shape[0], top_k = args.indices.shape[1];
  int64_t n = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t k = 0; k < top_k; ++k) {
      int32_t expert = 0;
      std::memcpy(&expert, element(args.indices, t, k), sizeof(expert));
      BL_CHECK(expert >= -1 && expert < args.num_experts, out_of_range,
               "moe_forward: indices[%lld, %lld] is %d, expected -1 to %lld", static_cast<long long>(t),
               static_cast<long long>(k), expert, static_cast<long long>(args.num_experts - 1));
      if (expert >= 0) keys[n++] = key_of(expert, t * top_k + k);
    }
  }
  *count = n;
  return BL_STATUS_ok;
}

// By counting where there are at least as many routes as experts, so that no memory grows with the experts.
void sort_keys(int64_t experts, uint64_t* keys, int64_t count, uint64_t* spare, int32_t* begins) {
  if (experts > count) {
    std::sort(keys, keys + count);
    return;
  }
  std::fill(begins, begins + experts, 0);
  for (int64_t i = 0; i < count; ++i) ++begins[expert_of(keys[i])];
  int32_t before = 0;
  for (int64_t e = 0; e < experts; ++e) {
    const int32_t own = begins[e];
    begins[e] = before;
    before += own;
  }
  for (int64_t i = 0; i < count; ++i) spare[begins[expert_of(keys[i])]++] = keys[i];
  std::copy(spare, spare + count, keys);
}

}  // namespace

uint64_t sorted_routes_bytes(const bl_moe_forward_args& args) {
  const uint64_t routes = static_cast<uint64_t>(all_routes(args));
  const uint64_t experts = static_cast<uint64_t>(std::min(routed(args), args.num_experts) + args.num_shared);
  return 3 * align_up(routes * 4) + 2 * align_up(routes * 8) + align_up(experts * sizeof(ExpertRows));
}

bl_status sort_routes(const bl_moe_forward_args& args, uint8_t* memory, SortedRoutes* sorted,
                      bl_error* error) {
  const int64_t tokens = args.indices.shape[0], top_k = args.indices.shape[1];
  const uint64_t routes = static_cast<uint64_t>(all_routes(args));
  const auto take = [&memory](uint64_t bytes) {
    uint8_t* taken = memory;
    memory += align_up(bytes);
    return taken;
  };
  sorted->tokens = reinterpret_cast<int32_t*>(take(routes * 4));
  sorted->weights = reinterpret_cast<float*>(take(routes * 4));
  int32_t* begins = reinterpret_cast<int32_t*>(take(routes * 4));
  uint64_t* keys = reinterpret_cast<uint64_t*>(take(routes * 8));
  uint64_t* spare = reinterpret_cast<uint64_t*>(take(routes * 8));
  sorted->of = reinterpret_cast<ExpertRows*>(memory);
  int64_t count = 0, experts = 0;
  BL_RETURN_IF_ERROR(read_keys(args, keys, &count, error));
  sort_keys(args.num_experts, keys, count, spare, begins);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t route = route_of(keys[i]), expert = expert_of(keys[i]);
    sorted->tokens[i] = static_cast<int32_t>(route / top_k);
    std::memcpy(sorted->weights + i, element(args.weights, route / top_k, route % top_k), sizeof(float));
    if (experts == 0 || sorted->of[experts - 1].expert != expert) sorted->of[experts++] = {expert, i, 0};
    ++sorted->of[experts - 1].count;
  }
  for (int64_t shared = 0; shared < args.num_shared && tokens > 0; ++shared) {
    sorted->of[experts++] = {args.num_experts + shared, count, tokens};
    for (int64_t t = 0; t < tokens; ++t, ++count) {
      sorted->tokens[count] = static_cast<int32_t>(t);
      sorted->weights[count] = 1;
      if (args.shared_weights.data == nullptr) continue;
      std::memcpy(sorted->weights + count, element(args.shared_weights, t, shared), sizeof(float));
    }
  }
  sorted->count = count;
  sorted->experts = experts;
  return BL_STATUS_ok;
}

}  // namespace bitloom
