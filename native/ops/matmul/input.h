// matmul's activations before they are packed: rows of a in f32, as given and as the product wants them; or
// what bl_prepare_activations made of them, which has no floats any more.
#pragma once

#include "../../base/tensor.h"
#include "prepared.h"

namespace bitloom {

class Input {
 public:
  // `header`: of args.prepared, if it is given.
  Input(const bl_matmul_args& args, const PreparedHeader& header);
  // `count` rows of `a` as they are: row m is row gather[m] of it (null: row m). `gather` must outlive this.
  Input(const bl_tensor& a, const int32_t* gather, int64_t count);
  // Where the rows lie, if that was not known yet.
  void set_data(float* data) { a_.tensor.data = data; }

  int64_t rows() const { return a_.count; }
  int64_t columns() const { return a_.length; }  // of a
  // Activations that are prepared, else null: only rows(), columns() and the layout are to be asked for then.
  const uint8_t* prepared() const { return prepared_; }
  PreparedLayout prepared_layout() const { return {a_.count, a_.length, tables_}; }
  bool is_codes() const { return a_.tensor.dtype == BL_DTYPE_i8; }
  bool lies_as_f32() const { return !is_codes() && a_.count > 0 && a_.direct(0) != nullptr; }
  bool scale_per_row() const { return scale_groups_ == 1; }  // of codes

  // Row m as given, [columns()]: where it lies if that is contiguous f32, else in `buffer`.
  const float* original(int64_t m, float* buffer) const;
  // Row m with column_scale and column_order, [product_columns]; both buffers are [max(columns,
  // product_columns)].
  const float* arranged(int64_t m, float* buffer, float* second) const;
  // Row m of codes, ordered, to codes [product_columns]; its scales, one or one per 32, to scales.
  void codes(int64_t m, int8_t* codes, float* scales) const;
  // The first row with a code of -128, -1 if there is none.
  int64_t find_bad_row() const;
  // What stands at a[m, k] of codes.
  int8_t code_at(int64_t m, int64_t k) const;

 private:
  void load_codes(int64_t m, float* buffer) const;

  Rows a_;
  const int32_t* gather_ = nullptr;
  const uint8_t* prepared_;
  int32_t tables_;        // in prepared_
  Rows scales_;           // of codes: [rows][scale_groups_]
  int64_t scale_groups_;  // 1 or ceil(columns / 32)
  const void* column_scale_;
  const void* column_order_;
  int64_t product_columns_;
};

}  // namespace bitloom
