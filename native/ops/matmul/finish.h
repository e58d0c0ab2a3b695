// What happens to a finished tile of products.
#pragma once

#include "additions.h"

namespace bitloom {

// Columns [n, n + count) of rows `m` of c, within one batch. Part p of the
// products stands `part_stride` columns after part p - 1.
struct Products {
  float* values;  // [m.end - m.begin][stride]; used up
  int64_t stride, part_stride;
  RowRange m;
  int64_t batch, n, count;
  uint8_t* memory;  // of the slot, Finish::slot_bytes
  bool first;       // of the calls with these columns
};

class Finish {
 public:
  virtual ~Finish() = default;
  // Rows of b for an output: 2 where gate and up meet.
  virtual int64_t parts() const = 0;
  // Columns that must be written together.
  virtual int64_t granularity() const = 0;
  // Memory for parts of `width` columns.
  virtual uint64_t slot_bytes(int64_t width) const = 0;
  virtual void store(const Products& products) const = 0;
};

}  // namespace bitloom
