// quantize and dequantize on the interpreter: the CPU's bytes and the CPU's bits.
#include <cmath>
#include <limits>

#include "cuda/backend.h"
#include "random_calls.h"
#include "tensors.h"
#include "weights.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

bool encoded_on_device(int32_t format) {
  const bl_format_info& info = *bl_get_format_info(format);
  const bool integer =
      info.kind == BL_KIND_unsigned_int || info.kind == BL_KIND_signed_int || info.kind == BL_KIND_ternary;
  return (integer && info.bits > 1) || format == BL_FORMAT_q8_0 || format == BL_FORMAT_q4_0;
}

struct Case {
  int32_t format = BL_FORMAT_i8_g32;
  int64_t rows = 2, cols = 64;
  int32_t dtype = BL_DTYPE_f32;
  std::vector<int64_t> strides = {};
  float scale = 1, tensor_scale = 0;
  std::string name = "";
  int32_t method = BL_QUANTIZE_minmax;
};

void encode(TestQueue& queue, const Case& c, const std::function<float(int64_t)>& value = nullptr) {
  Tensor input(queue, c.dtype, {c.rows, c.cols}, c.strides);
  input.uniform(static_cast<uint64_t>(c.format) + 1, c.scale);
  if (value) input.fill(value);
  std::vector<uint8_t> expected(bl_weights_bytes(c.format, c.rows, c.cols)), actual(expected.size());
  bl_quantize_args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_default;
  args.input = input.device();
  args.output.data = queue.allocate(expected.size());
  args.output.bytes = expected.size();
  args.output.format = c.format;
  args.output.rows = c.rows;
  args.output.cols = c.cols;
  args.output.tensor_scale = c.tensor_scale;
  args.method = c.method;
  bl_error error{};
  const std::string what = std::string("quantize") + (c.method == BL_QUANTIZE_mse ? " by mse" : "") + c.name +
                           " to " + bl_get_format_info(c.format)->name;
  check_ok(quantize(queue, args, &error), error, what);
  queue.read(actual.data(), args.output.data, actual.size());
  args.input = input.host();
  args.output.data = expected.data();
  check_ok(bl_quantize(&args, &error), error, what + " on the CPU");
  size_t at = 0;
  while (at < actual.size() && actual[at] == expected[at]) ++at;
  check(at == actual.size(), what + ": byte " + std::to_string(at) + " of " + std::to_string(actual.size()));
  check(queue.scratch_in_use() == 0, what + ": scratch is left");
}

void decode(TestQueue& queue, int32_t format, int64_t cols, int32_t dtype, std::vector<int64_t> strides = {},
            bool random_bytes = false) {
  const int64_t rows = random_bytes ? 5 : 3;
  Weights input(queue, format, rows, cols, 0.7f, random_bytes);
  Tensor output(queue, dtype, {rows, cols}, strides);
  bl_dequantize_args args{
      sizeof(args), {BL_ISA_default, 0, nullptr, nullptr}, input.device(), output.device()};
  bl_error error{};
  const std::string what = std::string("dequantize ") + bl_get_format_info(format)->name;
  check_ok(dequantize(queue, args, &error), error, what);
  args.input = input.host(), args.output = output.host();
  check_ok(bl_dequantize(&args, &error), error, what + " on the CPU");
  check_same(output, what);
}

void formats(TestQueue& queue) {
  for (int32_t format = 0; format < BL_FORMAT_count; ++format) {
    const int64_t elements = bl_get_format_info(format)->block_elements;
    const int64_t cols = std::max<int64_t>(elements, 64);
    decode(queue, format, cols, BL_DTYPE_f32);
    decode(queue, format, cols, BL_DTYPE_f32, {}, true);
    if (encoded_on_device(format)) encode(queue, {.format = format, .cols = cols});
  }
}

void views(TestQueue& queue) {
  for (int32_t dtype : kFloatDtypes) {
    decode(queue, BL_FORMAT_q6_k, 256, dtype);
    decode(queue, BL_FORMAT_u3z_g32, 70, dtype, {200, 2});
    for (int32_t format : {BL_FORMAT_q8_0, BL_FORMAT_q4_0, BL_FORMAT_u4z_g64, BL_FORMAT_i5_g32_bf16}) {
      encode(queue, {.format = format, .dtype = dtype, .tensor_scale = 0.3f, .name = " types"});
      encode(queue, {.format = format, .dtype = dtype, .strides = {3, 7}, .name = " strided"});
    }
  }
  encode(queue, {.format = BL_FORMAT_u4z_g64, .cols = 99, .name = " part of a group"});
  encode(queue, {.format = BL_FORMAT_i3_row, .cols = 37, .name = " rows"});
  encode(queue, {.format = BL_FORMAT_u8z_row, .rows = 5, .cols = 200, .name = " rows"});
}

