// matmul on the interpreter: identity activations, shapes around the edges of tiles, epilogues, schedules,
// counters; against the CPU's operator and float64.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "cuda/backend.h"
#include "cuda/ops/matmul/config.h"
#include "native/base/float16.h"
#include "tensors.h"

namespace bitloom::cuda::testing {
namespace {

// A quantized matrix on the host, canonical, and its fragments on the device.
class Weights {
 public:
  Weights(TestQueue& queue, const std::string& format, int64_t rows, int64_t cols, uint64_t seed,
          float magnitude = 1)
      : rows_(rows), cols_(cols), format_(bl_find_format(format.c_str())) {
    const bl_format_info& info = *bl_get_format_info(format_);
    Random random(seed);
    std::vector<float> values(static_cast<size_t>(rows * cols));
    for (float& value : values) value = random.uniform() * magnitude;
    if (info.kind == BL_KIND_codebook || info.kind == BL_KIND_codebooks) {
      const int tables = info.kind == BL_KIND_codebooks ? 3 : 1;
      for (int i = 0; i < tables << info.bits; ++i) codebook_.push_back(random.uniform() * 3);
    }
    canonical_.resize(bl_weights_bytes(format_, rows, cols));
    host_ = weights(canonical_, BL_LAYOUT_canonical);
    bl_error error{};
    bl_quantize_args quantize{};
    quantize.size = sizeof(quantize);
    quantize.run.isa = BL_ISA_default;
    quantize.input = {values.data(), values.size() * 4, BL_DTYPE_f32, 2, {rows, cols}, {cols, 1}};
    quantize.output = host_;
    check_ok(bl_quantize(&quantize, &error), error, format + " quantize");
    std::vector<uint8_t> fragments(bl_layout_bytes(format_, BL_LAYOUT_fragments, rows, cols));
    bl_pack_args pack{};
    pack.size = sizeof(pack);
    pack.run.isa = BL_ISA_default;
    pack.input = host_;
    pack.output = weights(fragments, BL_LAYOUT_fragments);
    check_ok(bl_pack(&pack, &error), error, format + " pack");
    device_ = pack.output;
    device_.data = queue.allocate(fragments.size());
    queue.write(device_.data, fragments.data(), fragments.size());
    // There and back: canonical bytes, from the fragments and from lanes16; the same values.
    std::vector<uint8_t> back(canonical_.size()),
        lanes(bl_layout_bytes(format_, BL_LAYOUT_lanes16, rows, cols));
    std::vector<uint8_t> again(fragments.size());
    repack(fragments, BL_LAYOUT_fragments, back, BL_LAYOUT_canonical);
    check(back == canonical_, format + ": canonical bytes come back");
    repack(canonical_, BL_LAYOUT_canonical, lanes, BL_LAYOUT_lanes16);
    repack(lanes, BL_LAYOUT_lanes16, again, BL_LAYOUT_fragments);
    check(again == fragments, format + ": fragments from lanes16");
    repack(fragments, BL_LAYOUT_fragments, lanes, BL_LAYOUT_lanes16);
    repack(lanes, BL_LAYOUT_lanes16, back, BL_LAYOUT_canonical);
    check(back == canonical_, format + ": canonical bytes come back through lanes16");
    values_ = decode(host_);
    const std::vector<float> packed = decode(weights(fragments, BL_LAYOUT_fragments));
    for (size_t i = 0; i < values_.size(); ++i) {
      if (std::memcmp(&values_[i], &packed[i], 4) != 0) {
        check(false, format + ": dequantize of fragments: weight " + std::to_string(i) + " is " +
                         std::to_string(packed[i]) + ", expected " + std::to_string(values_[i]));
        break;
      }
    }
  }

  bl_weights device(float tensor_scale = 0) const {
    bl_weights w = device_;
    w.tensor_scale = tensor_scale;
    return w;
  }
  bl_weights host(float tensor_scale = 0) const {
    bl_weights w = host_;
    w.tensor_scale = tensor_scale;
    return w;
  }
  float value(int64_t n, int64_t k) const { return values_[static_cast<size_t>(n * cols_ + k)]; }

