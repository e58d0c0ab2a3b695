// Kernels compiled by nvcc, against host references, in all modes and several schedules.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <ctime>

#include "compiled.h"

namespace bitloom::ptx::testing {

GemmRun run_gemm(Machine& machine, const LoadedModule& module, uint32_t m, uint32_t n, uint32_t k,
                 const Options& options) {
  Random random(m + n + k);
  std::vector<Half> a(size_t{m} * k), b(size_t{n} * k);
  for (Half& x : a) x = to_half(random.uniform());
  for (Half& x : b) x = to_half(random.uniform());
  const uint64_t a_at = upload(machine, a), b_at = upload(machine, b),
                 c_at = machine.memory.allocate(size_t{m} * n * 2);
  LaunchConfig config;
  config.grid[0] = n / 64;
  config.grid[1] = m / 64;
  config.block[0] = 128;
  config.shared_bytes = 3 * 8192;
  config.parameters = pack(a_at, b_at, c_at, n, k);
  config.options = options;
  GemmRun run;
  run.report = machine.launch(module, "gemm_f16", config);
  const std::vector<Half> c = download<Half>(machine, c_at, size_t{m} * n);
  for (uint32_t i = 0; i < m; ++i) {
    for (uint32_t j = 0; j < n; ++j) {
      double sum = 0;
      for (uint32_t x = 0; x < k; ++x)
        sum += static_cast<double>(to_float(a[i * k + x])) * to_float(b[j * k + x]);
      const double error = std::fabs(sum - to_float(c[i * n + j]));
      run.is_nan = run.is_nan || std::isnan(error);
      run.error = std::max(run.error, error);
    }
  }
  for (uint64_t at : {a_at, b_at, c_at}) machine.memory.free(at);
  return run;
}

namespace {

void test_intrinsics(const std::string& arch) {
  Machine machine;
  const LoadedModule& module = machine.load(Module::parse(kernel_text("intrinsics", arch)));
  const Program& program = module.program("intrinsics");
  check(program.code.size() > 500, "intrinsics " + arch + ": the kernel is there");
  for (const std::string& text : program.unknown)
    check(false, "intrinsics " + arch + ": unknown instruction " + text);
}

void test_vector_add(const std::string& arch) {
  const std::shared_ptr<const Module> module = Module::parse(kernel_text("vector_add", arch));
  for (int count : {1, 31, 128, 1000}) {
    Machine machine;
    const LoadedModule& loaded = machine.load(module);
    std::vector<float> a, b;
    for (int i = 0; i < count; ++i)
      a.push_back(static_cast<float>(i) * 0.5f), b.push_back(static_cast<float>(i * i));
    const uint64_t a_at = upload(machine, a), b_at = upload(machine, b),
                   c_at = machine.memory.allocate(a.size() * 4);
    LaunchConfig config;
    config.grid[0] = static_cast<uint32_t>(count + 127) / 128;
    config.block[0] = 128;
    config.parameters = pack(a_at, b_at, c_at, count);
    const LaunchReport report = machine.launch(loaded, "vector_add", config);
    const std::vector<float> c = download<float>(machine, c_at, a.size());
    bool right = true;
    for (size_t i = 0; i < a.size(); ++i) right = right && c[i] == a[i] + b[i];
    check(right, "vector_add " + arch + ", " + std::to_string(count));
    check(report.counters.never_executed().empty(), "vector_add " + arch + ": every instruction has run");
    if (count == 128) {
      const InstrCount loads = report.counters.total("ld.global");
      check(loads.requests == 8 && loads.bytes == 1024 && loads.sectors == 32 && loads.lines == 8,
            "vector_add: sectors and lines of its loads");
      check(report.bytes_moved == 3 * 512, "vector_add: bytes moved");
    }
  }
}

void test_reduction(const std::string& arch) {
  const std::shared_ptr<const Module> module = Module::parse(kernel_text("reduction", arch));
  for (int columns : {1, 77, 256, 1000}) {
    for (uint64_t seed : {0, 1, 2}) {
      Machine machine;
      const LoadedModule& loaded = machine.load(module);
      std::vector<float> input(static_cast<size_t>(5 * columns));
      for (size_t i = 0; i < input.size(); ++i)
        input[i] = static_cast<float>(i * 7 % 13) - 6.0f;  // sums are exact
      const uint64_t in = upload(machine, input), out = machine.memory.allocate(20);
      LaunchConfig config;
      config.grid[0] = 5;
      config.block[0] = 128;
      config.parameters = pack(in, out, columns);
      config.options.seed = seed;
      machine.launch(loaded, "reduce_rows", config);
      const std::vector<float> sums = download<float>(machine, out, 5);
      bool right = true;
      for (size_t r = 0; r < 5; ++r) {
        float sum = 0;
        for (size_t i = 0; i < static_cast<size_t>(columns); ++i)
          sum += input[r * static_cast<size_t>(columns) + i];
        right = right && sum == sums[r];
      }
      check(right, "reduce_rows " + arch + ", " + std::to_string(columns) + ", seed " + std::to_string(seed));
    }
  }
}

void test_softmax(const std::string& arch) {
  const std::shared_ptr<const Module> module = Module::parse(kernel_text("softmax", arch));
  for (int columns : {2, 66, 250}) {
    Machine machine;
    const LoadedModule& loaded = machine.load(module);
    const int rows = 5;
    Random random(9);
    std::vector<Half> input(static_cast<size_t>(rows * columns));
    for (Half& x : input) x = to_half(random.uniform() * 8);
    const uint64_t in = upload(machine, input), out = machine.memory.allocate(input.size() * 2);
    LaunchConfig config;
    config.grid[0] = 3;
    config.block[0] = 64;
    config.parameters = pack(in, out, rows, columns);
    machine.launch(loaded, "softmax", config);
    const std::vector<Half> output = download<Half>(machine, out, input.size());
    double worst = 0;
    for (size_t r = 0; r < static_cast<size_t>(rows); ++r) {
      double sum = 0;
      for (size_t i = 0; i < static_cast<size_t>(columns); ++i)
        sum += std::exp(static_cast<double>(to_float(input[r * static_cast<size_t>(columns) + i])));
      for (size_t i = 0; i < static_cast<size_t>(columns); ++i) {
        const size_t at = r * static_cast<size_t>(columns) + i;
        const double error =
            std::fabs(std::exp(static_cast<double>(to_float(input[at]))) / sum - to_float(output[at]));
        worst = std::isnan(error) ? HUGE_VAL : std::max(worst, error);
      }
    }
    check(worst < 6e-4, "softmax " + arch + ", " + std::to_string(columns) + ": error " +
                            std::to_string(worst));  // f16 near 1: 2.4e-4
  }
}

void test_histogram(const std::string& arch) {
  const std::shared_ptr<const Module> module = Module::parse(kernel_text("histogram", arch));
  for (uint64_t seed : {0, 1, 2}) {
    Machine machine;
    const LoadedModule& loaded = machine.load(module);
    std::vector<uint8_t> values(1999);
    std::vector<uint32_t> expected(37, 0);
    for (size_t i = 0; i < values.size(); ++i)
      ++expected[(values[i] = static_cast<uint8_t>(i * i % 251)) % 37];
    const uint64_t in = upload(machine, values), out = upload(machine, std::vector<uint32_t>(37, 0));
    LaunchConfig config;
    config.grid[0] = 3;
    config.block[0] = 96;
    config.shared_bytes = 37 * 4;
    config.parameters = pack(in, out, 1999, 37);
    config.options.seed = seed;
    machine.launch(loaded, "histogram", config);
    check(download<uint32_t>(machine, out, 37) == expected,
          "histogram " + arch + ", seed " + std::to_string(seed));
  }
}

void test_split_k(const std::string& arch) {
  const std::shared_ptr<const Module> module = Module::parse(kernel_text("split_k", arch));
  for (uint64_t seed : {0, 1, 2, 3}) {
    Machine machine;
    const LoadedModule& loaded = machine.load(module);
    std::vector<float> a(1000), b(1000);
    float dot = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      a[i] = static_cast<float>(i % 11) - 5;
      b[i] = static_cast<float>(i % 7) - 3;
      dot += a[i] * b[i];  // exact
    }
    const uint64_t a_at = upload(machine, a), b_at = upload(machine, b),
                   partial = machine.memory.allocate(16 * 4);
    const uint64_t arrivals = upload(machine, std::vector<uint32_t>{0}), output = machine.memory.allocate(4);
    LaunchConfig config;
    config.grid[0] = 6;
    config.block[0] = 64;
    config.parameters = pack(a_at, b_at, partial, arrivals, output, 1000);
    config.options.seed = seed;
    config.options.resident_blocks = 3;
    machine.launch(loaded, "split_k_last", config);
    check(download<float>(machine, output, 1)[0] == dot,
          "split_k_last " + arch + ", seed " + std::to_string(seed));

    const uint64_t running = machine.memory.allocate(64 * 4),
                   flag = upload(machine, std::vector<uint32_t>{0});
    config.grid[0] = 5;
    config.parameters = pack(a_at, running, flag, 3);
    machine.launch(loaded, "split_k_chain", config);
    const std::vector<float> sums = download<float>(machine, running, 64);
    bool right = true;
    for (size_t t = 0; t < 64; ++t) {
      float sum = 0;
      for (size_t i = 0; i < 15; ++i) sum += a[i * 64 + t];
      right = right && sum == sums[t];
    }
    check(right, "split_k_chain " + arch + ", seed " + std::to_string(seed));
  }
}

void test_gemm(const std::string& arch) {
  Machine machine;
  const LoadedModule& module = machine.load(Module::parse(kernel_text("gemm_f16", arch)));
  check(module.program("gemm_f16").unknown.empty(), "gemm_f16 " + arch + ": every instruction is known");
  Counters all;
  for (uint32_t k : {32u, 64u, 160u}) {
    for (const Options& options : all_options()) {
      const GemmRun run = run_gemm(machine, module, 128, 64, k, options);
      // Sums below 16 or so: half an ulp of f16 there is 2^-8.
      check(!run.is_nan && run.error < 0.0079,
            "gemm_f16 " + arch + ", k " + std::to_string(k) + ": error " + std::to_string(run.error));
      all.program ? all.add(run.report.counters) : void(all = run.report.counters);
      const InstrCount loads = run.report.counters.total("ldmatrix"),
                       copies = run.report.counters.total("cp.async.cg");
      check(loads.wavefronts == loads.ideal_wavefronts && copies.wavefronts == copies.ideal_wavefronts,
            "gemm_f16 " + arch + ": no bank conflicts");
      check(copies.bytes == copies.sectors * 32 * 2,
            "gemm_f16 " + arch + ": every byte of a sector is used (and counted on both sides)");
      check(run.report.counters.mma() == 128 * 64 * k / (16 * 8 * 16),
            "gemm_f16 " + arch + ": number of mma");
    }
  }
  for (uint32_t block : {4u, 8u, 16u}) {
    Options options;
    options.mma_block = block;
    const GemmRun run = run_gemm(machine, module, 64, 64, 96, options);
    check(!run.is_nan && run.error < 0.0079,
          "gemm_f16 " + arch + ", sums of " + std::to_string(block) + ": error " + std::to_string(run.error));
  }
}

}  // namespace

