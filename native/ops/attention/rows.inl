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

// Bit j: byte j of eight is not 0.
inline uint64_t bits_of_bytes(uint64_t bytes) {
  constexpr uint64_t kLow = 0x7f7f7f7f7f7f7f7f;
  const uint64_t high = (((bytes & kLow) + kLow) | bytes) & ~kLow;
  // Bits 7, 15, ... 63, shifted down and gathered into the highest byte.
  return (high >> 7) * 0x0102040810204080 >> 56;
}

// The keys that a mask [heads or 1, rows, columns] leaves of `count` from column `first` on. Columns below 0: all.
uint64_t unmasked_keys(const bl_tensor& mask, int64_t head, int64_t row, int64_t first, int64_t count) {
  uint64_t left = bits_between(0, -first < count ? -first : count);
  const int64_t offset = (mask.shape[0] == 1 ? 0 : head) * mask.strides[0] + row * mask.strides[1];
  int64_t s = first < 0 ? -first : 0;
  if (mask.dtype == BL_DTYPE_u8) {
    const uint8_t* at = static_cast<const uint8_t*>(mask.data) + offset + first * mask.strides[2];
    for (; mask.strides[2] == 1 && s + 8 <= count; s += 8) {
      uint64_t bytes;
      std::memcpy(&bytes, at + s, 8);
      left |= bits_of_bytes(bytes) << s;
    }
    for (; s < count; ++s) left |= static_cast<uint64_t>(at[s * mask.strides[2]] != 0) << s;
    return left;
  }
  const float* at = static_cast<const float*>(mask.data) + offset + first * mask.strides[2];
  for (; s < count; ++s) left |= static_cast<uint64_t>(at[s * mask.strides[2]] != kMinusInfinity) << s;
  return left;
}

// The keys that a row's block mask leaves of `count` from `first` on, block by block.
uint64_t unblocked_keys(const AttentionCall& call, const Row& row, int64_t first, int64_t count) {
  const bl_tensor& blocks = call.block_mask;
  const int64_t query = call.first_query(row.sequence) + row.query;
  const uint8_t* at = static_cast<const uint8_t*>(blocks.data) + (blocks.shape[0] == 1 ? 0 : row.head) * blocks.strides[0] +
                      query / call.block_queries * blocks.strides[1];
  uint64_t left = 0;
  for (int64_t s = 0; s < count;) {
    const int64_t block = (first + s) / call.block_keys;
    const int64_t end = (block + 1) * call.block_keys - first;
    if (at[block * blocks.strides[2]] != 0) left |= bits_between(s, end < count ? end : count);
    s = end;
  }
  return left;
}

uint64_t seen_keys(const AttentionCall& call, const Row& row, int64_t first, int64_t count) {
  const Sight& sight = row.sight;
  uint64_t seen = (bits_between(0, sight.sink_end - first) | bits_between(sight.begin - first, sight.end - first)) &
                  bits_between(0, count);
  if (seen == 0) return 0;
  if (call.mask.data != nullptr) {
    const int64_t query = call.first_query(row.sequence) + row.query;
    seen &= unmasked_keys(call.mask, row.head, query, first - (row.keys - call.mask.shape[2]), count);
  }
  if (call.block_mask.data != nullptr) seen &= unblocked_keys(call, row, first, count);
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