// Each format once by mse, and its values that take other ways.
void searches(TestQueue& queue) {
  const auto by_mse = [&](Case c, const std::function<float(int64_t)>& value = nullptr) {
    c.method = BL_QUANTIZE_mse;
    encode(queue, c, value);
  };
  for (int32_t format = 0; format < BL_FORMAT_count; ++format) {
    const bl_format_info& info = *bl_get_format_info(format);
    if (!encoded_on_device(format) || (info.group_size != 32 && info.group_size != 0)) continue;
    by_mse({.format = format, .rows = 1});
    by_mse({.format = format, .rows = 1, .cols = 32, .name = " ties"},
           [](int64_t i) { return static_cast<float>(i % 17 - 8) * 0.5f; });
    if (info.bits != 3 && info.kind != BL_KIND_block && info.kind != BL_KIND_ternary) continue;
    for (float scale : {0.0f, 1e-42f, 3e38f})
      by_mse({.format = format, .rows = 1, .cols = 32, .scale = scale, .name = " extreme"});
    by_mse({.format = format, .rows = 1, .cols = 32, .name = " outlier"},
           [](int64_t i) { return i == 9 ? -12.0f : static_cast<float>(i * 7 % 11) * 0.1f - 0.3f; });
    by_mse({.format = format, .rows = 1, .cols = 32, .name = " positive"},
           [](int64_t i) { return static_cast<float>(i % 5) + 1; });
  }
  // Least squares and nearest levels in turns, as often as they may be: by a simulation.
  by_mse({.format = BL_FORMAT_i6_row, .rows = 1, .cols = 96, .name = " six turns"}, [](int64_t i) {
    const float x = static_cast<float>(i * i * 608 % 1009 - 504) / 512;
    return x * x * x;
  });
  for (int32_t dtype : kFloatDtypes) {
    by_mse({.format = BL_FORMAT_u4z_g64_bf16,
            .cols = 99,
            .dtype = dtype,
            .tensor_scale = 0.3f,
            .name = " types"});
    by_mse({.format = BL_FORMAT_i5_g32_bf16, .dtype = dtype, .strides = {3, 7}, .name = " strided"});
  }
}

// Searches with each number of scales to start from, type and tensor scale; of values up to the largest too,
// where scales in bf16 become infinite.
void searches_of_every_type(TestQueue& queue) {
  constexpr int32_t kFormats[] = {BL_FORMAT_t2_g32,      BL_FORMAT_t2_g32_bf16, BL_FORMAT_i3_g32,
                                  BL_FORMAT_i3_g32_bf16, BL_FORMAT_u3z_g32,     BL_FORMAT_u3z_g32_bf16};
  for (int32_t dtype : kFloatDtypes) {
    for (float tensor_scale : {0.0f, 0.3f, 1e-36f}) {
      for (int32_t format : kFormats) {
        Case c{.format = format,
               .rows = 1,
               .cols = 32,
               .dtype = dtype,
               .tensor_scale = tensor_scale,
               .name = " every type",
               .method = BL_QUANTIZE_mse};
        encode(queue, c);
        c.scale = dtype == BL_DTYPE_f16 ? 6e4f : 3.38e38f;
        encode(queue, c);
        encode(queue, c, [&](int64_t i) { return i % 2 == 0 ? c.scale : -c.scale; });
        encode(queue, c, [&](int64_t i) { return i % 3 == 0 ? c.scale : i % 3 == 1 ? c.scale / 8 : 0.0f; });
        encode(queue, c, [&](int64_t i) { return i == 9 ? c.scale : 0.01f * c.scale; });  // far from the mean
      }
    }
  }
}

// Any format, type, stride and kind of values, by mse.
void search_random(const Settings& settings, uint64_t seed) {
  Random random(seed);
  TestQueue queue(settings);
  std::vector<int32_t> formats;
  for (int32_t format = 0; format < BL_FORMAT_count; ++format) {
    if (encoded_on_device(format)) formats.push_back(format);
  }
  Case c{.rows = 1, .name = " random " + std::to_string(seed), .method = BL_QUANTIZE_mse};
  c.format = formats[static_cast<size_t>(random.below(static_cast<int64_t>(formats.size())))];
  if (random.below(4) == 0) c.format = random.below(2) == 0 ? BL_FORMAT_q8_0 : BL_FORMAT_q4_0;
  c.cols = random.below(2) == 0 ? 32 : 64;
  c.dtype = kFloatDtypes[random.below(3)];
  if (random.below(2) == 0) c.strides = {200, 1 + random.below(3)};
  if (random.below(2) == 0) c.tensor_scale = 0.3f;
  const float scales[] = {1, 1, 1, 0, 1e-42f, 1e-5f, 3e4f, 3e38f};
  c.scale = scales[random.below(c.dtype == BL_DTYPE_f16 ? 7 : 8)];
  const int64_t kind = random.below(4), outlier = random.below(c.cols);
  encode(queue, c, [&](int64_t i) {
    const float value = random.uniform() * c.scale;
    return kind == 0 ? std::fabs(value) : kind == 1 && i != outlier ? value * 0.05f : value;
  });
}

