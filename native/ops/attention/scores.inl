// First part of the SIMD kernels' text, see online.inl: a task's workspace and the scores of a block of keys.

namespace {

constexpr int64_t kLanes = Vec::kLanes;
constexpr int64_t kBlock = 64;      // keys; 64 keys x 128 channels in f32 are 32 KB, scores 8 KB at 32 rows
constexpr int64_t kTileRows = 4;    // rows that share a load: 4 x 2 sums keep both FMA ports busy
constexpr int64_t kPanelRows = 16;  // from here on turning keys costs less than sums across lanes
constexpr int64_t kMaxRows = 32;

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Rows of a [*, heads, dim] view at one head, converted to f32 on load.
template <int32_t kType>
struct Source {
  const uint8_t* data;
  int64_t row_bytes;

  Source(const bl_tensor& tensor, int64_t head)
      : data(static_cast<const uint8_t*>(tensor.data) + head * tensor.strides[1] * kBytes),
        row_bytes(tensor.strides[0] * kBytes) {}
  Vec load(int64_t row, int64_t column) const { return load_vec<kType>(data + row * row_bytes + column * kBytes); }
  Vec load(int64_t row, int64_t column, int64_t count) const {
    return load_vec<kType>(data + row * row_bytes + column * kBytes, count);
  }
  static constexpr int64_t kBytes = kType == BL_DTYPE_f32 ? 4 : 2;
};

// Values of a block side by side in f32, padded to whole vectors.
struct CopiedValues {
  const float* data;
  int64_t stride;
  Vec load(int64_t row, int64_t column) const { return Vec::load(data + row * stride + column); }
  Vec load(int64_t row, int64_t column, int64_t) const { return load(row, column); }
};

// A task's part of the workspace, and the keys its rows see in the current block.
struct Work {
  int64_t rows;
  int64_t query_stride;  // padded head_dim
  int64_t value_stride;  // padded value_dim
  float* query;          // [rows][query_stride], times scale, zero padded
  float* sums;           // [rows][value_stride]
  float* scores;         // [rows][kBlock], then weights
  float* panels;         // [kBlock / kLanes][head_dim][kLanes]
  float* copies;         // [kBlock][value_stride]
  float row[kMaxRows][2];  // running maximum and sum of weights
  int64_t lo[kMaxRows], hi[kMaxRows];

  Work(const AttentionCall& call, const AttentionTask& task, uint8_t* memory)
      : rows((task.query_end - task.query_begin) * (task.head_end - task.head_begin)),
        query_stride(padded(call.head_dim)),
        value_stride(padded(call.value_dim)),
        query(reinterpret_cast<float*>(memory)),
        sums(query + rows * query_stride),
        scores(sums + rows * value_stride),
        panels(scores + rows * kBlock),
        copies(panels + kBlock * call.head_dim) {}
  bool many_rows() const { return rows >= kPanelRows; }
};

// ---- scores ----

template <int kRows, typename Keys>
inline void dot_rows(const Work& work, const Keys& keys, int64_t first_key, int64_t count, int64_t head_dim,
                     int64_t row) {
  const float* query = work.query + row * work.query_stride;
  float* scores = work.scores + row * kBlock;
  const int64_t whole = head_dim / kLanes * kLanes;
  for (int64_t s = 0; s < count; ++s) {
    Vec sum[kRows];
    for (Vec& each : sum) each = Vec::set(0);
    for (int64_t i = 0; i < whole; i += kLanes) {
      const Vec key = keys.load(first_key + s, i);
      for (int r = 0; r < kRows; ++r) sum[r] = fma(Vec::load(query + r * work.query_stride + i), key, sum[r]);
    }
    if (whole < head_dim) {
      const Vec key = keys.load(first_key + s, whole, head_dim - whole);
      for (int r = 0; r < kRows; ++r) sum[r] = fma(Vec::load(query + r * work.query_stride + whole), key, sum[r]);
    }
    for (int r = 0; r < kRows; ++r) scores[r * kBlock + s] = sum[r].reduce_add();
  }
}

template <typename Keys>
inline void turn_keys(const Work& work, const Keys& keys, int64_t first_key, int64_t count, int64_t head_dim) {
  for (int64_t s = 0; s < count; s += kLanes) {
    float* panel = work.panels + s * head_dim;
    const int64_t present = count - s < kLanes ? count - s : kLanes;
    for (int64_t i = 0; i < head_dim; i += kLanes) {
      const int64_t n = head_dim - i < kLanes ? head_dim - i : kLanes;
      Vec rows[kLanes];
      for (int64_t j = 0; j < kLanes; ++j) {
        // Lanes without a key are computed too and never read.
        rows[j] = j >= present  ? Vec::set(0)
                  : n == kLanes ? keys.load(first_key + s + j, i)
                                : keys.load(first_key + s + j, i, n);
      }
      transpose(rows);
      for (int64_t j = 0; j < n; ++j) rows[j].store(panel + (i + j) * kLanes);
    }
  }
}

template <int kRows, int kPanels>
inline void panel_rows(const Work& work, int64_t head_dim, int64_t row, int64_t panel) {
  const float* query = work.query + row * work.query_stride;
  const float* keys = work.panels + panel * head_dim * kLanes;
  Vec sum[kRows][kPanels];
  for (auto& each : sum) {
    for (Vec& one : each) one = Vec::set(0);
  }
  for (int64_t i = 0; i < head_dim; ++i) {
    Vec key[kPanels];
    for (int p = 0; p < kPanels; ++p) key[p] = Vec::load(keys + (p * head_dim + i) * kLanes);
    for (int r = 0; r < kRows; ++r) {
      const Vec channel = Vec::set(query[r * work.query_stride + i]);
      for (int p = 0; p < kPanels; ++p) sum[r][p] = fma(channel, key[p], sum[r][p]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int p = 0; p < kPanels; ++p) sum[r][p].store(work.scores + (row + r) * kBlock + (panel + p) * kLanes);
  }
}

template <int kRows>
inline void all_panels(const Work& work, int64_t head_dim, int64_t row, int64_t count) {
  const int64_t panels = (count + kLanes - 1) / kLanes;
  int64_t panel = 0;
  for (; panel + 2 <= panels; panel += 2) panel_rows<kRows, 2>(work, head_dim, row, panel);
  if (panel < panels) panel_rows<kRows, 1>(work, head_dim, row, panel);
}

// Calls f with an integral constant 1 to kTileRows for each tile of rows.
template <typename Body>
inline void for_row_tiles(int64_t rows, Body&& body) {
  int64_t row = 0;
  for (; row + kTileRows <= rows; row += kTileRows) body(std::integral_constant<int, 4>{}, row);
  if (rows - row == 3) body(std::integral_constant<int, 3>{}, row);
  if (rows - row == 2) body(std::integral_constant<int, 2>{}, row);
  if (rows - row == 1) body(std::integral_constant<int, 1>{}, row);
}

template <typename Keys>
void score(const Work& work, const Keys& keys, int64_t first_key, int64_t count, int64_t head_dim) {
  const bool turned = work.many_rows();
  if (turned) turn_keys(work, keys, first_key, count, head_dim);
  for_row_tiles(work.rows, [&](auto size, int64_t row) {
    if (turned) {
      all_panels<size()>(work, head_dim, row, count);
    } else {
      dot_rows<size()>(work, keys, first_key, count, head_dim, row);
    }
  });
}

}  // namespace
