// Calls of operators for mutation tests.
#pragma once

#include <functional>

#include "attention_calls.h"
#include "mutation_calls.h"

namespace bitloom::cuda::testing {

// What goes with a product.
enum class Around { bias, gates, everything };
struct Product {
  int64_t m, n, k;
  int32_t a = BL_DTYPE_f16;
  Around around = Around::bias;
  int32_t multiprocessors = 0;                  // 1: no splits of K
  int32_t compute = BL_COMPUTE_f32, group = 0;  // a bl_activation_group
  int32_t activation = BL_ACTIVATION_silu;      // of everything
  int32_t tables = 3;                           // of cbs formats; 1: a choice among one
};

Run product(const char* format, Product it);
// With int8 activations.
Run int8_product(const char* format, Product it);
// One of the smallest, not split, with an activation of its own: its choice is a search among their numbers.
Product activated(int64_t m, int32_t activation, int32_t group = 0);

struct Finished {
  int64_t m, n, k;
  bool gates = false;
  int32_t activation = BL_ACTIVATION_none, c = BL_DTYPE_f32;
  bool c_scales = false;
  int64_t rank = 5;
  int32_t outliers = 3;       // of the first row
  int64_t outliers_from = 0;  // the first row that has any
};

// With low-rank terms of adapters and sparse terms, whose numbers go beyond what there is at both ends.
Run finished(Finished it);
// Fewer blocks than matmul launches for so many rows, which are taken in turns, as of 4 * 65535 and more.
Run finished_in_turns(bool gates, int32_t c_type);

// What becomes of a before a product.
struct Prepared {
  int32_t compute, group;
  const char* format;
  int32_t a;              // type; codes have scales
  int64_t scale_columns;  // of codes; 0: of all columns
  int64_t k;
  bool picked = false, scaled = false,
       strided = false;  // picked: by numbers of columns, of which some are beyond a's
};
// Rows of numbers of which 1.75 is the largest, of zeros, of very small ones, and with the largest in each
// 256 columns.
Run prepared(Prepared it);
// Every kind of a, of so many columns.
std::vector<Run> all_prepared(int32_t compute, int32_t group, const char* format,
                              const std::vector<int64_t>& columns);

// With a low-rank term, of all rows or by adapters, of which some do not exist.
Run adapted(int32_t a_type, int64_t scale_columns, int32_t down_type, int64_t k, bool by_row);

// nan_rows: the even (0) or odd (1) rows of q are NaN, so that it shows who reads on into the next one.
// excess: how far the number of keys in device memory is off. slope: scores rise (1) or fall (-1) from key to
// key, so that the last or the first that is seen is the largest.
Run attended(AttentionCase c, int64_t nan_rows = -1, int32_t excess = 0, int32_t slope = 0);

struct Sampled {
  int64_t vocab;
  float temperature = 1;
  int32_t top_k = 0;
  float top_p = 0, min_p = 0;
  int64_t previous = 3;  // ids, the last of them the vocabulary's last
};
Run sampled(Sampled it, const std::function<float(int64_t, Random&)>& logit);
// Logits in [least, least + 2 * scale].
Run drawn(Sampled it, float scale, float least);
// One candidate more than a batch holds, of which some are `above` the others. These begin with the digits 1
// to 6 behind the exponent, so that the search for a batch comes to an end in another digit of each pass.
Run searched(int64_t above);
// Logits of 0 for the first `equal` ids; behind them of 1 for the next `above`, and of -1.
Run levelled(Sampled it, int64_t equal, int64_t above = 0);
// The draw alone, of equal candidates: as many masses as of 2048 tokens and more for each thread, which are
// more than the candidates' weights by what could be rounding, so that the last candidate stands for what is
// missing.
Run picked(int64_t candidates);

Run normalized(int64_t length);

// Operators over rows.
enum class RowOp { copy, silu, swiglu, rms_norm, layer_norm, softmax };
struct Rows {
  std::vector<int64_t> shape;
  int32_t from = BL_DTYPE_f32, to = BL_DTYPE_f32;
};
// Rows apart from each other, so that no two axes are one: of integers up to 400, or hundredths of them. The
// second row of a norm leaves the range of f32's squares.
Run over_rows(RowOp op, Rows rows);
// One row, and rows of one, two and three axes.
std::vector<Run> views(RowOp op, int64_t length, int32_t from = BL_DTYPE_f32, int32_t to = BL_DTYPE_f32);
// The same of up to two axes, with one block along a row and with as many as fit (recording.h).
std::vector<Run> turns(RowOp op, int64_t length, int32_t from = BL_DTYPE_f32, int32_t to = BL_DTYPE_f32);
// x: [tokens, 2, 2 * pairs].
Run rotated(int64_t tokens, int64_t pairs, int32_t type, int32_t mode);

// Rows apart from each other.
Run quantized(int32_t format, int64_t columns, int32_t from);

}  // namespace bitloom::cuda::testing