void extremes(TestQueue& queue) {
  for (int32_t format = 0; format < BL_FORMAT_count; ++format) {
    if (!encoded_on_device(format)) continue;
    const int64_t group = bl_get_format_info(format)->group_size;
    if (group != 32 && group != 0) continue;
    for (float scale : {0.0f, 1e-42f, 1e-9f, 1e9f, 3e38f})
      encode(queue, {.format = format, .rows = 1, .scale = scale, .name = " extreme"});
    // A scale in bf16 that rounding would make too large for its largest level.
    encode(queue, {.format = format, .rows = 1, .name = " extreme"}, [](int64_t i) {
      return i % 2 == 0 ? std::numeric_limits<float>::max() : -std::numeric_limits<float>::max();
    });
    encode(queue, {.format = format, .rows = 1, .tensor_scale = 1e-30f, .name = " extreme"});
    encode(queue, {.format = format, .rows = 1, .name = " ties"},
           [](int64_t i) { return static_cast<float>(i % 17 - 8) * 0.5f; });
    encode(queue, {.format = format, .rows = 1, .name = " positive"},
           [](int64_t i) { return static_cast<float>(i % 5) + 1; });
  }
}

// Something that is no number anywhere in a matrix, of each type and in strided rows that blocks take in
// turns.
void not_finite(TestQueue& queue) {
  bl_error error{};
  for (int32_t dtype : kFloatDtypes) {
    for (int64_t step : {1, 2}) {
      constexpr int64_t rows = 3, cols = 9 * 256;
      for (int64_t at : {int64_t{5}, cols + 1300, rows * cols - 1}) {
        Tensor input(queue, dtype, {rows, cols}, {cols * step + 1, step});
        input.fill([&](int64_t i) { return i == at ? std::nanf("") : 1.0f; });
        bl_quantize_args args{};
        args.input = input.device();
        args.output.rows = rows, args.output.cols = cols;
        args.output.format = BL_FORMAT_i8_g32;
        std::vector<uint8_t> none(bl_weights_bytes(args.output.format, rows, cols));
        args.output.data = queue.allocate(none.size());
        check(quantize(queue, args, &error) == BL_STATUS_non_finite, "quantize of NaN");
        const std::string place =
            "input[" + std::to_string(at / cols) + ", " + std::to_string(at % cols) + "] is NaN";
        check(std::string(error.message).find(place) != std::string::npos, error.message);
      }
    }
  }
}

void refused(TestQueue& queue) {
  Tensor input(queue, BL_DTYPE_f32, {2, 32});
  bl_quantize_args args{};
  args.input = input.device();
  args.output.data = queue.allocate(512);
  args.output.rows = 2, args.output.cols = 32;
  bl_error error{};
  args.output.format = BL_FORMAT_nf4_g32;
  check(quantize(queue, args, &error) == BL_STATUS_unsupported, "quantize to nf4 on device");
  args.output.format = BL_FORMAT_i8_g32;
  input.fill([](int64_t i) {
    return i == 37 ? -std::numeric_limits<float>::infinity() : i > 50 ? std::nanf("") : 1.0f;
  });
  check(quantize(queue, args, &error) == BL_STATUS_non_finite, "quantize of -infinity");
  check(std::string(error.message) == "quantize: input[1, 5] is -Infinity, expected a finite number",
        error.message);
  check(!queue.is_written(args.output.data, 1), "quantize: nothing was written");
}

}  // namespace

BITLOOM_CUDA_TEST(quantize) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    formats(queue);
    views(queue);
    searches(queue);
    searches_of_every_type(queue);
    extremes(queue);
    refused(queue);
    not_finite(queue);
  }
  for (Settings settings : all_archs()) {
    settings.multiprocessors = 1;  // fewer blocks than pieces
    TestQueue few(settings);
    not_finite(few);
    for (int32_t dtype : kFloatDtypes) decode(few, BL_FORMAT_q8_0, 8192, dtype, {8200, 1});
  }
}

BITLOOM_CUDA_TEST(random_quantize) { run_random("quantize", search_random); }
