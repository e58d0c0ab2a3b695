// kv_append and kv_gather at every level of this machine against level scalar: the same bytes, whatever the
// shape, the slots, the threads, and whether values are finite. For processors that are not at hand:
// test/native/arm64.sh. Argument: a seed.
#include "bitloom_attention.h"
#include "levels.h"

namespace {

struct Memory {
  std::vector<uint8_t> keys, values;
  bool operator==(const Memory&) const = default;
};

struct Case {
  int32_t format, page_size, heads, key_dim, value_dim;
  int64_t num_pages, tokens;
  std::vector<float> k, v;
  std::vector<int32_t> slots;

  bl_kv_pages pages(std::vector<uint8_t>& data, int32_t dim) const {
    return {data.data(), data.size(), format, page_size, heads, dim, num_pages};
  }
  Memory empty() const {
    const auto bytes = [&](int32_t is_values, int32_t dim) {
      return static_cast<size_t>(num_pages * heads) * bl_kv_page_bytes(format, is_values, page_size, dim);
    };
    return {std::vector<uint8_t>(bytes(0, key_dim), 0x5a), std::vector<uint8_t>(bytes(1, value_dim), 0x5a)};
  }
  bl_tensor slots_view() { return view_of(slots.data(), BL_DTYPE_i32, 4, {tokens}); }

  Memory append(const bl_run& run, const std::string& name) {
    Memory memory = empty();
    bl_kv_append_args args{};
    args.size = sizeof(args);
    args.run = run;
    args.k = floats(k, {tokens, heads, key_dim});
    args.v = floats(v, {tokens, heads, value_dim});
    args.slots = slots_view();
    args.keys = pages(memory.keys, key_dim);
    args.values = pages(memory.values, value_dim);
    bl_error error{};
    check(bl_kv_append(&args, &error) == BL_STATUS_ok, name + ": " + error.message);
    return memory;
  }
  std::vector<float> gather(Memory& memory, const bl_run& run, const std::string& name) {
    std::vector<float> keys(k.size(), -7), values(v.size(), -7);
    bl_kv_gather_args args{};
    args.size = sizeof(args);
    args.run = run;
    args.keys = pages(memory.keys, key_dim);
    args.values = pages(memory.values, value_dim);
    args.slots = slots_view();
    args.k = floats(keys, {tokens, heads, key_dim});
    args.v = floats(values, {tokens, heads, value_dim});
    bl_error error{};
    check(bl_kv_gather(&args, &error) == BL_STATUS_ok, name + ": " + error.message);
    keys.insert(keys.end(), values.begin(), values.end());
    return keys;
  }
};

void levels(Random& random, int32_t format, int32_t page_size, int32_t dim, bool special) {
  Case one{format, page_size, 2, dim, dim == 1 ? 3 : dim - 1, 3, 0, {}, {}, {}};
  // Whole pages in any order: what keys with a scale per channel take.
  for (const int32_t page : {2, 0}) {
    for (int32_t i = 0; i < page_size; ++i) one.slots.push_back(page * page_size + i);
  }
  one.slots.push_back(-1);
  one.tokens = static_cast<int64_t>(one.slots.size());
  one.k = random.gaussians(one.tokens * one.heads * one.key_dim);
  one.v = random.gaussians(one.tokens * one.heads * one.value_dim);
  const float specials[] = {0, -0.0f, 1e-40f, -3e38f, 65520, INFINITY, -INFINITY, NAN};
  for (std::vector<float>* x : {&one.k, &one.v}) {
    for (float& value : *x) {
      if (random.below(40) == 0) value = std::floor(value * 4) + 0.5f;  // ties
      if (special && random.below(200) == 0) value = specials[random.below(8)];
    }
  }
  const std::string name = std::string("kv ") + bl_kv_format_name(format) + ", pages of " +
                           std::to_string(page_size) + ", " + std::to_string(dim) + " channels";
  Memory want = one.append(run_at(BL_ISA_scalar), name);
  const std::vector<float> back = one.gather(want, run_at(BL_ISA_scalar), name);
  for (const int32_t isa : levels_here()) {
    for (const int32_t threads : {1, 3}) {
      const std::string here = name + " at " + bl_isa_name(isa);
      check(one.append(run_at(isa, threads), here) == want, here + ": pages");
      check(same_bits(one.gather(want, run_at(isa, threads), here), back), here + ": tokens read back");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Random random = random_from(argc, argv);
  for (int32_t format = 0; format < BL_KV_FORMAT_count; ++format) {
    for (const int32_t page_size : {8, 24, 64}) {
      for (const int32_t dim : {1, 7, 16, 31, 33, 64, 128, 576}) {
        for (const bool special : {false, true}) levels(random, format, page_size, dim, special);
      }
    }
  }
  return finish();
}
