// A topology that has been checked: its numbers are copied first, so that memory that changes meanwhile can
// lead nowhere.
#pragma once

#include <cstdint>
#include <vector>

#include "../../include/bitloom_block_sparse.h"

namespace bitloom {

// The blocks of a block-sparse matrix line by line: by rows, or by columns, which is by rows of its
// transpose.
struct Lines {
  std::vector<int32_t> starts;   // [lines + 1]: rows that each line covers
  std::vector<int32_t> offsets;  // [lines + 1]: into the next two
  std::vector<int32_t> blocks;   // numbers of blocks
  std::vector<int32_t> others;   // the lines of the other direction that they stand in

  int64_t count() const { return static_cast<int64_t>(starts.size()) - 1; }
  int64_t extent() const { return starts.back(); }
  int64_t size(int64_t line) const {
    return starts[static_cast<size_t>(line + 1)] - starts[static_cast<size_t>(line)];
  }
  // Whether both have blocks in the same lines of the other direction.
  bool alike(int64_t line, int64_t other) const;
  // The end of the lines from `line` on that are alike.
  int64_t strip_end(int64_t line) const;
};

struct Topology {
  Lines rows, columns;
  int64_t block_size;
};

// Copies and checks; `values`: the tensor of blocks, whose block size bounds those of lines.
bl_status read_topology(const char* op, const bl_topology& topology, const char* values_name,
                        const bl_tensor& values, Topology* out, bl_error* error);

}  // namespace bitloom