 private:
  bl_weights weights(std::vector<uint8_t>& bytes, int32_t layout) {
    bl_weights w{};
    w.data = bytes.data();
    w.bytes = bytes.size();
    w.format = format_;
    w.layout = layout;
    w.rows = rows_;
    w.cols = cols_;
    w.codebook = codebook_.empty() ? nullptr : codebook_.data();
    w.codebook_size = static_cast<int32_t>(codebook_.size());
    return w;
  }
  void repack(std::vector<uint8_t>& from, int32_t from_layout, std::vector<uint8_t>& to, int32_t to_layout) {
    bl_error error{};
    bl_pack_args pack{};
    pack.size = sizeof(pack);
    pack.run.isa = BL_ISA_default;
    pack.input = weights(from, from_layout);
    pack.output = weights(to, to_layout);
    check_ok(bl_pack(&pack, &error), error, "pack");
  }
  std::vector<float> decode(const bl_weights& w) {
    std::vector<float> values(static_cast<size_t>(rows_ * cols_));
    bl_error error{};
    bl_dequantize_args args{};
    args.size = sizeof(args);
    args.run.isa = BL_ISA_default;
    args.input = w;
    args.output = {values.data(), values.size() * 4, BL_DTYPE_f32, 2, {rows_, cols_}, {cols_, 1}};
    check_ok(bl_dequantize(&args, &error), error, "dequantize");
    return values;
  }

  int64_t rows_, cols_;
  int32_t format_;
  std::vector<float> codebook_;
  std::vector<uint8_t> canonical_;
  std::vector<float> values_;
  bl_weights host_{}, device_{};
};

bl_matmul_args arguments() {
  bl_matmul_args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_default;
  return args;
}

std::string shape_name(const std::string& format, int64_t m, int64_t n, int64_t k) {
  return format + " " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
}

// c = a b^T on the device within `bound` * sum |a b| of float64, given what a is rounded to.
void check_product(const Settings& settings, const std::string& format, int64_t m, int64_t n, int64_t k,
                   int32_t a_type = BL_DTYPE_f16, int32_t c_type = BL_DTYPE_f32) {
  TestQueue queue(settings);
  const std::string what = shape_name(format, m, n, k);
  try {
    const Weights b(queue, format, n, k, static_cast<uint64_t>(n * k + 7));
    Tensor a(queue, a_type, {m, k}), c(queue, c_type, {m, n});
    a.uniform(3);
    bl_error error{};
    bl_matmul_args args = arguments();
    args.a = a.device();
    args.b = b.device();
    args.c = c.device();
    check_ok(matmul(queue, args, &error), error, what);
    check(queue.scratch_in_use() == 0, what + ": scratch is free again");
    const std::vector<float> got = c.device_values();
    double worst = 0;
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        double sum = 0, magnitude = 0;
        for (int64_t x = 0; x < k; ++x) {
          const double product = static_cast<double>(a.host_value(i * k + x)) * b.value(j, x);
          sum += product;
          magnitude += std::fabs(product);
        }
        const double off =
            std::fabs(got[static_cast<size_t>(i * n + j)] - sum) - epsilon_of(c_type) * std::fabs(sum);
        // Weights and activations rounded to f16, sums to f32.
        worst = std::max(worst, magnitude == 0 ? off * 1e30 : off / magnitude);
      }
    }
    const double bound = a_type == BL_DTYPE_f32 ? 0x1p-10 : 0x1.8p-11;
    check(worst <= bound, what + ": error " + std::to_string(worst * 0x1p11) + " * 2^-11");
  } catch (const std::exception& fault) {
    check(false, what + ": " + fault.what());
  }
}

// Every weight by itself: a is a row of the identity.
void check_identity(const Settings& settings, const std::string& format, int64_t rows_of_a, int64_t n,
                    int64_t k) {
  TestQueue queue(settings);
  const std::string what = shape_name(format, rows_of_a, n, k) + " identity";
  try {
    const Weights b(queue, format, n, k, 5);
    for (int64_t first = 0; first < k; first += rows_of_a) {
      Tensor a(queue, BL_DTYPE_f16, {rows_of_a, k}), c(queue, BL_DTYPE_f32, {rows_of_a, n});
      a.fill([&](int64_t i) { return i % k == first + i / k ? 1.0f : 0.0f; });
      bl_error error{};
      bl_matmul_args args = arguments();
      args.a = a.device();
      args.b = b.device();
      args.c = c.device();
      check_ok(matmul(queue, args, &error), error, what);
      const std::vector<float> got = c.device_values();
      for (int64_t i = 0; i < rows_of_a && first + i < k; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          const float want = b.value(j, first + i), is = got[static_cast<size_t>(i * n + j)];
          // Rounded to f16 (11 bits), its scale before (K types) or an entry too. Types with mins: scale, min
          // and sum are rounded, each at most twice the largest weight.
          const bool mins = format == "q2_k" || format == "q4_k" || format == "q5_k";
          const double bound = (mins ? 2.0 : std::fabs(want)) * 0x1p-10 + 0x1p-24;
          if (std::fabs(want - is) <= bound) continue;
          check(false, what + ": weight " + std::to_string(j) + ", " + std::to_string(first + i) + " is " +
                           std::to_string(is) + ", expected " + std::to_string(want));
          return;
        }
      }
    }
  } catch (const std::exception& fault) {
    check(false, what + ": " + fault.what());
  }
}

}  // namespace

