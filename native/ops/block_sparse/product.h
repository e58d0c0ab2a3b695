// Matrix products whose operands and results lie in pieces: what grouped and block-sparse products have in
// common.
//
// Each product is brought before matmul's kernels for float weights (algorithm dequant in f32, tile in bf16):
// rows of a packed as activations, rows of b as panels of layout lanes16. So there is no inner loop here, and
// every level that matmul has is served.
#pragma once

#include <cstdint>
#include <vector>

#include "../../include/bitloom.h"

namespace bitloom {

// A rectangle of a matrix, and where its elements lie.
struct Piece {
  uint8_t* data;                      // its first element
  int64_t row_stride, column_stride;  // in elements
  int64_t row, column;                // of the matrix
  int64_t rows, columns;
};

// Pieces do not overlap and are ordered by row, then by column; what none covers is zero.
struct Matrix {
  int64_t first, count;  // pieces of Products
};

// c [m, n] = a [m, k] * b [n, k]^T
struct Product {
  int64_t m, n, k;
  Matrix a, b, c;
};

// The products of a call. Functions that add to it throw std::bad_alloc.
struct Products {
  int32_t a_dtype, b_dtype, c_dtype;
  int32_t compute;  // BL_COMPUTE_f32 or BL_COMPUTE_bf16
  std::vector<Piece> pieces = {};
  std::vector<Product> list = {};
  int64_t first = 0;  // piece of the matrix being made

  // One piece, the matrix itself: element [i, j] at data + i * row_stride + j * column_stride.
  Matrix whole(uint8_t* data, int64_t row_stride, int64_t column_stride, int64_t rows, int64_t columns);
  void begin() { first = static_cast<int64_t>(pieces.size()); }
  void add(const Piece& piece) { pieces.push_back(piece); }
  Matrix end() const { return {first, static_cast<int64_t>(pieces.size()) - first}; }
};

// Computes them all; results are complete, also where k is 0. Bits do not depend on threads, on other
// products, or on how a matrix is cut into pieces.
bl_status run_products(const char* op, const bl_run& run, const Products& products, bl_error* error);

// Rows [row, row + 16) of a to f32, [16][stride]; rows and columns that are not there are zero.
void load_rows(const Products& products, const Product& product, int64_t row, int64_t stride, float* rows);

struct PanelFormat;
using PackPanel = void (*)(const PanelFormat& f, const uint8_t* rows, int64_t row_bytes, int64_t count,
                           uint8_t* panel);
// Rows [row, row + 16) of b to a panel of format `f`, that of b's dtype with k columns.
void load_panel(const Products& products, const Product& product, int64_t row, const PanelFormat& f,
                PackPanel pack, uint8_t* panel);

// values [rows][stride] to rows [row, row + rows) and columns [column, column + columns) of c.
void store_result(const Products& products, const Product& product, int64_t row, int64_t rows, int64_t column,
                  int64_t columns, const float* values, int64_t stride);

// The format of weights that are floats of a dtype.
int32_t float_format(int32_t dtype);

}  // namespace bitloom
