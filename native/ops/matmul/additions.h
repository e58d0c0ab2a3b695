// Terms that are added to a product: low-rank ones and sparse ones, from the activations as they are given.
#pragma once

#include "../../base/tensor.h"
#include "input.h"
#include "row_kernels.h"

namespace bitloom {

// Rows of c: the i-th of them is row i of a, or rows[i] where rows is not null, begin <= i < end.
struct RowRange {
  int64_t begin, end;
  const int64_t* rows;
  int64_t operator[](int64_t i) const { return rows == nullptr ? i : rows[i]; }
};

class Additions {
 public:
  // Reads the arguments only; prepare() does the work.
  Additions(const bl_matmul_args& args, const Input& input, int64_t batches);

  bool any() const { return rank_ > 0 || sparse_; }
  // Workspace of the whole call, and of each slot that columns of `width` are added in.
  uint64_t shared_bytes() const;
  uint64_t slot_bytes(int64_t width) const;

  // Brings rows of a into f32 where they are not, and computes low_rank_scale * down x for each of them.
  void prepare(const bl_run& run, const Input& input, uint8_t* memory);

  // Where values lie: rows `m` of a, batch `batch`, rows [n, n + count) of b within it.
  struct Block {
    RowRange m;
    int64_t batch, n, count;
    float* values;  // [m.end - m.begin][stride]
    int64_t stride;
    uint8_t* memory;  // slot_bytes(at least count)
  };
  // Adds to block.values. `first` says that the slot's memory holds nothing of these columns yet.
  void add(const Block& block, bool first) const;

 private:
  int64_t adapter_of(int64_t m, int64_t batch) const;
  void project(const bl_run& run, uint8_t* memory);
  void project_rows(int64_t adapter, int64_t first_rank, float* down) const;
  void load_up(const Block& block, int64_t adapter, float* up, float* row) const;
  void add_low_rank(const Block& block, bool first) const;
  void add_sparse(const Block& block) const;
  void add_sparse_rows(const Block& block, int64_t begin, int64_t end) const;
  const float* row(int64_t m) const {
    return rows_ == nullptr ? input_->original(m, nullptr) : rows_ + m * columns_;
  }

  const bl_matmul_args& args_;
  const RowKernels& kernels_;
  const Input* input_;
  int64_t m_, columns_;  // rows and columns of a
  int64_t n_;            // rows of b per batch
  int64_t batches_;
  int64_t rank_ = 0, adapters_ = 1;
  bool sparse_;
  bool convert_;                 // rows of a are not f32 as they lie
  const float* rows_ = nullptr;  // [m_][columns_] if convert_
  float* projected_ = nullptr;   // [m_][rank_]
};

}  // namespace bitloom