BITLOOM_CUDA_TEST(matmul_first) {
  for (const char* format : {"u4_g128", "q4_0"}) {
    check_identity({}, format, 16, 40, 128);
    check_identity({}, format, 64, 40, 128);
    check_product({}, format, 3, 40, 256);
    check_product({}, format, 70, 150, 256);
  }
}

BITLOOM_CUDA_TEST(matmul_formats) {
  for (const char* format :
       {"u1_g128",     "u2_g64",   "u3_g32",   "u4_g32",     "u5_g64",    "u6_g128",      "u7_g256",
        "u8_g32",      "i1_g32",   "i2_row",   "i3_g64",     "i4_row",    "i5_g32",       "i6_g32",
        "i7_g64",      "i8_row",   "u1z_g32",  "u2z_g32",    "u3z_g64",   "u4z_g32",      "u5z_row",
        "u6z_g128",    "u7z_g32",  "u8z_g64",  "i4z_g64",    "i8z_g32",   "u4_g128_bf16", "u4z_g64_bf16",
        "u8_row_bf16", "t2_g256",  "nf4_g64",  "fp4_g32",    "cb1_g32",   "cb2_g64",      "cb3_row",
        "cb4_g128",    "cb5_g32",  "cb6_g64",  "cb8_row",    "bfp2_g8",   "bfp3_g16",     "bfp4_g32",
        "bfp5_g16",    "bfp6_g64", "bfp7_g8",  "bfp8_g128",  "e2m1_g16",  "e2m1_g8",      "e2m3_g32",
        "e3m2_g32",    "e4m3_g32", "e5m2_g64", "mxint8_g32", "nvfp4_g16", "mxfp4",        "nvfp4",
        "q8_0",        "q4_0",     "q4_1",     "q5_0",       "q5_1",      "q2_k",         "q3_k",
        "q4_k",        "q5_k",     "q6_k",     "tq1_0",      "tq2_0",     "iq4_nl",       "f16",
        "bf16",        "f32",      "cbs2_g32", "cbs3_g64",   "cbs4_g128", "lut2_row",     "lut3_row_bf16",
        "lut4_row"}) {
    check_identity({}, format, 16, 24, 256);
    check_identity({}, format, 64, 24, 256);
  }
}

// Around every edge of tiles, units and groups.
BITLOOM_CUDA_TEST(matmul_shapes) {
  const Settings settings;
  for (const char* format : {"u4_g64", "u3z_row", "q4_0", "nf4_g128"}) {
    const int64_t step = std::string(format) == "q4_0" ? 32 : 8;
    for (int64_t m : {1, 2, 15, 16, 17, 63, 64, 65, 129}) check_product(settings, format, m, 40, 192);
    for (int64_t n : {1, 15, 16, 17, 127, 128, 129, 260}) {
      check_product(settings, format, 5, n, 96);
      check_product(settings, format, 40, n, 96);
    }
    for (int64_t k : {1, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 31, 33, 64}) {
      check_product(settings, format, 4, 20, k * step);
      check_product(settings, format, 20, 20, k * step);
    }
  }
  for (int64_t k : {1, 7, 63, 65, 77, 130}) {  // rows of a at odd places
    check_product(settings, "u5_row", 3, 20, k);
    check_product(settings, "i8z_g32", 33, 20, k);
  }
}