void test_kernels() {
  if (!has_kernels()) {
    std::printf("built without nvcc: the compiled kernels are not tested\n");
    return;
  }
  for (const std::string& arch : kernel_archs()) {
    test_intrinsics(arch);
    test_vector_add(arch);
    test_reduction(arch);
    test_softmax(arch);
    test_histogram(arch);
    test_split_k(arch);
    test_gemm(arch);
  }
}

// CPU time of the process: the machine may be shared.
void measure_speed() {
  for (const std::string& arch : kernel_archs()) {
    Machine machine;
    const LoadedModule& module = machine.load(Module::parse(kernel_text("gemm_f16", arch)));
    const auto measure = [&](const char* what, const Options& options) {
      double best = 1e9;
      uint64_t instructions = 0;
      for (int i = 0; i < 5; ++i) {
        const uint64_t at[3] = {upload(machine, std::vector<uint16_t>(256 * 512, 0x3800)),
                                upload(machine, std::vector<uint16_t>(128 * 512, 0x3400)),
                                machine.memory.allocate(256 * 128 * 2)};
        LaunchConfig config;
        config.grid[0] = 2;
        config.grid[1] = 4;
        config.block[0] = 128;
        config.shared_bytes = 3 * 8192;
        config.parameters = pack(at[0], at[1], at[2], 128, 512);
        config.options = options;
        const std::clock_t begin = std::clock();
        instructions = machine.launch(module, "gemm_f16", config).counters.warp_instructions();
        best = std::min(best, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
      }
      std::printf("gemm_f16 compute_%s 256x128x512, %s: %.4f s, %llu warp instructions, %.3f us each\n",
                  arch.c_str(), what, best, static_cast<unsigned long long>(instructions),
                  best * 1e6 / static_cast<double>(instructions));
    };
    Options options;
    measure("all checks and counters", options);
    options.seed = 1;
    measure("the same, random schedule", options);
    options.seed = 0;
    options.count_requests = false;
    measure("checks, no request counters", options);
    options.check_memory = false;
    measure("no checks, no request counters", options);
    options.mma_block = 8;
    measure("the same, tensor-core-like sums of 8", options);
  }
}

}  // namespace bitloom::ptx::testing
