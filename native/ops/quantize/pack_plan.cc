#include "pack_plan.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <new>

#include "../../formats/panel_fields.h"
#include "pack_dword.h"

namespace bitloom {
namespace {

constexpr int64_t kLoad = 16;  // bytes of a PackLoad

int64_t bit_of(const Field& low, const Field& high, int32_t t) {
  const Field& field = t >= low.shift && t < low.shift + low.width ? low : high;
  return field.bit + t - field.shift;
}

class Builder {
 public:
  explicit Builder(const PanelFormat& f)
      : f_(f), row_(f.info->kind != BL_KIND_block && f.info->group_size == 0) {}

  // The plan, or null if there can be none.
  const PackPlan* build() {
    measure();
    if (plan_.span_bytes > kMaxSpanBytes) return nullptr;
    for (int64_t block = 0; block < plan_.blocks; ++block) add_block(block);
    if (subs_.overflow || codes_.overflow) return nullptr;
    emit_best_order();
    if (plan_.headers.overflow || plan_.columns.overflow || plan_.loads.overflow || plan_.steps.overflow) {
      return nullptr;
    }
    if (row_) add_spare();
    return &plan_;
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
    plan_.row = row_;
    plan_.blocks = blocks;
    plan_.span_bytes = blocks * source_block_;
    plan_.target_bytes = blocks * target_block_;
  }

  void add_block(int64_t block) {
    const int64_t source = block * source_block_;
    const int64_t target = block * target_block_;
    if (f_.value_kind == ValueKind::floats) {
      for (int64_t i = 0; i < f_.bits; ++i) add_float_dword(source, target, i);
      return;
    }
    if (!row_) add_headers(source, target);
    for (int64_t dword = 0; dword < f_.sub_count * f_.sub_bits / 32; ++dword)
      add_sub_dword(source, target, dword);
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
      plan_.headers.push_back(
          {static_cast<int32_t>(from + f_.canonical_scale), static_cast<int32_t>(to), f_.scale_bytes});
      if (f_.value_kind == ValueKind::chosen_table) {
        plan_.headers.push_back({static_cast<int32_t>(from + f_.scale_bytes),
                                 static_cast<int32_t>(target + f_.number_offset), 1});
      }
      if (f_.offset_kind == OffsetKind::none) continue;
      plan_.headers.push_back({static_cast<int32_t>(from + f_.canonical_offset),
                               static_cast<int32_t>(to + f_.offset_offset), f_.scale_bytes});
    }
  }

  void add_float_dword(int64_t source, int64_t target, int64_t i) {
    Dword dword{static_cast<int32_t>(target + 64 * i), 0, false, 0, {}};
    for (int64_t j = 0; j < 4; ++j) dword.bytes[j].push_back({8 * (source + 4 * i + j), 0xff});
    codes_.push_back(dword);
  }

  // Bytes 4i to 4i + 3 of a row's sub-scales: planes of 8, or 4 and then 2 bits (panel.h).
  void add_sub_dword(int64_t source, int64_t target, int64_t i) {
    const uint8_t flip = f_.sub_bits == 8 ? 0x80 : 0;
    Dword dword{static_cast<int32_t>(target + f_.sub_offset + 64 * i), 0, true, flip, {}};
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
    Dword dword{static_cast<int32_t>(chunks + plane.chunk_offset + 64 * run), p, plane.bits <= 2, flip, {}};
    for (int64_t j = 0; j < 4; ++j) {
      for (int32_t t = 0; t < 8; ++t) {
        const int64_t k = chunk * kChunk + 4 * (run + t / plane.bits * plane.bits) + j;
        dword.add(j, t, code_bit(source, k, plane.shift + t % plane.bits));
      }
    }
    codes_.push_back(dword);
  }

  // Where bit t of the code of weight k of a block stands in the span.
  int64_t code_bit(int64_t source, int64_t k, int32_t t) {
    if (row_) return 8 * source + k * f_.bits + t;
    Field low, high;
    code_fields(f_, k % f_.canonical_elements, &low, &high);
    return 8 * (source + k / f_.canonical_elements * f_.canonical_bytes) + bit_of(low, high, t);
  }