BITLOOM_CUDA_TEST(matmul_types) {
  for (int32_t a_type : kFloatDtypes) {
    for (int32_t c_type : kFloatDtypes) {
      check_product({}, "u4_g32", 7, 48, 128, a_type, c_type);
      check_product({}, "u4_g32", 37, 48, 128, a_type, c_type);
    }
  }
}

namespace {

// The same call on both sides: the CPU's in f32 from the same tensors, but weights canonical.
struct Call {
  TestQueue queue;
  Weights b;
  bl_matmul_args device = arguments(), host = arguments();

  Call(const Settings& settings, const char* format, int64_t n, int64_t k)
      : queue(settings), b(queue, format, n, k, 11) {
    device.b = b.device();
    host.b = b.host();
  }
  void set(bl_tensor bl_matmul_args::* member, const Tensor& tensor) {
    device.*member = tensor.device();
    host.*member = tensor.host();
  }
  // Both sides run; c agrees within `bound` relative to `scale`.
  void compare(Tensor& c, double bound, const std::string& what) {
    try {
      bl_error error{};
      set(&bl_matmul_args::c, c);
      check_ok(matmul(queue, device, &error), error, what);
      check_ok(bl_matmul(&host, &error), error, what + " cpu");
      check(queue.scratch_in_use() == 0, what + ": scratch is free again");
      std::vector<float> want(static_cast<size_t>(c.size()));
      for (int64_t i = 0; i < c.size(); ++i) want[static_cast<size_t>(i)] = c.host_value(i);
      check_close(c, want, bound, bound, what);
    } catch (const std::exception& fault) {
      check(false, what + ": " + fault.what());
    }
  }
};

}  // namespace

// Everything that may follow the product, one by one and together, in both kernels, with strides.
BITLOOM_CUDA_TEST(matmul_epilogue) {
  constexpr int64_t n = 70, k = 128;
  for (int64_t m : {3, 37}) {
    for (int32_t activation = BL_ACTIVATION_none; activation <= BL_ACTIVATION_geglu; ++activation) {
      for (int32_t parts = 0; parts < 16; parts += activation % 3 + 1) {
        Call call({}, "u4_g32", n, k);
        TestQueue& queue = call.queue;
        const bool gated = activation >= BL_ACTIVATION_swiglu;
        const int64_t columns = gated ? n / 2 : n;
        const int32_t type = kFloatDtypes[(parts + activation) % 3];
        Tensor a(queue, BL_DTYPE_f16, {m, k}), c(queue, type, {m, columns}, {columns + 3, 1});
        Tensor bias(queue, BL_DTYPE_f32, {n}), row_scale(queue, BL_DTYPE_f32, {n});
        Tensor addend(queue, BL_DTYPE_bf16, {m, n}), residual(queue, BL_DTYPE_f16, {m, columns}, {1, m + 2});
        a.uniform(1);
        bias.uniform(2);
        row_scale.uniform(3);
        addend.uniform(4);
        residual.uniform(5);
        call.set(&bl_matmul_args::a, a);
        if (parts & 1) call.set(&bl_matmul_args::bias, bias);
        if (parts & 2) call.set(&bl_matmul_args::row_scale, row_scale);
        if (parts & 4) call.set(&bl_matmul_args::addend, addend);
        if (parts & 8) call.set(&bl_matmul_args::residual, residual);
        call.device.activation = call.host.activation = activation;
        call.device.scale = call.host.scale = parts & 2 ? 0.5f : 0;
        call.device.b = call.b.device(parts & 1 ? 1.5f : 0);
        call.host.b = call.b.host(parts & 1 ? 1.5f : 0);
        // Sums of 128 products of up to 1, a and b rounded at 2^-11: about 0.03; a gate multiplies two.
        call.compare(c, 0.04 + 2 * epsilon_of(type),
                     "epilogue " + std::to_string(m) + " activation " + std::to_string(activation) +
                         " parts " + std::to_string(parts));
      }
    }
  }
}

