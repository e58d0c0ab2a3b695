// moe_forward with a workspace of bl_moe_forward_workspace_bytes allocates nothing, wherever the tokens go,
// and gives the same bits as without one. The allocators of the process are replaced by ones that count.
#include <algorithm>
#include <atomic>
#include <new>

#include "bitloom_moe.h"
#include "levels.h"

namespace {
std::atomic<int64_t> allocations{0};
}

#define COUNTED __attribute__((visibility("default"), noinline))

extern "C" COUNTED void* aligned_alloc(size_t alignment, size_t bytes) {
  ++allocations;
  void* memory = nullptr;
  return posix_memalign(&memory, alignment, bytes) == 0 ? memory : nullptr;
}
COUNTED void* operator new(size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
COUNTED void operator delete(void* memory) noexcept { std::free(memory); }
COUNTED void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace {

struct Matrix {
  std::vector<uint8_t> bytes;
  bl_weights view{};
};

Matrix quantized(Random& random, int32_t format, int64_t rows, int64_t cols) {
  std::vector<float> values = random.gaussians(rows * cols);
  Matrix matrix;
  matrix.bytes.resize(bl_layout_bytes(format, BL_LAYOUT_canonical, rows, cols));
  matrix.view.data = matrix.bytes.data();
  matrix.view.bytes = matrix.bytes.size();
  matrix.view.format = format;
  matrix.view.rows = rows;
  matrix.view.cols = cols;
  bl_quantize_args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_default;
  args.input = floats(values, {rows, cols});
  args.output = matrix.view;
  check(bl_quantize(&args, nullptr) == BL_STATUS_ok, "quantize");
  return matrix;
}

struct Mixture {
  std::vector<Matrix> matrices;
  std::vector<bl_moe_expert> experts;

  // Of the same form, or of two formats and widths in turn.
  Mixture(Random& random, int64_t count, int64_t hidden, bool same) {
    matrices.reserve(static_cast<size_t>(3 * count));
    for (int64_t i = 0; i < count; ++i) {
      const bool odd = !same && i % 2 == 1;
      const int32_t format = odd ? BL_FORMAT_q8_0 : BL_FORMAT_q4_0;
      const int64_t width = odd ? 64 : 160;
      matrices.push_back(quantized(random, format, width, hidden));
      matrices.push_back(quantized(random, format, width, hidden));
      matrices.push_back(quantized(random, format, hidden, width));
      bl_moe_expert expert{};
      expert.gate = matrices[static_cast<size_t>(3 * i)].view;
      expert.up = matrices[static_cast<size_t>(3 * i + 1)].view;
      expert.down = matrices[static_cast<size_t>(3 * i + 2)].view;
      experts.push_back(expert);
    }
  }
};

struct Case {
  int64_t tokens, top_k, experts, shared;
  bool same;
  int32_t compute, dtype;
};

void test(Random& random, const Case& it, int64_t hidden) {
  const Mixture mixture(random, it.experts + it.shared, hidden, it.same);
  std::vector<float> x = random.gaussians(it.tokens * hidden);
  const int64_t routes = it.tokens * it.top_k;
  std::vector<int32_t> indices(static_cast<size_t>(routes));
  std::vector<float> weights = random.gaussians(routes);
  const size_t element = it.dtype == BL_DTYPE_f32 ? 4 : 2;
  std::vector<uint8_t> output(static_cast<size_t>(it.tokens * hidden) * element), expected(output);

  bl_moe_forward_args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_default;
  args.x = floats(x, {it.tokens, hidden});
  args.weights = floats(weights, {it.tokens, it.top_k});
  args.indices = view_of(indices.data(), BL_DTYPE_i32, 4, {it.tokens, it.top_k});
  args.experts = mixture.experts.data();
  args.num_experts = it.experts;
  args.num_shared = it.shared;
  args.output = view_of(output.data(), it.dtype, element, {it.tokens, hidden});
  args.compute = it.compute;
  const uint64_t bytes = bl_moe_forward_workspace_bytes(&args);
  const std::string what = std::to_string(it.tokens) + " tokens, top " + std::to_string(it.top_k) + " of " +
                           std::to_string(it.experts) + " + " + std::to_string(it.shared) + ", compute " +
                           std::to_string(it.compute) + ", dtype " + std::to_string(it.dtype);
  check(bytes > 0, what + ": no bytes");
  std::vector<uint8_t> memory(bytes + 64);
  uint8_t* workspace = memory.data() + random.below(64);
  for (int routing = 0; routing < 12; ++routing) {
    const int64_t one = random.below(it.experts);
    for (int32_t& index : indices) {
      // All to one, to any or nowhere, to the first ones.
      index = static_cast<int32_t>(routing % 3 == 0   ? one
                                   : routing % 3 == 1 ? random.below(it.experts + 1) - 1
                                                      : random.below(std::min<int64_t>(it.experts, 3)));
    }
    args.workspace = nullptr;
    args.workspace_bytes = 0;
    args.output.data = expected.data();
    const int64_t at_first = allocations;
    check(bl_moe_forward(&args, nullptr) == BL_STATUS_ok, what + ": without a workspace");
    check(allocations > at_first, what + ": nothing is counted");
    args.workspace = workspace;
    args.workspace_bytes = bytes;
    args.output.data = output.data();
    const int64_t before = allocations;
    const bl_status status = bl_moe_forward(&args, nullptr);
    const int64_t after = allocations;
    check(status == BL_STATUS_ok, what + ": with a workspace");
    check(after == before, what + ": allocates " + std::to_string(after - before) + " times");
    check(output == expected, what + ": bits");
    // What it lacks is allocated, and nothing is written behind the end.
    args.workspace_bytes = bytes / 3;
    std::fill(workspace + bytes / 3, workspace + bytes, uint8_t{0xa5});
    check(bl_moe_forward(&args, nullptr) == BL_STATUS_ok && output == expected, what + ": a third of it");
    bool untouched = true;
    for (size_t i = bytes / 3; i < bytes; ++i) untouched &= workspace[i] == 0xa5;
    check(untouched, what + ": writes behind the workspace");
  }
  args.workspace = output.data();
  args.workspace_bytes = 1;
  check(bl_moe_forward(&args, nullptr) == BL_STATUS_invalid_argument, what + ": workspace in the output");
}

}  // namespace

int main(int argc, char** argv) {
  Random random = random_from(argc, argv);
  for (const int64_t tokens : {1, 2, 7, 64, 65, 200}) {
    for (const int32_t compute : {BL_COMPUTE_f32, BL_COMPUTE_i8, BL_COMPUTE_bf16}) {
      test(random, {tokens, 2, 8, 1, false, compute, BL_DTYPE_f32}, 96);
      test(random, {tokens, 4, 16, 0, true, compute, BL_DTYPE_bf16}, 64);
    }
  }
  test(random, {3000, 2, 4, 0, true, BL_COMPUTE_i8, BL_DTYPE_f32}, 32);  // several pieces and waves
  return finish();
}
