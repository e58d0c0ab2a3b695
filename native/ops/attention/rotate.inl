// Rotary position embedding of queries and keys on their way into the products (rope_table.h). Included by units.inl.
//
// cos and sin of a position are products of those of its digits, in double, rounded to f32. Sixteen keys whose positions
// follow one another are turned by the first one's and by 0 to 15 more, whose cos and sin are in f32: those of such a key are
// off by 3 * 2^-24 at most, others by 2^-24. Products and sums with queries and keys are in f32.

namespace {

class Rotation {
 public:
  // Floats of memory that it needs: cos and sin of the position's upper digits and of all of them (double), of all of
  // them (f32), of 16 positions.
  static int64_t floats(const AttentionCall& call) {
    return call.rope == nullptr ? 0 : call.rope->pairs * (4 + 4 + 2 + 2 * kUnit);
  }
  Rotation(const RopeTable* table, float* memory) : table_(table) {
    if (table == nullptr) return;
    upper_ = reinterpret_cast<double*>(memory);
    all_ = upper_ + 2 * table->pairs;
    turn_ = reinterpret_cast<float*>(all_ + 2 * table->pairs);
    turns_ = turn_ + 2 * table->pairs;
  }
  bool none() const { return table_ == nullptr; }

  // One row of channels, in place.
  void row(int64_t position, float* channels) {
    set(position);
    const int64_t pairs = table_->pairs;
    const int64_t step = table_->half ? 1 : 2, other = table_->half ? pairs : 1;
    for (int64_t j = 0; j < pairs; ++j) {
      float* const first = channels + j * step;
      const float a = first[0], b = first[other], c = turn_[j], s = turn_[pairs + j];
      first[0] = a * c - b * s;
      first[other] = a * s + b * c;
    }
  }

  // Keys at positions first, first + 1, ...: from one panel [head_dim][16] into another, or in place.
  void keys(int64_t first, int64_t head_dim, const float* from, float* panel) {
    set(first);
    const float* const next = table_->next;
    const int64_t pairs = table_->pairs;
    turn_panel(head_dim, from, panel, [&](int64_t j, int64_t s, Vec* cosine, Vec* sine) {
      const Vec c = Vec::set(turn_[j]), d = Vec::set(turn_[pairs + j]);
      const Vec next_c = Vec::load(next + j * kUnit + s), next_d = Vec::load(next + (pairs + j) * kUnit + s);
      *cosine = fnma(d, next_d, c * next_c);
      *sine = fma(d, next_c, c * next_d);
    });
  }
  // The first `count` keys at positions of their own.
  void keys(const int32_t* positions, int64_t count, int64_t head_dim, const float* from, float* panel) {
    bool follow = true;
    for (int64_t s = 1; s < count; ++s) follow &= positions[s] == positions[0] + int64_t{s};
    if (follow) return keys(positions[0], head_dim, from, panel);
    for (int64_t s = 0; s < count; ++s) {
      set(positions[s]);
      for (int64_t i = 0; i < 2 * table_->pairs; ++i) turns_[i * kUnit + s] = turn_[i];
    }
    const int64_t pairs = table_->pairs;
    turn_panel(head_dim, from, panel, [&](int64_t j, int64_t s, Vec* cosine, Vec* sine) {
      *cosine = Vec::load(turns_ + j * kUnit + s);
      *sine = Vec::load(turns_ + (pairs + j) * kUnit + s);
    });
  }

 private:
  // to (cos, sin) = from turned by a digit of the table
  void turn_by(int32_t level, int64_t digit, const double* from, double* to) const {
    const int64_t pairs = table_->pairs;
    const double* by = table_->digit(level, digit);
    for (int64_t j = 0; j < pairs; ++j) {
      const double c = from[j], s = from[pairs + j];
      to[j] = c * by[j] - s * by[pairs + j];
      to[pairs + j] = c * by[pairs + j] + s * by[j];
    }
  }

  // turn_ = magnitude * (cos, sin) of a position. Neighbours have their upper digits in common.
  void set(int64_t position) {
    const int64_t pairs = table_->pairs;
    const int64_t p = position < 0 ? -position : position;
    if (p >> 8 != upper_position_) {
      upper_position_ = p >> 8;
      for (int64_t j = 0; j < pairs; ++j) {
        upper_[j] = 1;
        upper_[pairs + j] = 0;
      }
      for (int32_t level = 2; level < table_->levels; ++level) turn_by(level, p >> (4 * level) & 15, upper_, upper_);
    }
    turn_by(1, p >> 4 & 15, upper_, all_);
    if ((p & 15) != 0) turn_by(0, p & 15, all_, all_);  // else a product with (1, 0), exact
    const double magnitude = table_->magnitude;
    const double sign = position < 0 ? -magnitude : magnitude;
    for (int64_t j = 0; j < pairs; ++j) {
      turn_[j] = static_cast<float>(all_[j] * magnitude);
      turn_[pairs + j] = static_cast<float>(all_[pairs + j] * sign);
    }
  }

  template <typename Turn>
  void turn_panel(int64_t head_dim, const float* from, float* panel, Turn&& turn) const {
    const int64_t pairs = table_->pairs;
    const int64_t step = table_->half ? 1 : 2, other = (table_->half ? pairs : 1) * kUnit;
    for (int64_t j = 0; j < pairs; ++j) {
      for (int64_t s = 0; s < kUnit; s += kLanes) {
        const int64_t at = j * step * kUnit + s;
        const Vec a = Vec::load(from + at), b = Vec::load(from + at + other);
        Vec cosine, sine;
        turn(j, s, &cosine, &sine);
        fnma(b, sine, a * cosine).store(panel + at);
        fma(a, sine, b * cosine).store(panel + at + other);
      }
    }
    if (from == panel) return;
    std::memcpy(panel + 2 * pairs * kUnit, from + 2 * pairs * kUnit,
                static_cast<size_t>((head_dim - 2 * pairs) * kUnit) * sizeof(float));
  }

  const RopeTable* table_;
  double* upper_ = nullptr;  // [2][pairs]
  double* all_ = nullptr;    // [2][pairs]
  float* turn_ = nullptr;    // [2][pairs]
  float* turns_ = nullptr;   // [2][pairs][16]
  int64_t upper_position_ = -1;
};

}  // namespace