BITLOOM_CUDA_TEST(matmul_codes) {
  constexpr int64_t n = 75, k = 96;
  for (int64_t m : {2, 21}) {
    for (bool scales : {false, true}) {
      // c of i8: codes may differ by one where the CPU's product is nearly half way.
      Call call({}, "u4_g32", n, k);
      Tensor a(call.queue, BL_DTYPE_f16, {m, k}), c(call.queue, BL_DTYPE_i8, {m, n});
      Tensor c_scales(call.queue, BL_DTYPE_f32, {m, (n + 31) / 32});
      a.uniform(1);
      call.set(&bl_matmul_args::a, a);
      if (scales) call.set(&bl_matmul_args::c_scales, c_scales);
      if (!scales) call.device.c_scale = call.host.c_scale = 0.1f;
      call.compare(c, 1.01, "c of i8 " + std::to_string(m));
      if (scales) {
        std::vector<float> want(static_cast<size_t>(c_scales.size()));
        for (int64_t i = 0; i < c_scales.size(); ++i) want[static_cast<size_t>(i)] = c_scales.host_value(i);
        check_close(c_scales, want, 2e-3, 0, "c_scales");
      }
    }
    for (bool per_row : {false, true}) {
      Call call({}, "i8_g32", n, k);
      Tensor a(call.queue, BL_DTYPE_i8, {m, k}), c(call.queue, BL_DTYPE_f32, {m, n});
      Tensor scales(call.queue, BL_DTYPE_f32,
                    per_row ? std::vector<int64_t>{m} : std::vector<int64_t>{m, k / 32});
      a.fill([](int64_t i) { return static_cast<float>(i * 37 % 255 - 127); });
      scales.fill([](int64_t i) { return 0.01f + 0.001f * static_cast<float>(i % 7); });
      call.set(&bl_matmul_args::a, a);
      call.set(&bl_matmul_args::a_scales, scales);
      call.compare(c, 0.05, "a of i8 " + std::to_string(m));
    }
  }
}

BITLOOM_CUDA_TEST(matmul_additions) {
  constexpr int64_t n = 48, k = 64, rank = 5;
  for (int64_t m : {3, 20}) {
    Call call({}, "q4_0", n, k);
    TestQueue& queue = call.queue;
    Tensor a(queue, BL_DTYPE_bf16, {m, k}), c(queue, BL_DTYPE_f32, {m, n});
    Tensor down(queue, BL_DTYPE_f16, {rank, k}), up(queue, BL_DTYPE_f32, {n, rank}, {1, n});
    a.uniform(1);
    down.uniform(2);
    up.uniform(3);
    call.set(&bl_matmul_args::a, a);
    call.set(&bl_matmul_args::low_rank_down, down);
    call.set(&bl_matmul_args::low_rank_up, up);
    call.device.low_rank_scale = call.host.low_rank_scale = 0.5f;
    call.compare(c, 0.03, "low rank");
    // Outliers: row i has i % 4 of them.
    std::vector<int32_t> offsets = {0}, columns;
    for (int32_t i = 0; i < n; ++i) {
      for (int32_t j = 0; j < i % 4; ++j) columns.push_back((i * 7 + j * 13) % k);
      offsets.push_back(static_cast<int32_t>(columns.size()));
    }
    Tensor row_offsets(queue, BL_DTYPE_i32, {n + 1});
    Tensor places(queue, BL_DTYPE_i32, {static_cast<int64_t>(columns.size())});
    Tensor values(queue, BL_DTYPE_f16, {static_cast<int64_t>(columns.size())});
    row_offsets.integers(offsets);
    places.integers(columns);
    values.uniform(9, 4);
    call.set(&bl_matmul_args::outlier_row_offsets, row_offsets);
    call.set(&bl_matmul_args::outlier_columns, places);
    call.set(&bl_matmul_args::outlier_values, values);
    call.compare(c, 0.03, "low rank and outliers");
    // Columns of a picked and scaled.
    Call order({}, "u4_g32", n, k);
    Tensor wide(order.queue, BL_DTYPE_f32, {m, k + 9}), out(order.queue, BL_DTYPE_f32, {m, n});
    Tensor column_order(order.queue, BL_DTYPE_i32, {k}), column_scale(order.queue, BL_DTYPE_f32, {k + 9});
    std::vector<int32_t> picked;
    for (int32_t i = 0; i < k; ++i) picked.push_back((i * 5 + 3) % (k + 9));
    wide.uniform(5);
    column_order.integers(picked);
    column_scale.uniform(6);
    order.set(&bl_matmul_args::a, wide);
    order.set(&bl_matmul_args::column_order, column_order);
    order.set(&bl_matmul_args::column_scale, column_scale);
    order.compare(out, 0.03, "columns picked and scaled");
  }
}

