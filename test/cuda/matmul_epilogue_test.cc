// matmul: everything around the product, against the CPU's operator.
#include <array>

#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

// Everything that may follow the product, one by one and together, in both kernels, with strides.
void epilogues(const Settings& settings) {
  constexpr int64_t n = 70, k = 128;
  for (int64_t m : {3, 37}) {
    for (int32_t activation = BL_ACTIVATION_none; activation <= BL_ACTIVATION_geglu; ++activation) {
      for (int32_t parts = 0; parts < 16; parts += activation % 3 + 1) {
        Call call(settings, "u4_g32", n, k);
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

void codes(const Settings& settings) {
  constexpr int64_t n = 75, k = 96;
  for (int64_t m : {2, 21}) {
    for (bool scales : {false, true}) {
      // c of i8: codes may differ by one where the CPU's product is nearly half way.
      Call call(settings, "u4_g32", n, k);
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
      Call call(settings, "i8_g32", n, k);
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

void additions(const Settings& settings) {
  constexpr int64_t n = 48, k = 64, rank = 5;
  for (int64_t m : {3, 20}) {
    Call call(settings, "q4_0", n, k);
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
    Call order(settings, "u4_g32", n, k);
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

// Rows with a low-rank term of their own, or none.
void adapters(const Settings& settings) {
  constexpr int64_t n = 33, k = 96, rank = 5, count = 3;
  for (int64_t m : {3, 20}) {
    Call call(settings, "u4_g32", n, k);
    TestQueue& queue = call.queue;
    Tensor a(queue, BL_DTYPE_f32, {m, k}), c(queue, BL_DTYPE_f32, {m, n});
    Tensor down(queue, BL_DTYPE_f16, {count, rank, k}, {rank * k + 8, k, 1});
    Tensor up(queue, BL_DTYPE_f32, {count, n, rank}, {n * rank, 1, n});
    Tensor ids(queue, BL_DTYPE_i32, {m});
    std::vector<int32_t> chosen;
    for (int32_t i = 0; i < m; ++i) chosen.push_back(i * 7 % (static_cast<int32_t>(count) + 1) - 1);
    a.uniform(1), down.uniform(2), up.uniform(3), ids.integers(chosen);
    call.set(&bl_matmul_args::a, a);
    call.set(&bl_matmul_args::low_rank_down, down);
    call.set(&bl_matmul_args::low_rank_up, up);
    call.set(&bl_matmul_args::low_rank_ids, ids);
    call.device.low_rank_scale = call.host.low_rank_scale = 0.5f;
    call.compare(c, 0.03, "adapters by row");
  }
}

// The low-rank term with each type of a, down and up, of all rows and by adapters, gated too.
void low_rank_types(const Settings& settings) {
  constexpr int64_t n = 34, m = 3, count = 3;
  enum Scales { none, rows, groups };
  struct Given {
    int32_t type;
    Scales scales;
  };
  for (const Given& given : {Given{BL_DTYPE_f32, none}, Given{BL_DTYPE_f16, none}, Given{BL_DTYPE_bf16, none},
                             Given{BL_DTYPE_i8, rows}, Given{BL_DTYPE_i8, groups}}) {
    for (int32_t part = 0; part < 18; ++part) {
      const int32_t down_type = kFloatDtypes[part % 3], up_type = kFloatDtypes[part / 3 % 3];
      const bool by_row = part >= 9, gated = part % 2 == 1;
      // Every rest of the loops over k and rank, which are unrolled.
      const int64_t k = 32 * std::array{8, 12, 15, 10, 1}[static_cast<size_t>(part % 5)], rank = 1 + part % 9;
      Call call(settings, "i8_g32", n, k);
      TestQueue& queue = call.queue;
      Tensor a(queue, given.type, {m, k}), c(queue, BL_DTYPE_f32, {m, gated ? n / 2 : n});
      Tensor scales(queue, BL_DTYPE_f32,
                    given.scales == rows ? std::vector<int64_t>{m} : std::vector<int64_t>{m, k / 32});
      using Sizes = std::vector<int64_t>;
      Tensor down(queue, down_type, by_row ? Sizes{count, rank, k} : Sizes{rank, k});
      Tensor up(queue, up_type, by_row ? Sizes{count, n, rank} : Sizes{n, rank});
      Tensor ids(queue, BL_DTYPE_i32, {m});
      if (given.type == BL_DTYPE_i8) a.fill([](int64_t i) { return static_cast<float>(i * 37 % 255 - 127); });
      if (given.type != BL_DTYPE_i8) a.uniform(1);
      scales.fill([](int64_t i) { return 0.004f + 0.001f * static_cast<float>(i % 7); });
      down.uniform(2, 0.3f), up.uniform(3, 0.3f), ids.integers({2, -1, 0});
      call.set(&bl_matmul_args::a, a);
      if (given.scales != none) call.set(&bl_matmul_args::a_scales, scales);
      call.set(&bl_matmul_args::low_rank_down, down);
      call.set(&bl_matmul_args::low_rank_up, up);
      if (by_row) call.set(&bl_matmul_args::low_rank_ids, ids);
      call.device.low_rank_scale = call.host.low_rank_scale = 0.5f;
      call.device.activation = call.host.activation = gated ? BL_ACTIVATION_geglu : BL_ACTIVATION_none;
      call.compare(c, 0.05,
                   "low rank of types " + std::to_string(given.type) + " part " + std::to_string(part));
    }
  }
}

void batches(const Settings& settings) {
  constexpr int64_t batch = 3, n = 32, k = 96;
  for (int64_t m : {2, 19}) {
    for (bool gated : {false, true}) {
      Call call(settings, "i4_g32", batch * n, k);
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
  TestQueue queue(settings);
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

}  // namespace

BITLOOM_CUDA_TEST(matmul_epilogue) {
  for (const Settings& settings : all_archs()) epilogues(settings);
}
BITLOOM_CUDA_TEST(matmul_codes) {
  for (const Settings& settings : all_archs()) codes(settings);
}
BITLOOM_CUDA_TEST(matmul_additions) {
  for (const Settings& settings : all_archs()) additions(settings);
}
BITLOOM_CUDA_TEST(matmul_adapters) {
  for (const Settings& settings : all_archs()) adapters(settings);
}
BITLOOM_CUDA_TEST(matmul_low_rank_types) {
  for (const Settings& settings : all_archs()) low_rank_types(settings);
}
BITLOOM_CUDA_TEST(matmul_batch) {
  for (const Settings& settings : all_archs()) batches(settings);
}

BITLOOM_CUDA_TEST(matmul_errors) {
  TestQueue queue;
  const PackedWeights b(queue, "u4_g32", 16, 64, 1);
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

}  // namespace bitloom::cuda::testing
