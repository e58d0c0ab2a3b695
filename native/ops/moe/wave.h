// Experts whose products run together.
#pragma once

#include <optional>

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

// Products of an expert one after the other. Those of full rank have the second and the last one only.
enum Stage : int {
  kReduce,  // x to narrow rows
  kFirst,   // gate and up to h
  kDown,    // h to narrow rows again, if expand follows
  kLast,    // down or expand, into the sums
  kStages
};

// Rows of one expert that pass together: input, what stands between, and the products.
struct Piece {
  Input x, reduced, h, contracted;
  StoreFinish store_reduced, store_contracted;
  ActivateFinish activate;
  AddFinish add;
  std::optional<Product> products[kStages];
  int64_t rows;

  Piece(const WaveCall& call, const bl_moe_expert& expert, const int32_t* tokens, const float* weights,
        int64_t rows);
  // `sharing`: how many pieces there are. The stage for which there is no kernel, or kStages.
  Stage plan(const WaveCall& call, int64_t sharing);
  // As messages name the matrix of a stage.
  const char* part(Stage stage) const;
  // Of what stands between the products.
  uint64_t between_bytes() const;
  void set_between(uint8_t* memory);
  uint64_t bytes() const;
  // Pieces of few rows are packed beside each other, by one thread each; others one after the other, by all.
  bool packs_alone() const { return rows < 64; }
};

uint64_t wave_bytes(const WaveCall& call, const Piece* pieces, int64_t count);
// What of that is beside the pieces' own bytes(), where `count` of them have slots of so many bytes.
uint64_t wave_overhead_bytes(const WaveCall& call, uint64_t slot_bytes, int64_t count);
void run_wave(const WaveCall& call, Piece* pieces, int64_t count, uint8_t* memory);

bool sums_lie_in_output(const bl_moe_forward_args& args);
// What sums begin with, and where they end.
void begin_sums(const WaveCall& call);
void end_sums(const WaveCall& call);

}  // namespace bitloom