BITLOOM_CUDA_TEST(matmul_batch) {
  constexpr int64_t batch = 3, n = 32, k = 96;
  for (int64_t m : {2, 19}) {
    for (bool gated : {false, true}) {
      Call call({}, "i4_g32", batch * n, k);
      TestQueue& queue = call.queue;
      Tensor a(queue, BL_DTYPE_f16, {batch, m, k}), c(queue, BL_DTYPE_f16, {batch, m, gated ? n / 2 : n});
      Tensor bias(queue, BL_DTYPE_f32, {batch * n});
      a.uniform(1);
      bias.uniform(2);
      call.set(&bl_matmul_args::a, a);
      call.set(&bl_matmul_args::bias, bias);
      call.device.batch = call.host.batch = batch;
      call.device.activation = call.host.activation = gated ? BL_ACTIVATION_swiglu : BL_ACTIVATION_none;
      call.compare(c, 0.05, "batch");
    }
  }
  // K = 0: what is added is all there is. M = 0: nothing.
  TestQueue queue;
  Tensor bias(queue, BL_DTYPE_f32, {20}), c(queue, BL_DTYPE_f32, {3, 20}), none(queue, BL_DTYPE_f16, {3, 0});
  bias.uniform(2);
  bl_matmul_args args = arguments();
  args.a = none.device();
  args.b.format = bl_find_format("u4_g32");
  args.b.layout = BL_LAYOUT_fragments;
  args.b.rows = 20;
  args.bias = bias.device();
  args.c = c.device();
  bl_error error{};
  check_ok(matmul(queue, args, &error), error, "K = 0");
  const std::vector<float> got = c.device_values();
  for (int64_t i = 0; i < 60; ++i) check(got[static_cast<size_t>(i)] == bias.host_value(i % 20), "K = 0");
  args.a.shape[0] = args.c.shape[0] = 0;
  queue.launches.clear();
  check_ok(matmul(queue, args, &error), error, "M = 0");
  check(queue.launches.empty(), "M = 0 launches nothing");
}

BITLOOM_CUDA_TEST(matmul_errors) {
  TestQueue queue;
  const Weights b(queue, "u4_g32", 16, 64, 1);
  Tensor a(queue, BL_DTYPE_f16, {2, 64}), c(queue, BL_DTYPE_f32, {2, 16});
  a.uniform(1);
  const auto refuse = [&](void (*change)(bl_matmul_args*), const char* part) {
    bl_matmul_args args = arguments();
    args.a = a.device();
    args.b = b.device();
    args.c = c.device();
    change(&args);
    bl_error error{};
    queue.launches.clear();
    check(matmul(queue, args, &error) == BL_STATUS_unsupported, std::string("unsupported: ") + part);
    check(std::string(error.message).find(part) != std::string::npos,
          std::string(part) + " in: " + error.message);
    check(queue.launches.empty(), std::string(part) + ": nothing launched");
  };
  refuse([](bl_matmul_args* args) { args->b.layout = BL_LAYOUT_lanes16; }, "b.layout is 1");
  refuse([](bl_matmul_args* args) { args->compute = BL_COMPUTE_i1; }, "compute is 3");
  refuse([](bl_matmul_args* args) { args->algorithm = BL_ALGORITHM_lut; }, "algorithm is 1");
  refuse([](bl_matmul_args* args) { args->prepared = args; }, "prepared");
  refuse([](bl_matmul_args* args) { args->c.data = static_cast<char*>(args->c.data) + 1; }, "c.data");
  refuse([](bl_matmul_args* args) { args->low_rank_ids.data = args; }, "low_rank_ids");
  // Out of memory half way is an error, and leaves no scratch behind.
  for (uint64_t allowed : {0, 1, 2}) {
    Tensor wide(queue, BL_DTYPE_f32, {2, 64});
    wide.uniform(2);
    bl_matmul_args args = arguments();
    args.a = wide.device();
    args.b = b.device();
    args.c = c.device();
    args.activation = BL_ACTIVATION_swiglu;
    args.c.shape[1] = 8;
    queue.fail_after_allocations = allowed;
    bl_error error{};
    check(matmul(queue, args, &error) == BL_STATUS_out_of_memory, "out of memory");
    check(queue.scratch_in_use() == 0, "out of memory: scratch is free again");
  }
  // The CPU's matmul does not take the layout.
  bl_error error{};
  bl_matmul_args args = arguments();
  args.a = a.host();
  args.c = c.host();
  std::vector<uint8_t> bytes(bl_layout_bytes(bl_find_format("u4_g32"), BL_LAYOUT_fragments, 16, 64));
  args.b = b.device();
  args.b.data = bytes.data();
  check(bl_matmul(&args, &error) == BL_STATUS_invalid_layout, "cpu: layout");
}

