// Experts whose products run together.
#pragma once

#include "../../base/scratch.h"
#include "expert_finish.h"
#include "product.h"

namespace bitloom {

struct WaveCall {
  const bl_moe_forward_args& args;
  const bl_matmul_args& common;  // what all products have in common
  const ExpertKernels& kernels;
  SumRows sums;  // [tokens, hidden]
  bool direct;   // they are the output
};

// Rows of one expert that pass together: input, what stands between, and both products.
struct Piece {
  Input x, h;
  ActivateFinish activate;
  AddFinish add;
  Product first, down;
  int64_t rows, width;

  Piece(const WaveCall& call, const bl_moe_expert& expert, const int32_t* tokens, const float* weights,
        int64_t rows);
  // `sharing`: how many pieces there are. The name of the part for which there is no kernel, or null.
  const char* plan(const WaveCall& call, int64_t sharing);
  uint64_t hidden_bytes() const { return align_up(static_cast<uint64_t>(rows * width) * sizeof(float)); }
  uint64_t bytes() const { return hidden_bytes() + first.bytes() + down.bytes(); }
  // Pieces of few rows are packed beside each other, by one thread each; others one after the other, by all.
  bool packs_alone() const { return rows < 64; }
};

uint64_t wave_bytes(const WaveCall& call, const Piece* pieces, int64_t count);
void run_wave(const WaveCall& call, Piece* pieces, int64_t count, uint8_t* memory);

bool sums_lie_in_output(const bl_moe_forward_args& args);
// What sums begin with, and where they end.
void begin_sums(const WaveCall& call);
void end_sums(const WaveCall& call);

}  // namespace bitloom
