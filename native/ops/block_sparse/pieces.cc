// Pieces to what kernels read, and results back.
#include <algorithm>
#include <cstring>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "../../formats/panel.h"
#include "product.h"

namespace bitloom {

namespace {

// The pieces of a matrix from the one on that reaches below `row`.
struct Span {
  const Piece *begin, *end;
};
Span from_row(const Products& products, const Matrix& matrix, int64_t row) {
  const Piece* begin = products.pieces.data() + matrix.first;
  const Piece* end = begin + matrix.count;
  begin = std::partition_point(begin, end, [row](const Piece& p) { return p.row + p.rows <= row; });
  return {begin, end};
}

// What a piece has of rows [row, row_end).
struct Part {
  const uint8_t* data;
  int64_t begin, rows;  // begin: counted from `row`
};
Part part_of(const Piece& piece, int64_t row, int64_t row_end, int64_t bytes) {
  const int64_t begin = std::max(piece.row, row), end = std::min(piece.row + piece.rows, row_end);
  return {piece.data + (begin - piece.row) * piece.row_stride * bytes, begin - row, end - begin};
}

// Sixteen rows whose elements lie side by side column by column: by squares, so that each line is read once.
void load_across(int32_t dtype, const Part& part, const Piece& piece, int64_t stride, float* rows) {
  const int64_t step = piece.column_stride * dtype_bytes(dtype);
  alignas(64) float square[kPanelRows][kPanelRows] = {};
  for (int64_t first = 0; first < piece.columns; first += kPanelRows) {
    const int64_t count = std::min(kPanelRows, piece.columns - first);
    for (int64_t j = 0; j < count; ++j) {
      load_values(dtype, part.data + (first + j) * step, 1, part.rows, square[j]);
    }
    float* to = rows + piece.column + first;
    for (int64_t i = 0; i < part.rows; ++i) {
      for (int64_t j = 0; j < count; ++j) to[(part.begin + i) * stride + j] = square[j][i];
    }
  }
}

// Where column k of a lane stands in a panel of floats: 4 bytes of each row after the other (panel.h).
inline int64_t place(int64_t bytes, int64_t k, int64_t lane) {
  return bytes == 4 ? (k * kPanelRows + lane) * 4 : (k / 2 * kPanelRows + lane) * 4 + k % 2 * 2;
}

template <int64_t kBytes>
void place_lanes(const Part& part, const Piece& piece, uint8_t* panel) {
  for (int64_t k = 0; k < piece.columns; ++k) {
    const uint8_t* from = part.data + k * piece.column_stride * kBytes;
    uint8_t* to = panel + place(kBytes, piece.column + k, part.begin);
    if (kBytes == 4 && piece.row_stride == 1) {
      std::memcpy(to, from, static_cast<size_t>(part.rows) * 4);
      continue;
    }
    for (int64_t i = 0; i < part.rows; ++i) {
      std::memcpy(to + 4 * i, from + i * piece.row_stride * kBytes, kBytes);
    }
  }
}

}  // namespace

int32_t float_format(int32_t dtype) {
  return dtype == BL_DTYPE_f32 ? BL_FORMAT_f32 : dtype == BL_DTYPE_f16 ? BL_FORMAT_f16 : BL_FORMAT_bf16;
}

Matrix Products::whole(uint8_t* data, int64_t row_stride, int64_t column_stride, int64_t rows,
                       int64_t columns) {
  begin();
  if (rows > 0 && columns > 0) add({data, row_stride, column_stride, 0, 0, rows, columns});
  return end();
}

void load_rows(const Products& products, const Product& product, int64_t row, int64_t stride, float* rows) {
  std::memset(rows, 0, static_cast<size_t>(kPanelRows * stride) * sizeof(float));
  const int64_t bytes = dtype_bytes(products.a_dtype);
  const int64_t row_end = std::min(row + kPanelRows, product.m);
  const Span span = from_row(products, product.a, row);
  for (const Piece* piece = span.begin; piece != span.end && piece->row < row_end; ++piece) {
    const Part part = part_of(*piece, row, row_end, bytes);
    if (piece->row_stride == 1 && piece->column_stride != 1) {
      load_across(products.a_dtype, part, *piece, stride, rows);
      continue;
    }
    for (int64_t i = 0; i < part.rows; ++i) {
      load_values(products.a_dtype, part.data + i * piece->row_stride * bytes, piece->column_stride,
                  piece->columns, rows + (part.begin + i) * stride + piece->column);
    }
  }
}

void load_panel(const Products& products, const Product& product, int64_t row, const PanelFormat& f,
                PackPanel pack, uint8_t* panel) {
  std::memset(panel, 0, static_cast<size_t>(f.panel_bytes));
  const int64_t bytes = dtype_bytes(products.b_dtype);
  const int64_t row_end = std::min(row + kPanelRows, product.n);
  const Span span = from_row(products, product.b, row);
  PanelFormat own = f;  // of the piece at hand
  for (const Piece* piece = span.begin; piece != span.end && piece->row < row_end; ++piece) {
    const Part part = part_of(*piece, row, row_end, bytes);
    // matmul's packing of rows that lie as weights do. It writes whole chunks of all lanes, zeros where
    // nothing is: pieces below and to the right come later.
    if (piece->column_stride == 1 && part.begin == 0 && piece->column % kChunk == 0) {
      if (own.cols != piece->columns) own = panel_format(f.format, piece->columns, {nullptr, 1});
      pack(own, part.data, piece->row_stride * bytes, part.rows, panel + piece->column * kPanelRows * bytes);
    } else if (bytes == 4) {
      place_lanes<4>(part, *piece, panel);
    } else {
      place_lanes<2>(part, *piece, panel);
    }
  }
}

void store_result(const Products& products, const Product& product, int64_t row, int64_t rows, int64_t column,
                  int64_t columns, const float* values, int64_t stride) {
  const int64_t bytes = dtype_bytes(products.c_dtype);
  const Span span = from_row(products, product.c, row);
  for (const Piece* piece = span.begin; piece != span.end && piece->row < row + rows; ++piece) {
    const int64_t first = std::max(piece->column, column);
    const int64_t last = std::min(piece->column + piece->columns, column + columns);
    if (first >= last) continue;
    const int64_t begin = std::max(piece->row, row), end = std::min(piece->row + piece->rows, row + rows);
    for (int64_t i = begin; i < end; ++i) {
      uint8_t* to =
          piece->data +
          ((i - piece->row) * piece->row_stride + (first - piece->column) * piece->column_stride) * bytes;
      store_values(products.c_dtype, to, piece->column_stride, last - first,
                   values + (i - row) * stride + first - column);
    }
  }
}

}  // namespace bitloom