// Every schedule gives the same bits; sums of tensor cores stay within the bound.
BITLOOM_CUDA_TEST(matmul_schedules) {
  for (const char* format : {"u4_g32", "q4_k", "nf4_g64", "u3z_g32", "mxfp4", "f16"}) {
    for (int64_t m : {5, 20}) {
      std::vector<uint8_t> first;
      for (const Settings& settings : all_schedules()) {
        const std::string what =
            shape_name(format, m, 24, 512) + " seed " + std::to_string(settings.options.seed);
        try {
          TestQueue queue(settings);
          const Weights b(queue, format, 24, 512, 3);
          Tensor a(queue, BL_DTYPE_f16, {m, 512}), c(queue, BL_DTYPE_f32, {m, 24});
          a.uniform(1);
          bl_matmul_args args = arguments();
          args.a = a.device();
          args.b = b.device();
          args.c = c.device();
          bl_error error{};
          check_ok(matmul(queue, args, &error), error, what);
          if (first.empty() || settings.arch != 80) {
            if (first.empty()) first = c.device_bytes();
          }
          check(c.device_bytes() == first, what + ": the same bits");
        } catch (const std::exception& fault) {
          check(false, what + ": " + fault.what());
        }
      }
      for (uint32_t block : {4, 8, 16}) {
        Settings settings;
        settings.options.mma_block = block;
        check_product(settings, format, m, 24, 512);
      }
    }
  }
}

// Splits of K: the same products for every device, whatever its size.
BITLOOM_CUDA_TEST(matmul_splits) {
  for (int32_t multiprocessors : {1, 4, 16, 132}) {
    Settings settings;
    settings.multiprocessors = multiprocessors;
    check_product(settings, "u4_g128", 4, 40, 2048 + 64);
    check_product(settings, "u4_g128", 17, 40, 2048 + 64);
    check_product(settings, "q6_k", 17, 40, 1792);
  }
}

namespace {

// What the launch of a product did; MATMUL_COUNTS=1 prints it, for the README's table.
void count(const char* format, int64_t m, int64_t n, int64_t k, double most_per_mma, double most_excess) {
  Settings settings;
  settings.multiprocessors = 1;
  TestQueue queue(settings);
  const Weights b(queue, format, n, k, 3);
  Tensor a(queue, BL_DTYPE_f16, {m, k}), c(queue, BL_DTYPE_f16, {m, n});
  a.uniform(1);
  bl_matmul_args args = arguments();
  args.a = a.device();
  args.b = b.device();
  args.c = c.device();
  bl_error error{};
  queue.launches.clear();
  check_ok(matmul(queue, args, &error), error, format);
  const std::string what = shape_name(format, m, n, k) + " counters";
  const ptx::Counters& counters = queue.launches[0].report.counters;
  uint64_t wavefronts = 0, ideal = 0;
  for (size_t pc = 0; pc < counters.counts.size(); ++pc) {
    const ptx::InstrCount& i = counters.counts[pc];
    wavefronts += i.wavefronts;
    ideal += i.ideal_wavefronts;
  }
  const ptx::InstrCount copies = counters.total("cp.async.cg"), loads = counters.total("ld.global");
  // Bytes of copies are counted on both sides.
  const double used = static_cast<double>(copies.bytes / 2 + loads.bytes) /
                      (32.0 * static_cast<double>(copies.sectors + loads.sectors));
  const int64_t row_tiles = m <= gemm::kStreamRows ? (m + 7) / 8 : (m + 63) / 64 * 8;
  const int64_t column_tiles = m <= gemm::kStreamRows ? (n + 15) / 16 : (n + 127) / 128 * 8;
  const uint64_t least = static_cast<uint64_t>(row_tiles * column_tiles * ((k + 63) / 64 * 4));
  check(counters.mma() == least,
        what + ": mma " + std::to_string(counters.mma()) + ", least " + std::to_string(least));
  const double per_mma = static_cast<double>(counters.warp_instructions()) / static_cast<double>(least);
  const double excess = static_cast<double>(wavefronts - ideal) / static_cast<double>(ideal);
  check(per_mma <= most_per_mma, what + ": instructions per mma " + std::to_string(per_mma));
  check(excess <= most_excess, what + ": excess wavefronts " + std::to_string(excess));
  if (m > gemm::kStreamRows) check(copies.bytes == 64 * copies.sectors, what + ": bytes of copies used");
  if (std::getenv("MATMUL_COUNTS") != nullptr) {
    std::printf("%-40s instructions/mma %.2f, wavefronts %llu of %llu, global bytes used %.3f\n",
                what.c_str(), per_mma, static_cast<unsigned long long>(wavefronts),
                static_cast<unsigned long long>(ideal), used);
  }
}

}  // namespace

