// linear_attention at every level of this machine against level scalar.
#pragma once

#include "bitloom_attention.h"
#include "levels.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

// `axes` of the log decays: 0 none, 1 a head, 2 a token, 3 a channel. Keys have length about 1, so that no
// sum of the delta rule grows; bound as in test/linear_attention, of the largest value of the output or
// state.
inline void linear_attention(Random& random, int32_t rule, int axes, int64_t tokens, int64_t key_dim) {
  const int64_t heads = 4, kv_heads = 2, value_dim = 21;
  std::vector<float> q = random.gaussians(tokens * heads * key_dim),
                     k = random.gaussians(tokens * kv_heads * key_dim),
                     v = random.gaussians(tokens * kv_heads * value_dim), logs, beta;
  for (float& value : k) value /= std::sqrt(static_cast<float>(key_dim));
  const std::vector<int64_t> shapes[] = {{}, {kv_heads}, {tokens, kv_heads}, {tokens, kv_heads, key_dim}};
  int64_t count = 1;
  for (const int64_t size : shapes[axes]) count *= size;
  logs = random.gaussians(count);
  beta = random.gaussians(tokens * kv_heads);
  for (float& value : logs) value = -0.5f * std::fabs(value);
  for (float& value : beta) value = 1 / (1 + std::fabs(value));
  const std::vector<float> state = random.gaussians(kv_heads * key_dim * value_dim);
  const size_t outputs = static_cast<size_t>(tokens * heads * value_dim);
  std::vector<float> want;
  std::vector<int32_t> levels = levels_here();
  levels.insert(levels.begin(), BL_ISA_scalar);
  for (const int32_t isa : levels) {
    std::vector<float> got(outputs, -7.0f), after = state;
    bl_linear_attention_args args{};
    args.size = sizeof(args);
    args.run = run_at(isa);
    args.q = floats(q, {tokens, heads, key_dim});
    args.k = floats(k, {tokens, kv_heads, key_dim});
    args.v = floats(v, {tokens, kv_heads, value_dim});
    args.output = floats(got, {tokens, heads, value_dim});
    args.state = floats(after, {1, kv_heads, key_dim, value_dim});
    if (axes > 0) args.decay = floats(logs, shapes[axes]);
    if (rule == BL_LINEAR_delta) args.beta = floats(beta, {tokens, kv_heads});
    args.rule = rule;
    bl_error error{};
    check(bl_linear_attention(&args, &error) == BL_STATUS_ok, error.message);
    got.insert(got.end(), after.begin(), after.end());
    if (isa == BL_ISA_scalar) want = got;
    double largest = 0, worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      largest = std::max(largest, std::fabs(static_cast<double>(want[i])));
      worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
    }
    check(worst <= (8 + static_cast<double>(key_dim + tokens) / 8) * 0x1p-24 * largest,
          std::string("linear_attention at ") + bl_isa_name(isa) + ", rule " + std::to_string(rule) +
              ", decay axes " + std::to_string(axes) + ", tokens " + std::to_string(tokens) + ", key_dim " +
              std::to_string(key_dim));
  }
}

inline void linear_attention_all(Random& random) {
  for (const int32_t rule : {BL_LINEAR_decay, BL_LINEAR_delta}) {
    for (const int axes : {0, 1, 2, 3}) {
      for (const int64_t key_dim : {1, 7, 16, 33}) {
        linear_attention(random, rule, axes, 1, key_dim);
        linear_attention(random, rule, axes, 5 + random.below(120), key_dim);
      }
    }
  }
}
