// matmul with random combinations of what may go with a product, so that every instruction of the kernels
// around it runs.
#include <optional>

#include "matmul_calls.h"
#include "random_calls.h"

namespace bitloom::cuda::testing {
namespace {

class RandomCall {
 public:
  // integers: products of int8 codes.
  RandomCall(const Settings& settings, uint64_t seed, bool integers)
      : random_(seed), settings_(settings), integers_(integers) {
    // Few multiprocessors: no splits of K, or blocks that go through several rows.
    settings_.multiprocessors = static_cast<int32_t>(one_of({1, 1, 4, 12, 40}));
  }

  void run(uint64_t number) {
    const char* format = integers_ ? any_integers() : any_format();
    const bl_format_info& info = *bl_get_format_info(bl_find_format(format));
    const int64_t step = std::max<int64_t>(info.block_elements, 32);
    m_ = one_of({1, 2, 3, 7, 9, 20});
    k_ = 32 * one_of({1, 2, 5, 9, 13, 17, 48, 96});
    k_ = (k_ + step - 1) / step * step;
    gated_ = one_of({0, 0, 1}) == 1;
    n_ = one_of({2, 6, 16, 34, 70, 98});
    call_.emplace(settings_, format, n_, k_);
    if (integers_) round_activations();
    columns_ = gated_ ? n_ / 2 : n_;
    tensors_.clear();
    set_a();
    add_terms();
    if (one_of({0, 1}) == 1) add_low_rank();
    if (one_of({0, 1}) == 1) add_outliers();
    const bool codes = one_of({0, 0, 1}) == 1;
    Tensor& c = make(codes ? int32_t{BL_DTYPE_i8} : kFloatDtypes[random_.below(3)], {m_, columns_});
    const int32_t gates[] = {BL_ACTIVATION_swiglu, BL_ACTIVATION_geglu};
    call_->device.activation = call_->host.activation =
        gated_ ? gates[random_.below(2)] : static_cast<int32_t>(random_.below(5));
    if (codes && one_of({0, 1}) == 1) {
      Tensor& scales = make(BL_DTYPE_f32, {m_, (columns_ + 31) / 32});
      call_->set(&bl_matmul_args::c_scales, scales);
    } else if (codes) {
      call_->device.c_scale = call_->host.c_scale = 0.05f;
    }
    // Sums of k products of at most 3 (entries of tables) by 1/4, rounded at 2^-11 each; a gate multiplies
    // two of them.
    const double sum = 0x1p-9 * static_cast<double>(k_) * (gated_ ? 8 : 1);
    call_->compare(c, codes ? 2.01 + 20 * sum : 0.05 + sum + 2 * epsilon_of(BL_DTYPE_bf16),
                   "random call " + std::to_string(number) + " of " + shape_name(format, m_, n_, k_));
  }

