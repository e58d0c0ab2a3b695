#include "additions.h"

#include <algorithm>
#include <cstring>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"

namespace bitloom {
namespace {

// Rows of down that are multiplied with a row of a at a time (RowKernels::dot4).
constexpr int64_t kDownRows = 4;
// Outliers of a row of b that are brought into place at a time.
constexpr int64_t kOutliers = 256;
// Rows of a that meet the outliers brought into place.
constexpr int64_t kSparseRows = 64;
// Multiply-adds below which waking other threads costs more than it brings.
constexpr int64_t kSerialWork = int64_t{1} << 18;

// down and up as [A, rows, columns].
bl_tensor three_axes(const bl_tensor& tensor) {
  if (tensor.rank == 3) return tensor;
  bl_tensor view = tensor;
  view.rank = 3;
  view.shape[0] = 1;
  view.strides[0] = 0;
  for (int axis = 0; axis < 2; ++axis) {
    view.shape[axis + 1] = tensor.shape[axis];
    view.strides[axis + 1] = tensor.strides[axis];
  }
  return view;
}

const uint8_t* element(const bl_tensor& t, int64_t i, int64_t j, int64_t k) {
  const int64_t offset = i * t.strides[0] + j * t.strides[1] + k * t.strides[2];
  return static_cast<const uint8_t*>(t.data) + offset * dtype_bytes(t.dtype);
}

}  // namespace

Additions::Additions(const bl_matmul_args& args, const Input& input, int64_t batches)
    : args_(args),
      kernels_(row_kernels(isa_of(args.run))),
      input_(&input),
      m_(input.rows()),
      columns_(input.columns()),
      n_(args.b.rows / batches),
      batches_(batches),
      sparse_(args.outlier_row_offsets.data != nullptr) {
  if (args.low_rank_down.data != nullptr) {
    const bl_tensor down = three_axes(args.low_rank_down);
    adapters_ = down.shape[0];
    rank_ = down.shape[1];
  }
  convert_ = any() && !input.lies_as_f32();
}

uint64_t Additions::shared_bytes() const {
  if (!any()) return 0;
  const uint64_t rows = convert_ ? align_up(static_cast<uint64_t>(m_ * columns_) * sizeof(float)) : 0;
  const uint64_t down =
      rank_ == 0 ? 0 : align_up(static_cast<uint64_t>(kDownRows * columns_) * sizeof(float));
  return rows + align_up(static_cast<uint64_t>(m_ * rank_) * sizeof(float)) +
         static_cast<uint64_t>(std::min<int64_t>(adapters_ * ((rank_ + kDownRows - 1) / kDownRows), 16)) *
             down;
}

uint64_t Additions::slot_bytes(int64_t width) const {
  // up, transposed; a row of it.
  return rank_ == 0 ? 0 : align_up(static_cast<uint64_t>(rank_ * (width + 1)) * sizeof(float));
}

int64_t Additions::adapter_of(int64_t m, int64_t batch) const {
  if (args_.low_rank_ids.data == nullptr) return batch;
  const int32_t id = load_as<int32_t>(static_cast<const uint8_t*>(args_.low_rank_ids.data) + 4 * m);
  // Checked before; once more, so that memory that changed since can not lead outside.
  return id < adapters_ ? id : -1;
}

void Additions::prepare(const bl_run& run_in, const Input& input, uint8_t* memory) {
  if (!any()) return;
  bl_run run = run_in;
  if (m_ * columns_ * std::max<int64_t>(rank_, 16) < kSerialWork) run.threads = 1;
  if (convert_) {
    float* rows = reinterpret_cast<float*>(memory);
    memory += align_up(static_cast<uint64_t>(m_ * columns_) * sizeof(float));
    parallel_for(run, std::min<int64_t>(m_, 16), [&](int64_t task) {
      const int64_t tasks = std::min<int64_t>(m_, 16);
      for (int64_t m = m_ * task / tasks; m < m_ * (task + 1) / tasks; ++m) {
        input.original(m, rows + m * columns_);
      }
    });
    rows_ = rows;
  }
  projected_ = reinterpret_cast<float*>(memory);
  if (rank_ > 0) project(run, memory + align_up(static_cast<uint64_t>(m_ * rank_) * sizeof(float)));
}

// Four rows of down at a time, so that each is brought to f32 once and a row of a is read a quarter as often.
void Additions::project(const bl_run& run, uint8_t* memory) {
  const int64_t quads = (rank_ + kDownRows - 1) / kDownRows;
  const int64_t pieces = adapters_ * quads;
  const int64_t tasks = std::min<int64_t>(pieces, 16);
  const uint64_t bytes = align_up(static_cast<uint64_t>(kDownRows * columns_) * sizeof(float));
  parallel_for(run, tasks, [&](int64_t task) {
    float* down = reinterpret_cast<float*>(memory + static_cast<uint64_t>(task) * bytes);
    for (int64_t piece = pieces * task / tasks; piece < pieces * (task + 1) / tasks; ++piece) {
      project_rows(piece / quads, piece % quads * kDownRows, down);
    }
  });
}

void Additions::project_rows(int64_t adapter, int64_t first, float* down) const {
  const bl_tensor view = three_axes(args_.low_rank_down);
  const int64_t count = std::min(kDownRows, rank_ - first);
  bool loaded = false;
  for (int64_t m = 0; m < m_; ++m) {
    if (adapter_of(m, m / (m_ / batches_)) != adapter) continue;
    for (int64_t r = 0; !loaded && r < kDownRows; ++r) {
      float* out = down + r * columns_;
      if (r < count) {
        load_values(view.dtype, element(view, adapter, first + r, 0), view.strides[2], columns_, out);
      } else {
        std::fill(out, out + columns_, 0.0f);
      }
    }
    loaded = true;
    float sums[kDownRows];
    kernels_.dot4(row(m), down, columns_, columns_, sums);
    for (int64_t r = 0; r < count; ++r) projected_[m * rank_ + first + r] = sums[r] * args_.low_rank_scale;
  }
}

void Additions::load_up(const Block& block, int64_t adapter, float* up, float* row) const {
  const bl_tensor view = three_axes(args_.low_rank_up);
  if (view.strides[1] == 1 || rank_ == 1) {  // columns of outputs lie side by side already
    for (int64_t r = 0; r < rank_; ++r) {
      load_values(view.dtype, element(view, adapter, block.n, r), view.strides[1], block.count,
                  up + r * block.count);
    }
    return;
  }
  for (int64_t n = 0; n < block.count; ++n) {
    load_values(view.dtype, element(view, adapter, block.n + n, 0), view.strides[2], rank_, row);
    for (int64_t r = 0; r < rank_; ++r) up[r * block.count + n] = row[r];
  }
}

void Additions::add_low_rank(const Block& block, bool first) const {
  float* up = reinterpret_cast<float*>(block.memory);
  float* buffer = up + rank_ * block.count;
  if (args_.low_rank_ids.data == nullptr) {
    if (first) load_up(block, adapter_of(0, block.batch), up, buffer);
    for (int64_t m = block.m.begin; m < block.m.end; ++m) {
      kernels_.add_products(up, block.count, projected_ + block.m[m] * rank_, rank_,
                            block.values + (m - block.m.begin) * block.stride, block.count);
    }
    return;
  }
  // Each adapter among these rows is loaded once, at the first row that has it.
  for (int64_t m = block.m.begin; m < block.m.end; ++m) {
    const int64_t adapter = adapter_of(block.m[m], block.batch);
    bool seen = adapter < 0;
    for (int64_t i = block.m.begin; !seen && i < m; ++i)
      seen = adapter_of(block.m[i], block.batch) == adapter;
    if (seen) continue;
    load_up(block, adapter, up, buffer);
    for (int64_t i = m; i < block.m.end; ++i) {
      if (adapter_of(block.m[i], block.batch) != adapter) continue;
      kernels_.add_products(up, block.count, projected_ + block.m[i] * rank_, rank_,
                            block.values + (i - block.m.begin) * block.stride, block.count);
    }
  }
}

void Additions::add_sparse(const Block& block) const {
  for (int64_t m = block.m.begin; m < block.m.end; m += kSparseRows) {
    add_sparse_rows(block, m, std::min(m + kSparseRows, block.m.end));
  }
}

void Additions::add_sparse_rows(const Block& block, int64_t begin, int64_t end) const {
  const float* rows[kSparseRows];
  for (int64_t m = begin; m < end; ++m) rows[m - begin] = row(block.m[m]);
  const uint8_t* offsets = static_cast<const uint8_t*>(args_.outlier_row_offsets.data);
  const uint8_t* columns = static_cast<const uint8_t*>(args_.outlier_columns.data);
  const bl_tensor& values = args_.outlier_values;
  const int64_t nnz = values.shape[0], bytes = dtype_bytes(values.dtype);
  const uint32_t last = static_cast<uint32_t>(columns_ - 1);
  for (int64_t n = 0; n < block.count; ++n) {
    const uint8_t* offset = offsets + 4 * (block.batch * n_ + block.n + n);
    // Offsets and columns were checked; clamped once more, so that memory that changed since can not lead
    // outside.
    const int64_t last_outlier = std::clamp<int64_t>(load_as<int32_t>(offset + 4), 0, nnz);
    for (int64_t i = std::max<int64_t>(load_as<int32_t>(offset), 0); i < last_outlier; i += kOutliers) {
      const int64_t count = std::min(kOutliers, last_outlier - i);
      int32_t at[kOutliers];
      float weights[kOutliers];
      std::memcpy(at, columns + 4 * i, static_cast<size_t>(4 * count));
      for (int64_t j = 0; j < count; ++j) {
        at[j] = static_cast<int32_t>(std::min(static_cast<uint32_t>(at[j]), last));
      }
      load_values(values.dtype, static_cast<const uint8_t*>(values.data) + i * bytes, 1, count, weights);
      for (int64_t m = begin; m < end; ++m) {
        block.values[(m - block.m.begin) * block.stride + n] +=
            kernels_.sparse_dot(rows[m - begin], at, weights, count);
      }
    }
  }
}

void Additions::add(const Block& block, bool first) const {
  if (rank_ > 0) add_low_rank(block, first);
  if (sparse_) add_sparse(block);
}

}  // namespace bitloom
