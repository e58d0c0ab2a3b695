// The rows of a task, which keys they see, and what is done to their scores. Included inside an ISA region after units.inl.

namespace {

constexpr float kMinusInfinity = -__builtin_inff();

struct Row {
  int64_t sequence, query, head;  // query within its sequence
  int64_t queries, keys;          // of its sequence
  Sight sight;
};

// 1 - 2 / (exp(2 x) + 1): within 2^-22 of tanh.
inline Vec tanh(Vec x) {
  const Vec e = exp(x + x);
  return Vec::set(1) - Vec::set(2) / (e + Vec::set(1));
}

// Soft cap, slope and mask of a row's scores; first: the tile's first key in the sequence.
void add_terms(const AttentionCall& call, const Row& row, int64_t first, int64_t count, float* scores) {
  alignas(64) float distance[kLanes];
  const int64_t diagonal = row.query + row.keys - row.queries;
  for (int64_t s = 0; s < count; s += kLanes) {
    Vec x = Vec::load(scores + s);
    if (call.soft_cap != 0) x = Vec::set(call.soft_cap) * tanh(x / Vec::set(call.soft_cap));
    if (call.slopes != nullptr) {
      for (int64_t j = 0; j < kLanes; ++j) {
        distance[j] = static_cast<float>(std::abs(diagonal - (first + s + j)));
      }
      x = x - Vec::set(call.slopes[row.head]) * Vec::load(distance);
    }
    x.store(scores + s);
  }
  const bl_tensor& mask = call.mask;
  if (mask.data == nullptr || mask.dtype != BL_DTYPE_f32) return;
  const int64_t before = row.keys - mask.shape[2];  // keys that it says nothing of
  const float* added = static_cast<const float*>(mask.data) + (mask.shape[0] == 1 ? 0 : row.head) * mask.strides[0] +
                       (call.first_query(row.sequence) + row.query) * mask.strides[1];
  for (int64_t s = before > first ? before - first : 0; s < count; ++s) {
    scores[s] += added[(first + s - before) * mask.strides[2]];
  }
}

inline uint64_t bits_between(int64_t begin, int64_t end) {
  begin = begin < 0 ? 0 : begin;
  end = end > kKeyTile ? kKeyTile : end;
  if (begin >= end) return 0;
  const uint64_t upto = end == kKeyTile ? ~uint64_t{0} : (uint64_t{1} << end) - 1;
  return upto & ~((uint64_t{1} << begin) - 1);
}

uint64_t seen_keys(const AttentionCall& call, const Row& row, int64_t first, int64_t count) {
  const Sight& sight = row.sight;
  uint64_t seen = (bits_between(0, sight.sink_end - first) | bits_between(sight.begin - first, sight.end - first)) &
                  bits_between(0, count);
  if (!has_masks(call)) return seen;
  for (uint64_t left = seen; left != 0; left &= left - 1) {
    const int64_t s = __builtin_ctzll(left);
    if (is_masked(call, row.sequence, row.query, row.head, first + s, row.keys)) seen &= ~(uint64_t{1} << s);
  }
  return seen;
}

// Keys [*begin, *end) of the sequence that some row sees, as a hull.
void hull(const Row* rows, int64_t count, int64_t* begin, int64_t* end) {
  *begin = INT64_MAX;
  *end = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (rows[i].sight.nothing()) continue;
    *begin = std::min(*begin, rows[i].sight.first());
    *end = std::max(*end, rows[i].sight.last());
  }
}

}  // namespace