 private:
  int64_t one_of(std::initializer_list<int64_t> list) {
    return list.begin()[random_.below(static_cast<int64_t>(list.size()))];
  }
  // The two of the kernels around the product as often as all others.
  const char* any_format() {
    static constexpr const char* kFormats[] = {
        "u1_g32",   "u2_g64",   "u3_g32",      "u4_g128",      "u5_g64",       "u6_g128",       "u7_g256",
        "u8_row",   "i1z_g32",  "u2z_g32",     "u3z_g64",      "u4z_g32",      "u5z_row",       "i6z_g128",
        "u7z_g32",  "u8z_g64",  "u4_g64_bf16", "u3z_g32_bf16", "u8z_row_bf16", "t2_g64",        "nf4_g64",
        "fp4_g32",  "cb1_g32",  "cb2_g64",     "cb3_row",      "cb4_g128",     "cb5_g32",       "cb6_g64",
        "cb8_row",  "bfp2_g8",  "bfp3_g16",    "bfp4_g32",     "bfp8_g128",    "e2m1_g16",      "e2m3_g32",
        "e3m2_g32", "e4m3_g32", "e5m2_g64",    "mxint8_g32",   "nvfp4_g16",    "mxfp4",         "nvfp4",
        "q8_0",     "q4_1",     "q5_0",        "q5_1",         "q2_k",         "q3_k",          "q4_k",
        "q5_k",     "q6_k",     "tq1_0",       "tq2_0",        "iq4_nl",       "f16",           "bf16",
        "f32",      "cbs2_g32", "cbs3_g64",    "cbs4_g128",    "lut2_row",     "lut3_row_bf16", "lut4_row"};
    if (one_of({0, 1}) == 0) return one_of({0, 1}) == 0 ? "u4_g32" : "i8_g32";
    return kFormats[random_.below(static_cast<int64_t>(std::size(kFormats)))];
  }
  const char* any_integers() {
    static constexpr const char* kFormats[] = {
        "q4_0",          "q8_0",     "u4_g32",        "u4_g64_bf16",  "u4_g128",  "u4_row",
        "i4_g256_bf16",  "i8_g32",   "i8_g64_bf16",   "i8_row",       "u8_g128",  "u1_g32",
        "u1z_g64_bf16",  "i1_row",   "u2_g64",        "u2z_g32_bf16", "t2_g128",  "u2_row",
        "tq1_0",         "tq2_0",    "u3_g64",        "u3z_g32_bf16", "i3z_row",  "q4_1",
        "q4_k",          "u4z_g32",  "u4z_g128_bf16", "u4z_row",      "bfp4_g32", "u5_g64",
        "u5z_g128",      "q5_0",     "q5_1",          "q5_k",         "bfp5_g32", "u6_g128",
        "u6z_g32_bf16",  "bfp6_g32", "u7_g256",       "u7z_row",      "bfp7_g64", "u8z_g64",
        "u8z_g128_bf16", "u8z_row",  "bfp8_g64",      "bfp3_g32",     "bfp2_g64", "mxint8_g32",
        "u5_row_bf16",   "u6z_row",  "u3_row_bf16"};
    return kFormats[random_.below(static_cast<int64_t>(std::size(kFormats)))];
  }
  void round_activations() {
    const int32_t groups[] = {BL_ACTIVATION_GROUP_auto, BL_ACTIVATION_GROUP_32, BL_ACTIVATION_GROUP_row};
    const int32_t group = groups[random_.below(3)], bits = one_of({0, 0, 1}) == 1 ? 4 : 8;
    for (bl_matmul_args* args : {&call_->device, &call_->host}) {
      args->compute = BL_COMPUTE_i8;
      args->activation_group = group;
      args->activation_bits = bits;
    }
    call_->host.run.isa = BL_ISA_scalar;
    call_->host.algorithm = BL_ALGORITHM_dequant;
  }
  Tensor& make(int32_t dtype, std::vector<int64_t> shape, std::vector<int64_t> strides = {}) {
    tensors_.push_back(std::make_unique<Tensor>(call_->queue, dtype, shape, strides));
    return *tensors_.back();
  }
  Tensor& values(int32_t dtype, std::vector<int64_t> shape, float scale, std::vector<int64_t> strides = {}) {
    return make(dtype, shape, strides).uniform(random_.next(), scale);
  }
  int32_t any_type() { return kFloatDtypes[random_.below(3)]; }

