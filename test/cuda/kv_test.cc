// kv_write on the interpreter: the CPU's bits, and slots that the CPU refuses.
#include "cuda/backend.h"
#include "tensors.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

struct Case {
  int64_t heads = 2, key_dim = 16, value_dim = 16, capacity = 9;
  std::vector<int32_t> slots = {4};
  int32_t k = BL_DTYPE_f32, keys = BL_DTYPE_f16;
  bool strided = false;
  std::string name = "";
};

// What stood in the cache before: every place of it is written, so that all of it can be compared.
float before(int64_t i) { return -static_cast<float>(i % 50); }

void write(TestQueue& queue, const Case& c) {
  const int64_t tokens = static_cast<int64_t>(c.slots.size());
  const auto strides = [&](int64_t count, int64_t width) {  // head by head, with gaps
    return c.strided ? std::vector<int64_t>{2 * width, 2 * width * count + 3, 2} : std::vector<int64_t>{};
  };
  Tensor k(queue, c.k, {tokens, c.heads, c.key_dim}, strides(tokens, c.key_dim));
  Tensor v(queue, c.k, {tokens, c.heads, c.value_dim}, strides(tokens, c.value_dim));
  Tensor keys(queue, c.keys, {c.capacity, c.heads, c.key_dim}, strides(c.capacity, c.key_dim));
  Tensor values(queue, c.keys, {c.capacity, c.heads, c.value_dim}, strides(c.capacity, c.value_dim));
  Tensor slots(queue, BL_DTYPE_i32, {tokens}, c.strided ? std::vector<int64_t>{3} : std::vector<int64_t>{});
  k.uniform(1, 3), v.uniform(2, 3), keys.fill(before), values.fill(before);
  slots.integers(c.slots);
  bl_kv_write_args args{};
  args.size = sizeof(args);
  args.k = k.device(), args.v = v.device(), args.slots = slots.device();
  args.keys = keys.device(), args.values = values.device();
  bl_error error{};
  const std::string what = "kv_write" + c.name + " of dtype " + std::to_string(c.k) + " to " +
                           std::to_string(c.keys) + ", dims " + std::to_string(c.key_dim) + "/" +
                           std::to_string(c.value_dim);
  check_ok(kv_write(queue, args, &error), error, what);
  args.k = k.host(), args.v = v.host(), args.slots = slots.host();
  args.keys = keys.host(), args.values = values.host();
  // The CPU takes no slots outside: to it they are -1.
  std::vector<int32_t> inside;
  for (int32_t slot : c.slots) inside.push_back(slot >= 0 && slot < c.capacity ? slot : -1);
  slots.integers(inside);
  check_ok(bl_kv_write(&args, &error), error, what + " on the CPU");
  check_same(keys, what + ": keys");
  check_same(values, what + ": values");
}

void refused(TestQueue& queue) {
  Tensor k(queue, BL_DTYPE_f32, {1, 1, 8}), keys(queue, BL_DTYPE_f32, {4, 1, 8}),
      values(queue, BL_DTYPE_f32, {4, 1, 8}), slots(queue, BL_DTYPE_i32, {1});
  bl_kv_write_args args{};
  args.size = sizeof(args);
  args.k = k.device(), args.v = k.device(), args.slots = slots.device();
  args.keys = keys.device(), args.values = values.device();
  bl_error error{};
  bl_kv_write_args odd = args;
  odd.v.data = static_cast<uint8_t*>(odd.v.data) + 2;
  check(kv_write(queue, odd, &error) == BL_STATUS_unsupported, "kv_write of a view at half an element");
  bl_kv_write_args wide = args;
  wide.k.shape[1] = int64_t{1} << 40, wide.k.strides[1] = 0;
  check(kv_write(queue, wide, &error) == BL_STATUS_unsupported, "kv_write of 2^40 heads");
  args.k.shape[0] = int64_t{1} << 31, args.k.strides[0] = 0;
  check(kv_write(queue, args, &error) == BL_STATUS_unsupported, "kv_write of 2^31 tokens");
}

}  // namespace

BITLOOM_CUDA_TEST(kv) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    for (int32_t k : kFloatDtypes) {
      for (int32_t keys : kFloatDtypes) {
        write(queue, {.k = k, .keys = keys});
        write(queue, {.heads = 3, .key_dim = 5, .value_dim = 2, .slots = {8, 0, 3}, .k = k, .keys = keys});
      }
    }
    write(queue, {.slots = {-1, 2, 9, 1 << 30, -(1 << 30), 0}, .name = " slots outside"});
    write(queue, {.slots = {7, 2}, .strided = true, .name = " strided"});
    write(queue, {.heads = 8, .key_dim = 192, .value_dim = 128, .slots = {1, 8}, .name = " several blocks"});
    write(queue, {.value_dim = 0, .name = " no values"});
    write(queue, {.heads = 0, .name = " no heads"});
    write(queue, {.slots = {}, .name = " no tokens"});
    refused(queue);
  }
}
