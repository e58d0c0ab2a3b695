// One matrix product of the rows that go to one expert.
#pragma once

#include <optional>

#include "../matmul/units.h"

namespace bitloom {

// Memory is the caller's: bytes() for the activations, plan().slot_bytes() for each slot.
class Product {
 public:
  // Of `first`, or of gate `first` and up `second` side by side, which have one format and one shape.
  explicit Product(const bl_weights& first, const bl_weights* second = nullptr);

  // Chooses a kernel for as many rows as `input` has; `input` and `finish` must outlive this. sharing: how
  // many products of this size run together. False: there is none for the call's algorithm.
  bool plan(const bl_matmul_args& call, const Input& input, const Finish& finish, int64_t sharing);
  // One thread packs, which needs less memory.
  void pack_alone();

  const WeightsView& weights() const { return views_[0]; }
  const Plan& plan() const { return *plan_; }
  uint64_t bytes() const { return plan_->shared_bytes(); }

  // Brings the activations into the kernel's form.
  void pack(const bl_matmul_args& call, uint8_t* memory);
  // After pack(): tasks, each a block of rows and a unit of columns.
  int64_t tasks() const { return plan_->units * (blocks(0) + blocks(1)); }
  // Task `begin` and those that stand beside it, at most to `end`; gives the first that is left.
  int64_t run(int64_t begin, int64_t end, uint8_t* slot) const;
  // All rows, columns [n, n_end); n a multiple of 16.
  void run_rows(int64_t n, int64_t n_end, uint8_t* slot) const;

 private:
  const MatmulKernelRow& kernel(int pass) const { return pass == 0 ? plan_->kernel : *plan_->spare; }
  int64_t blocks(int pass) const {
    return counts_[pass] == 0 ? 0 : plan_->blocks(counts_[pass], kernel(pass));
  }
  void run_block(int pass, int64_t block, int64_t n, int64_t count, uint8_t* slot) const;

  WeightsView views_[2];
  const Input* input_ = nullptr;
  const Finish* finish_ = nullptr;
  std::optional<Plan> plan_;
  PackPanel pack_ = nullptr;
  // Of the kernel, and of the spare one for rows that it leaves out.
  Activations packed_[2] = {};
  int64_t counts_[2] = {};
  const int64_t* rows_[2] = {};  // which rows; null: all in order
};

}  // namespace bitloom
