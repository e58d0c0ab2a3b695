// What the tests of matmul share: weights on both sides, calls and their bounds.
#pragma once

#include <cmath>
#include <cstring>
#include <string>

#include "cuda/backend.h"
#include "tensors.h"

namespace bitloom::cuda::testing {

// A quantized matrix on the host, canonical, and its fragments on the device.
class PackedWeights {
 public:
  PackedWeights(TestQueue& queue, const std::string& format, int64_t rows, int64_t cols, uint64_t seed,
                float magnitude = 1, int tables = 3)
      : rows_(rows), cols_(cols), format_(bl_find_format(format.c_str())) {
    const bl_format_info& info = *bl_get_format_info(format_);
    Random random(seed);
    std::vector<float> values(static_cast<size_t>(rows * cols));
    for (float& value : values) value = random.uniform() * magnitude;
    if (info.kind == BL_KIND_codebook || info.kind == BL_KIND_codebooks) {
      const int count = info.kind == BL_KIND_codebooks ? tables : 1;
      for (int i = 0; i < count << info.bits; ++i) codebook_.push_back(random.uniform() * 3);
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

inline bl_matmul_args arguments() {
  bl_matmul_args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_default;
  return args;
}

inline std::string shape_name(const std::string& format, int64_t m, int64_t n, int64_t k) {
  return format + " " + std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k);
}

// c = a b^T on the device within `bound` * sum |a b| of float64, given what a is rounded to.
inline void check_product(const Settings& settings, const std::string& format, int64_t m, int64_t n,
                          int64_t k, int32_t a_type = BL_DTYPE_f16, int32_t c_type = BL_DTYPE_f32) {
  TestQueue queue(settings);
  const std::string what = shape_name(format, m, n, k);
  try {
    const PackedWeights b(queue, format, n, k, static_cast<uint64_t>(n * k + 7));
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
        // PackedWeights and activations rounded to f16, sums to f32.
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
inline void check_identity(const Settings& settings, const std::string& format, int64_t rows_of_a, int64_t n,
                           int64_t k) {
  TestQueue queue(settings);
  const std::string what = shape_name(format, rows_of_a, n, k) + " identity";
  try {
    const PackedWeights b(queue, format, n, k, 5);
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

// The same call on both sides: the CPU's in f32 from the same tensors, but weights canonical.
struct Call {
  TestQueue queue;
  PackedWeights b;
  bl_matmul_args device = arguments(), host = arguments();

  Call(const Settings& settings, const char* format, int64_t n, int64_t k, int tables = 3)
      : queue(settings), b(queue, format, n, k, 11, 1, tables) {
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

// Everything that may follow a product, and its output: the i-th of a row of calls, of which 15 have each
// type with each activation.
struct Surroundings {
  Tensor c, bias, row_scale, addend, residual;

  Surroundings(Call& call, int64_t m, int64_t n, int32_t i)
      : c(call.queue, kFloatDtypes[i % 3], {m, n}),
        bias(call.queue, BL_DTYPE_f32, {n}),
        row_scale(call.queue, BL_DTYPE_f32, {n}),
        addend(call.queue, kFloatDtypes[(i + 1) % 3], {m, n}),
        residual(call.queue, kFloatDtypes[(i + 2) % 3], {m, n}) {
    bias.uniform(2);
    row_scale.uniform(3);
    addend.uniform(4);
    residual.uniform(5);
    if (i % 4 != 0) {
      call.set(&bl_matmul_args::bias, bias);
      call.set(&bl_matmul_args::row_scale, row_scale);
      call.set(&bl_matmul_args::addend, addend);
      call.set(&bl_matmul_args::residual, residual);
    }
    call.device.activation = call.host.activation = i % 5;
  }
  double epsilon(int32_t i) const { return 2 * epsilon_of(kFloatDtypes[i % 3]); }
};

}  // namespace bitloom::cuda::testing