// PTX instructions of a launch, with prologue and epilogue; wavefronts of shared memory; mma.
BITLOOM_CUDA_TEST(matmul_counters) {
  count("u4_g128", 64, 128, 2048, 6.0, 0);
  count("q4_0", 64, 128, 2048, 6.5, 0);
  count("q8_0", 64, 128, 2048, 6.5, 0);
  count("u3_g64", 64, 128, 2048, 9.0, 0.04);
  count("q4_k", 64, 128, 2048, 9.5, 0.02);
  count("mxfp4", 64, 128, 2048, 9.5, 0.02);
  count("nf4_g64", 64, 128, 2048, 9.0, 0.35);
  count("cb3_g64", 64, 128, 2048, 9.5, 0.08);
  count("u4_g128", 1, 256, 4096, 43.0, 0.4);
  count("q4_0", 1, 256, 4096, 45.0, 0.4);
  count("q4_k", 1, 256, 4096, 83.0, 0.4);
  count("q8_0", 8, 256, 4096, 49.0, 0.4);
}

// Every kernel with everything its epilogue can do, so that every instruction runs.
BITLOOM_CUDA_TEST(matmul_coverage) {
  constexpr int64_t n = 30, k = 256;
  for (const char* format :
       {"u4_g32",  "u4_g64_bf16", "i8_row",   "u8_g32_bf16", "u1_g32",   "u2z_g32",      "q2_k",
        "u3_g64",  "q3_k",        "q4_k",     "q4_1",        "bfp4_g8",  "u5z_g32_bf16", "q5_k",
        "u6_g64",  "q6_k",        "u7_g32",   "u8z_g64",     "bfp8_g16", "e2m1_g32",     "nvfp4_g16",
        "fp4_g64", "e3m2_g32",    "e4m3_g64", "cb2_g32",     "cbs2_g64", "cb3_g64",      "cbs3_g32",
        "nf4_g32", "cbs4_g32",    "iq4_nl",   "f16"}) {
    for (int64_t m : {9, 17}) {
      for (int32_t i = 0; i < 6; ++i) {
        for (int32_t arch : {80, 120}) {
          Settings settings;
          settings.arch = arch;
          settings.multiprocessors = 1;
          Call call(settings, format, n, k);
          TestQueue& queue = call.queue;
          const int32_t type = kFloatDtypes[i % 3];
          Tensor a(queue, i < 3 ? BL_DTYPE_f16 : BL_DTYPE_f32, {m, k}), c(queue, type, {m, n});
          Tensor bias(queue, BL_DTYPE_f32, {n}), row_scale(queue, BL_DTYPE_f32, {n});
          Tensor addend(queue, kFloatDtypes[(i + 1) % 3], {m, n}),
              residual(queue, kFloatDtypes[(i + 2) % 3], {m, n});
          a.uniform(1, 0.2f);
          bias.uniform(2);
          row_scale.uniform(3);
          addend.uniform(4);
          residual.uniform(5);
          call.set(&bl_matmul_args::a, a);
          if (i > 0) {
            call.set(&bl_matmul_args::bias, bias);
            call.set(&bl_matmul_args::row_scale, row_scale);
            call.set(&bl_matmul_args::addend, addend);
            call.set(&bl_matmul_args::residual, residual);
          }
          call.device.activation = call.host.activation = i % 5;
          call.compare(c, 0.02 + 2 * epsilon_of(type),
                       shape_name(format, m, n, k) + " epilogue " + std::to_string(i));
        }
      }
    }
  }
}

}  // namespace bitloom::cuda::testing
