// matmul on the interpreter: identity activations, shapes around the edges of tiles, epilogues, schedules, counters;
// against the CPU's operator and float64.
#include <cmath>
#include <cstdio>
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
    std::vector<uint8_t> back(canonical_.size()), lanes(bl_layout_bytes(format_, BL_LAYOUT_lanes16, rows, cols));
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
        check(false, format + ": dequantize of fragments: weight " + std::to_string(i) + " is " + std::to_string(packed[i]) + ", expected " + std::to_string(values_[i]));
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
        const double off = std::fabs(got[static_cast<size_t>(i * n + j)] - sum) - epsilon_of(c_type) * std::fabs(sum);
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
void check_identity(const Settings& settings, const std::string& format, int64_t rows_of_a, int64_t n, int64_t k) {
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
          // Rounded to f16 (11 bits), its scale before (K types) or an entry too. Types with mins: scale, min and sum
          // are rounded, each at most twice the largest weight.
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
       {"u1_g128", "u2_g64", "u3_g32", "u4_g32", "u5_g64", "u6_g128", "u7_g256", "u8_g32", "i1_g32", "i2_row", "i3_g64",
        "i4_row", "i5_g32", "i6_g32", "i7_g64", "i8_row", "u1z_g32", "u2z_g32", "u3z_g64", "u4z_g32", "u5z_row",
        "u6z_g128", "u7z_g32", "u8z_g64", "i4z_g64", "i8z_g32", "u4_g128_bf16", "u4z_g64_bf16", "u8_row_bf16", "t2_g256",
        "nf4_g64", "fp4_g32", "cb1_g32", "cb2_g64", "cb3_row", "cb4_g128", "cb5_g32", "cb6_g64", "cb8_row", "bfp2_g8",
        "bfp3_g16", "bfp4_g32", "bfp5_g16", "bfp6_g64", "bfp7_g8", "bfp8_g128", "e2m1_g16", "e2m1_g8", "e2m3_g32",
        "e3m2_g32", "e4m3_g32", "e5m2_g64", "mxint8_g32", "nvfp4_g16", "mxfp4", "nvfp4", "q8_0", "q4_0", "q4_1", "q5_0",
        "q5_1", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "tq1_0", "tq2_0", "iq4_nl", "f16", "bf16", "f32", "cbs2_g32",
        "cbs3_g64", "cbs4_g128", "lut2_row", "lut3_row_bf16", "lut4_row"}) {
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

}  // namespace bitloom::cuda::testing