  void set_a() {
    if (one_of({0, 0, 1}) == 1) {
      Tensor& a = make(BL_DTYPE_i8, {m_, k_});
      a.fill([](int64_t i) { return static_cast<float>(i * 37 % 255 - 127); });
      const bool per_row = one_of({0, 1}) == 1;
      Tensor& scales =
          make(BL_DTYPE_f32, per_row ? std::vector<int64_t>{m_} : std::vector<int64_t>{m_, k_ / 32});
      scales.fill([](int64_t i) { return 0.001f + 0.0001f * static_cast<float>(i % 7); });
      call_->set(&bl_matmul_args::a, a);
      call_->set(&bl_matmul_args::a_scales, scales);
      for (bl_matmul_args* args : {&call_->device, &call_->host})
        args->activation_group = args->activation_bits = 0;  // codes are used as they are
    } else {
      Tensor& a = values(any_type(), {m_, k_ + 8}, 0.25f);
      if (one_of({0, 1}) == 1) {
        std::vector<int32_t> picked;
        for (int32_t i = 0; i < k_; ++i) picked.push_back((i * 5 + 3) % static_cast<int32_t>(k_ + 8));
        call_->set(&bl_matmul_args::a, a);
        call_->set(&bl_matmul_args::column_order, make(BL_DTYPE_i32, {k_}).integers(picked));
        if (one_of({0, 1}) == 1) call_->set(&bl_matmul_args::column_scale, values(BL_DTYPE_f32, {k_ + 8}, 1));
        picked_ = true;
        return;
      }
      call_->set(&bl_matmul_args::a, values(any_type(), {m_, k_}, 0.25f));
      if (one_of({0, 0, 1}) == 1) call_->set(&bl_matmul_args::column_scale, values(BL_DTYPE_f32, {k_}, 1));
    }
    picked_ = false;
  }
  void add_terms() {
    if (one_of({0, 1}) == 1) call_->set(&bl_matmul_args::bias, values(BL_DTYPE_f32, {n_}, 4));
    if (one_of({0, 1}) == 1) call_->set(&bl_matmul_args::row_scale, values(BL_DTYPE_f32, {n_}, 1));
    if (one_of({0, 1}) == 1) call_->set(&bl_matmul_args::addend, values(any_type(), {m_, n_}, 4));
    if (one_of({0, 1}) == 1) call_->set(&bl_matmul_args::residual, values(any_type(), {m_, columns_}, 1));
  }
  void add_low_rank() {
    if (picked_) return;  // columns of a that are not those of b
    const int64_t rank = one_of({1, 2, 3, 4, 5, 7, 8, 11, 15});
    call_->set(&bl_matmul_args::low_rank_down, values(any_type(), {rank, k_}, 0.1f));
    call_->set(&bl_matmul_args::low_rank_up, values(any_type(), {n_, rank}, 0.1f));
    call_->device.low_rank_scale = call_->host.low_rank_scale = 0.5f;
  }
  void add_outliers() {
    if (picked_ || call_->host.a.dtype == BL_DTYPE_i8) return;  // not there on devices
    std::vector<int32_t> offsets = {0}, columns;
    for (int32_t i = 0; i < n_; ++i) {
      for (int32_t j = 0; j < i % 8; ++j) columns.push_back((i * 7 + j * 13) % static_cast<int32_t>(k_));
      offsets.push_back(static_cast<int32_t>(columns.size()));
    }
    const int64_t count = static_cast<int64_t>(columns.size());
    call_->set(&bl_matmul_args::outlier_row_offsets, make(BL_DTYPE_i32, {n_ + 1}).integers(offsets));
    call_->set(&bl_matmul_args::outlier_columns, make(BL_DTYPE_i32, {count}).integers(columns));
    call_->set(&bl_matmul_args::outlier_values, values(any_type(), {count}, 1));
  }

  Random random_;
  Settings settings_;
  std::optional<Call> call_;
  std::vector<std::unique_ptr<Tensor>> tensors_;
  int64_t m_ = 0, n_ = 0, k_ = 0, columns_ = 0;
  bool gated_ = false, picked_ = false, integers_;
};

}  // namespace

BITLOOM_CUDA_TEST(random_matmul) {
  run_random("matmul",
             [](const Settings& settings, uint64_t seed) { RandomCall(settings, seed, false).run(seed); });
}

BITLOOM_CUDA_TEST(random_matmul_i8) {
  run_random("matmul_i8",
             [](const Settings& settings, uint64_t seed) { RandomCall(settings, seed, true).run(seed); });
}

}  // namespace bitloom::cuda::testing
