#include "pack_plan.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>

#include "../../formats/panel_fields.h"

namespace bitloom {
namespace {

constexpr int64_t kLoad = 16;  // bytes of a PackLoad

// The bits of one byte of a dword, some of them: those of `mask`, bit t of them from bit `from` + t of the span.
struct Bits {
  int64_t from = 0;
  uint8_t mask = 0;
  int64_t first_byte() const { return (from + __builtin_ctz(mask)) >> 3; }
  int64_t last_byte() const { return (from + 31 - __builtin_clz(mask)) >> 3; }
};

// What one step gives a dword: bits of each byte, all from four canonical bytes in a row.
struct Part {
  Bits bytes[4];
  int64_t first_byte, last_byte;
};

// A dword of a span and where all its bits come from.
struct Dword {
  int32_t target;
  bool by_bytes;
  uint8_t flip;
  std::vector<Bits> bytes[4];

  // Bit t of byte j comes from bit `from` of the span. Bits that move equally far are one.
  void add(int64_t j, int32_t t, int64_t from) {
    for (Bits& bits : bytes[j]) {
      if (bits.from != from - t) continue;
      bits.mask = static_cast<uint8_t>(bits.mask | 1u << t);
      return;
    }
    bytes[j].push_back({from - t, static_cast<uint8_t>(1u << t)});
  }
};

int64_t bit_of(const Field& low, const Field& high, int32_t t) {
  const Field& field = t >= low.shift && t < low.shift + low.width ? low : high;
  return field.bit + t - field.shift;
}

class Builder {
 public:
  explicit Builder(const PanelFormat& f) : f_(f), row_(f.info->kind != BL_KIND_block && f.info->group_size == 0) {}

  std::unique_ptr<PackPlan> build() {
    if (f_.order == CodeOrder::tq1_0) return nullptr;
    measure();
    if (plan_->span_bytes > kMaxSpanBytes) return nullptr;
    for (int64_t block = 0; block < plan_->blocks; ++block) add_block(block);
    emit_best_order();
    if (row_) add_spare();
    return std::move(plan_);
  }

 private:
  // So many blocks that a span has at least a cache line, or nearly, and no column lacks a dword.
  void measure() {
    if (row_) {
      source_block_ = 4 * f_.bits;
      target_block_ = f_.chunk_bytes;
      chunks_ = 1;
    } else {
      source_block_ = f_.canonical_per_block * f_.canonical_bytes;
      if (f_.value_kind == ValueKind::floats) source_block_ = kChunk * f_.bits / 8;
      target_block_ = f_.block_bytes;
      chunks_ = f_.elements / kChunk;
    }
    int64_t blocks = 1;
    while (blocks * source_block_ < 64 || blocks * chunks_ * f_.bits % 4 != 0) blocks *= 2;
    plan_->blocks = blocks;
    plan_->span_bytes = blocks * source_block_;
    plan_->target_bytes = blocks * target_block_;
  }

  void add_block(int64_t block) {
    const int64_t source = block * source_block_;
    const int64_t target = block * target_block_;
    if (f_.value_kind == ValueKind::floats) {
      for (int64_t i = 0; i < f_.bits; ++i) add_float_dword(source, target, i);
      return;
    }
    if (!row_) add_headers(source, target);
    for (int64_t dword = 0; dword < f_.sub_count * f_.sub_bits / 32; ++dword) add_sub_dword(source, target, dword);
    for (int64_t chunk = 0; chunk < chunks_; ++chunk) {
      for (int32_t p = 0; p < f_.plane_count; ++p) {
        for (int32_t run = 0; run < f_.planes[p].bits; ++run) add_code_dword(source, target, chunk, p, run);
      }
    }
  }

  // Scales and offsets: `headers` of each in a panel block, the same number in each canonical block of it.
  void add_headers(int64_t source, int64_t target) {
    const int64_t per_block = f_.headers / f_.canonical_per_block;
    for (int64_t h = 0; h < f_.headers; ++h) {
      const int64_t from = source + h / per_block * f_.canonical_bytes + h % per_block * f_.scale_bytes;
      const int64_t to = target + h * kPanelRows * f_.scale_bytes;
      plan_->headers.push_back({static_cast<int32_t>(from + f_.canonical_scale), static_cast<int32_t>(to)});
      if (f_.offset_kind == OffsetKind::none) continue;
      plan_->headers.push_back(
          {static_cast<int32_t>(from + f_.canonical_offset), static_cast<int32_t>(to + f_.offset_offset)});
    }
  }

  void add_float_dword(int64_t source, int64_t target, int64_t i) {
    Dword dword{static_cast<int32_t>(target + 64 * i), false, 0, {}};
    for (int64_t j = 0; j < 4; ++j) dword.bytes[j].push_back({8 * (source + 4 * i + j), 0xff});
    codes_[0].push_back(dword);
  }

