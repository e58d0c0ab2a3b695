// embedding on the interpreter, in every format: the CPU's bits.
#include <cmath>

#include "cuda/backend.h"
#include "tensors.h"
#include "weights.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

struct Case {
  int32_t format = BL_FORMAT_f16;
  int64_t vocab = 5, cols = 64;
  std::vector<int64_t> ids_shape = {3};
  std::vector<int64_t> ids_strides = {}, output_strides = {};
  int32_t output = BL_DTYPE_f32;
  float tensor_scale = 0;
  bool random_bytes = false;
  std::string name = "";
};

void run(TestQueue& queue, const Case& c) {
  Weights table(queue, c.format, c.vocab, c.cols, c.tensor_scale, c.random_bytes);
  std::vector<int64_t> shape = c.ids_shape;
  shape.push_back(c.cols);
  Tensor ids(queue, BL_DTYPE_i32, c.ids_shape, c.ids_strides),
      output(queue, c.output, shape, c.output_strides);
  std::vector<int32_t> numbers;
  Random random(3);
  for (int64_t i = 0; i < ids.size(); ++i) numbers.push_back(static_cast<int32_t>(random.below(c.vocab)));
  ids.integers(numbers);
  bl_embedding_args args{
      sizeof(args), {BL_ISA_scalar, 0, nullptr, nullptr}, table.device(), ids.device(), output.device()};
  bl_error error{};
  const std::string what = "embedding" + c.name + " of " + bl_get_format_info(c.format)->name;
  check_ok(embedding(queue, args, &error), error, what);
  args.table = table.host(), args.ids = ids.host(), args.output = output.host();
  check_ok(bl_embedding(&args, &error), error, what + " on the CPU");
  check_same(output, what);
  check(queue.scratch_in_use() == 0, what + ": scratch is left");
}

void unknown_ids(TestQueue& queue) {
  Weights table(queue, BL_FORMAT_f32, 4, 3);
  Tensor ids(queue, BL_DTYPE_i32, {3}), output(queue, BL_DTYPE_f32, {3, 3});
  ids.integers({4, 1, -1});
  bl_embedding_args args{sizeof(args), {}, table.device(), ids.device(), output.device()};
  bl_error error{};
  check_ok(embedding(queue, args, &error), error, "embedding of unknown ids");
  const std::vector<float> values = output.device_values();
  check(std::isnan(values[0]) && !std::isnan(values[3]) && std::isnan(values[8]),
        "embedding: unknown ids give NaN");
}

void refused(TestQueue& queue) {
  Weights table(queue, BL_FORMAT_q4_0, 16, 64);
  Tensor ids(queue, BL_DTYPE_i32, {1}), output(queue, BL_DTYPE_f32, {1, 64});
  ids.integers({0});
  bl_embedding_args args{sizeof(args), {}, table.device(), ids.device(), output.device()};
  args.table.layout = BL_LAYOUT_lanes16;
  bl_error error{};
  check(embedding(queue, args, &error) == BL_STATUS_unsupported, "embedding from layout lanes16");
  args.table = Weights(queue, BL_FORMAT_nf4_g32, 16, 64).device();
  queue.fail_after_allocations = 0;
  check(embedding(queue, args, &error) == BL_STATUS_out_of_memory, "embedding without memory for its table");
  queue.fail_after_allocations = ~uint64_t{0};
}

}  // namespace

BITLOOM_CUDA_TEST(embedding) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    for (int32_t format = 0; format < BL_FORMAT_count; ++format) {
      const int64_t elements = bl_get_format_info(format)->block_elements;
      run(queue, {.format = format, .cols = elements > 64 ? elements : 64});
      run(queue, {.format = format,
                  .cols = elements > 64 ? elements : 64,
                  .ids_shape = {24},
                  .random_bytes = true,
                  .name = " bytes"});
    }
    for (int32_t output : kFloatDtypes) run(queue, {.format = BL_FORMAT_q8_0, .output = output});
    run(queue, {.format = BL_FORMAT_u4_row, .cols = 37, .name = " odd row"});
    run(queue, {.format = BL_FORMAT_i3z_g32, .cols = 45, .tensor_scale = 0.37f, .name = " part of a group"});
    run(queue, {.format = BL_FORMAT_f32, .ids_shape = {}, .name = " one id"});
    run(queue, {.format = BL_FORMAT_f32, .ids_shape = {0}, .name = " no ids"});
    run(queue, {.format = BL_FORMAT_bf16,
                .cols = 300,
                .ids_shape = {2, 3},
                .ids_strides = {1, 4},
                .output_strides = {2000, 601, 2},
                .name = " strided"});
    unknown_ids(queue);
    refused(queue);
  }
}