  // Columns of dwords that come from near places take fewer loads and steps: plane by plane where planes lie
  // apart (K types), chunk by chunk where they do not (streams). Both are tried.
  void emit_best_order() {
    emit(subs_);
    head_ = plan_;
    std::sort(codes_.begin(), codes_.end(), [](const Dword& a, const Dword& b) {
      return a.plane != b.plane ? a.plane < b.plane : a.target < b.target;
    });
    emit(codes_);
    by_plane_ = plan_;
    plan_ = head_;
    std::sort(codes_.begin(), codes_.end(),
              [](const Dword& a, const Dword& b) { return a.target < b.target; });
    emit(codes_);
    if (!by_plane_.steps.overflow && by_plane_.steps.count < plan_.steps.count) plan_ = by_plane_;
  }

  template <typename Dwords>
  void emit(const Dwords& dwords) {
    for (int32_t at = 0; at < dwords.count; at += 4) {
      emit_column(dwords.items + at, std::min(4, dwords.count - at));
    }
  }

  void emit_column(const Dword* dwords, int count) {
    PackColumn column{plan_.loads.count, 0, -1, {-1, -1, -1, -1}, {}, {}};
    for (Parts& parts : left_) parts.count = 0;
    for (int w = 0; w < count; ++w) {
      column.target[w] = dwords[w].target;
      column.flip[w] = dwords[w].flip;
      column.by_bytes[w] = dwords[w].by_bytes;
      parts_of(dwords[w], &left_[w]);
    }
    const int32_t first_step = plan_.steps.count;
    while (std::any_of(left_, left_ + 4, [](const Parts& parts) { return !parts.empty(); })) emit_load();
    column.last = plan_.loads.count;
    if (plan_.steps.count == first_step + 1 && is_copy(plan_.steps[first_step], count)) {
      column.direct = plan_.loads[column.first].source;
      plan_.loads.count = column.first;
      plan_.steps.count = first_step;
      column.last = column.first;
    }
    plan_.columns.push_back(column);
  }

  // The 16 bytes that begin with the first that is still needed, and all steps that they are enough for.
  void emit_load() {
    int64_t source = plan_.span_bytes - kLoad;
    for (int w = 0; w < 4; ++w) {
      for (const Part& part : left_[w]) source = std::min(source, part.first_byte);
    }
    PackLoad load{static_cast<int32_t>(source), plan_.steps.count, 0};
    for (bool more = true; more;) {
      PackStep step{};
      std::fill_n(step.words[0], 32, uint8_t{0x80});
      std::fill_n(step.index, 16, uint8_t{0x80});
      more = false;
      for (int w = 0; w < 4; ++w) {
        auto fits = [&](const Part& part) { return part.last_byte < source + kLoad; };
        const auto found = std::find_if(left_[w].begin(), left_[w].end(), fits);
        if (found == left_[w].end()) continue;
        set_dword(&step, w, *found, source);
        left_[w].erase(found);
        more = true;
      }
      if (more) plan_.steps.push_back(step);
    }
    load.last = plan_.steps.count;
    plan_.loads.push_back(load);
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
    for (int64_t i = 0; i < plan_.blocks * kChunk * f_.bits; ++i) {
      if ((f_.flip >> i % f_.bits & 1) != 0) plan_.spare[i / 8] |= static_cast<uint8_t>(1 << i % 8);
    }
  }

  const PanelFormat& f_;
  const bool row_;
  int64_t source_block_ = 0, target_block_ = 0, chunks_ = 0;
  List<Dword, 8> subs_{};
  List<Dword, kMaxSpanBytes / 4> codes_{};
  Parts left_[4]{};  // of the column at hand
  PackPlan plan_{}, head_{}, by_plane_{};
};

}  // namespace

const PackPlan* pack_plan(const PanelFormat& f) {
  if (f.order == CodeOrder::tq1_0) return nullptr;  // trits: no bits of their own
  // Kept for the life of the process: 18 KB per format in use.
  static std::atomic<const PackPlan*> plans[BL_FORMAT_count] = {};
  std::atomic<const PackPlan*>& slot = plans[f.format];
  const PackPlan* plan = slot.load(std::memory_order_acquire);
  if (plan != nullptr) return plan;
  const std::unique_ptr<Builder> builder(new (std::nothrow) Builder(f));
  const PackPlan* built = builder == nullptr ? nullptr : builder->build();
  std::unique_ptr<PackPlan> made(built == nullptr ? nullptr : new (std::nothrow) PackPlan(*built));
  if (made == nullptr) return nullptr;
  if (slot.compare_exchange_strong(plan, made.get(), std::memory_order_acq_rel)) return made.release();
  return plan;  // another thread was faster
}

}  // namespace bitloom