  // Bytes 4i to 4i + 3 of a row's sub-scales: planes of 8, or 4 and then 2 bits (panel.h).
  void add_sub_dword(int64_t source, int64_t target, int64_t i) {
    const uint8_t flip = f_.sub_bits == 8 ? 0x80 : 0;
    Dword dword{static_cast<int32_t>(target + f_.sub_offset + 64 * i), true, flip, {}};
    for (int64_t j = 0; j < 4; ++j) {
      int64_t byte = 4 * i + j;
      int32_t bits = f_.sub_bits == 8 ? 8 : 4, first = 0;
      if (f_.sub_bits == 6 && byte >= f_.sub_count / 2) {
        byte -= f_.sub_count / 2;
        bits = 2;
        first = 4;
      }
      const int64_t n = f_.sub_count * bits / 8;
      for (int32_t t = 0; t < 8; ++t) {
        Field low, high;
        sub_fields(f_, byte + t / bits * n, &low, &high);
        dword.add(j, t, 8 * source + bit_of(low, high, first + t % bits));
      }
    }
    subs_.push_back(dword);
  }

  // Run `run` of a plane of a chunk.
  void add_code_dword(int64_t source, int64_t target, int64_t chunk, int32_t p, int32_t run) {
    const Plane& plane = f_.planes[p];
    const int64_t chunks = row_ ? target : target + f_.chunk_offset + chunk * f_.chunk_bytes;
    uint8_t flip = 0;
    for (int32_t t = 0; t < 8; ++t) {
      flip = static_cast<uint8_t>(flip | (f_.flip >> (plane.shift + t % plane.bits) & 1) << t);
    }
    Dword dword{static_cast<int32_t>(chunks + plane.chunk_offset + 64 * run), plane.bits <= 2, flip, {}};
    for (int64_t j = 0; j < 4; ++j) {
      for (int32_t t = 0; t < 8; ++t) {
        const int64_t k = chunk * kChunk + 4 * (run + t / plane.bits * plane.bits) + j;
        dword.add(j, t, code_bit(source, k, plane.shift + t % plane.bits));
      }
    }
    codes_[p].push_back(dword);
  }

  // Where bit t of the code of weight k of a block stands in the span.
  int64_t code_bit(int64_t source, int64_t k, int32_t t) {
    if (row_) return 8 * source + k * f_.bits + t;
    Field low, high;
    code_fields(f_, k % f_.canonical_elements, &low, &high);
    return 8 * (source + k / f_.canonical_elements * f_.canonical_bytes) + bit_of(low, high, t);
  }

  // Columns of dwords that come from near places take fewer loads and steps: plane by plane where planes lie apart
  // (K types), chunk by chunk where they do not (streams). Both are tried.
  void emit_best_order() {
    std::vector<Dword> by_plane, by_chunk;
    for (const auto& dwords : codes_) by_plane.insert(by_plane.end(), dwords.begin(), dwords.end());
    by_chunk = by_plane;
    std::stable_sort(by_chunk.begin(), by_chunk.end(),
                     [](const Dword& a, const Dword& b) { return a.target < b.target; });
    emit(subs_);
    const PackPlan head = *plan_;
    emit(by_plane);
    const PackPlan first = *plan_;
    *plan_ = head;
    emit(by_chunk);
    if (first.steps.size() < plan_->steps.size()) *plan_ = first;
  }

  void emit(const std::vector<Dword>& dwords) {
    for (size_t at = 0; at < dwords.size(); at += 4) {
      emit_column(dwords.data() + at, static_cast<int>(std::min<size_t>(4, dwords.size() - at)));
    }
  }

  // What the four bytes of a dword get at a time: parts of four bytes in a row; bits that lie apart, one by one.
  static std::vector<Part> parts_of(const Dword& dword) {
    std::vector<Part> parts;
    size_t most = 0;
    for (const auto& bytes : dword.bytes) most = std::max(most, bytes.size());
    for (size_t i = 0; i < most; ++i) {
      Part part{{}, INT64_MAX, -1};
      for (int j = 0; j < 4; ++j) {
        if (i >= dword.bytes[j].size()) continue;
        const Bits& bits = dword.bytes[j][i];
        const int64_t first = std::min(part.first_byte, bits.first_byte());
        const int64_t last = std::max(part.last_byte, bits.last_byte());
        if (last - first >= 4) {
          Part alone{{}, bits.first_byte(), bits.last_byte()};
          alone.bytes[j] = bits;
          parts.push_back(alone);
          continue;
        }
        part.bytes[j] = bits;
        part.first_byte = first;
        part.last_byte = last;
      }
      parts.push_back(part);
    }
    return parts;
  }

  void emit_column(const Dword* dwords, int count) {
    PackColumn column{static_cast<int32_t>(plan_->loads.size()), 0, -1, {-1, -1, -1, -1}, {}, {}};
    std::vector<Part> left[4];
    for (int w = 0; w < count; ++w) {
      column.target[w] = dwords[w].target;
      column.flip[w] = dwords[w].flip;
      column.by_bytes[w] = dwords[w].by_bytes;
      left[w] = parts_of(dwords[w]);
    }
    const size_t first_step = plan_->steps.size();
    while (std::any_of(left, left + 4, [](const auto& parts) { return !parts.empty(); })) emit_load(left);
    column.last = static_cast<int32_t>(plan_->loads.size());
    if (plan_->steps.size() == first_step + 1 && is_copy(plan_->steps.back(), count)) {
      column.direct = plan_->loads.back().source;
      plan_->loads.pop_back();
      plan_->steps.pop_back();
      column.last = column.first;
    }
    plan_->columns.push_back(column);
  }

  // The 16 bytes that begin with the first that is still needed, and all steps that they are enough for.
  void emit_load(std::vector<Part>* left) {
    int64_t source = plan_->span_bytes - kLoad;
    for (int w = 0; w < 4; ++w) {
      for (const Part& part : left[w]) source = std::min(source, part.first_byte);
    }
    PackLoad load{static_cast<int32_t>(source), static_cast<int32_t>(plan_->steps.size()), 0};
    for (bool more = true; more;) {
      PackStep step{};
      std::fill_n(step.words[0], 32, uint8_t{0x80});
      std::fill_n(step.index, 16, uint8_t{0x80});
      more = false;
      for (int w = 0; w < 4; ++w) {
        auto fits = [&](const Part& part) { return part.last_byte < source + kLoad; };
        const auto found = std::find_if(left[w].begin(), left[w].end(), fits);
        if (found == left[w].end()) continue;
        set_dword(&step, w, *found, source);
        left[w].erase(found);
        more = true;
      }
      if (more) plan_->steps.push_back(step);
    }
    load.last = static_cast<int32_t>(plan_->steps.size());
    plan_->loads.push_back(load);
  }

  static void set_dword(PackStep* step, int w, const Part& part, int64_t source) {
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t index = part.first_byte + i - source;
      step->index[4 * w + i] = static_cast<uint8_t>(index < kLoad ? index : 0x80);
    }
    for (int j = 0; j < 4; ++j) {
      const Bits& bits = part.bytes[j];
      if (bits.mask == 0) continue;
      const int i = 4 * w + j;
      step->mask[i] = bits.mask;
      // The qword holds two dwords' windows; what a shift brings from beyond a window is masked away.
      step->shift[i] = static_cast<uint8_t>((bits.from - 8 * part.first_byte + 32 * (w & 1)) & 63);
      const int64_t index = bits.first_byte() - source;
      uint8_t* words = step->words[i / 8] + 2 * (i % 8);
      words[0] = static_cast<uint8_t>(index);
      if (bits.last_byte() > bits.first_byte()) words[1] = static_cast<uint8_t>(index + 1);
      step->factors[i / 8][i % 8] = static_cast<uint16_t>(1u << (8 - (bits.from - 8 * bits.first_byte())));
    }
  }

  static bool is_copy(const PackStep& step, int count) {
    for (int i = 0; i < 4 * count; ++i) {
      if (step.mask[i] != 0xff || step.shift[i] != 8 * (i % 8) || step.index[i] != i) return false;
    }
    return true;
  }

  void add_spare() {
    plan_->spare.assign(static_cast<size_t>(plan_->span_bytes), 0);
    for (int64_t i = 0; i < plan_->blocks * kChunk * f_.bits; ++i) {
      if ((f_.flip >> i % f_.bits & 1) != 0) plan_->spare[static_cast<size_t>(i / 8)] |= static_cast<uint8_t>(1 << i % 8);
    }
  }

  const PanelFormat& f_;
  const bool row_;
  int64_t source_block_ = 0, target_block_ = 0, chunks_ = 0;
  std::vector<Dword> subs_;
  std::vector<Dword> codes_[3];  // of each plane; floats in the first
  std::unique_ptr<PackPlan> plan_ = std::make_unique<PackPlan>();
};

}  // namespace

const PackPlan* pack_plan(const PanelFormat& f) {
  // Kept for the life of the process: a few KB per format in use.
  static std::atomic<const PackPlan*> plans[BL_FORMAT_count] = {};
  std::atomic<const PackPlan*>& slot = plans[f.format];
  const PackPlan* plan = slot.load(std::memory_order_acquire);
  if (plan != nullptr) return plan;
  std::unique_ptr<PackPlan> made = Builder(f).build();
  if (made == nullptr) return nullptr;
  if (slot.compare_exchange_strong(plan, made.get(), std::memory_order_acq_rel)) return made.release();
  return plan;  // another thread was faster
}

}  // namespace bitloom
