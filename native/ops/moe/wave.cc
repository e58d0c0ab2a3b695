#include "wave.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "../../base/shares.h"
#include "../../base/thread_pool.h"

namespace bitloom {

namespace {

// Panels of the output whose sums one task takes: what kernels that read several panels at a time want.
constexpr int64_t kSumPanels = 8;
constexpr int64_t kTogether = 4;           // such tasks, or units of the first product, at a time
constexpr int64_t kSumElements = 1 << 16;  // of sums, in a task

bl_tensor matrix(int64_t rows, int64_t cols) {
  bl_tensor tensor{};
  tensor.dtype = BL_DTYPE_f32;
  tensor.rank = 2;
  tensor.shape[0] = rows;
  tensor.shape[1] = tensor.strides[0] = cols;
  tensor.strides[1] = 1;
  return tensor;
}

uint64_t row_bytes(const Input& input) {
  return align_up(static_cast<uint64_t>(input.rows() * input.columns()) * sizeof(float));
}

int64_t slots_of(const WaveCall& call) {
  const bl_run& run = call.common.run;
  return run.executor == nullptr ? thread_count(run) : 16;
}

// What a wave's memory holds behind the pieces'.
struct WaveMemory {
  uint64_t slot_bytes, slots, shares, begins, places;
  WaveMemory(const WaveCall& call, uint64_t slot_bytes_, int64_t count)
      : slot_bytes(slot_bytes_),
        slots(static_cast<uint64_t>(slots_of(call)) * slot_bytes),
        shares(static_cast<uint64_t>(slots_of(call)) * align_up(sizeof(Share))),
        begins(align_up(static_cast<uint64_t>(count + 1) * sizeof(int64_t))),
        places(align_up(static_cast<uint64_t>(count) * sizeof(uint8_t*))) {}
  WaveMemory(const WaveCall& call, const Piece* pieces, int64_t count)
      : WaveMemory(call, most_slot_bytes(pieces, count), count) {}
  uint64_t total() const { return slots + shares + begins + places; }

 private:
  static uint64_t most_slot_bytes(const Piece* pieces, int64_t count) {
    uint64_t most = 0;
    for (int64_t i = 0; i < count; ++i) {
      for (const std::optional<Product>& product : pieces[i].products) {
        if (product) most = std::max(most, product->plan().slot_bytes());
      }
    }
    return most;
  }
};

// Packs the same product of all pieces that have it.
void pack_all(const WaveCall& call, Piece* pieces, int64_t count, Stage stage, uint8_t** memory) {
  bl_matmul_args alone = call.common;
  alone.run.executor = nullptr;
  alone.run.threads = 1;
  parallel_for(call.common.run, count, [&](int64_t i) {
    std::optional<Product>& product = pieces[i].products[stage];
    if (product && pieces[i].packs_alone()) product->pack(alone, memory[i]);
  });
  for (int64_t i = 0; i < count; ++i) {
    std::optional<Product>& product = pieces[i].products[stage];
    if (product && !pieces[i].packs_alone()) product->pack(call.common, memory[i]);
  }
}

// Calls body(begin, end, slot's memory) for neighbours among `tasks` tasks.
template <typename Body>
void share_tasks(const WaveCall& call, int64_t tasks, uint64_t slot_bytes, uint8_t* slots, uint8_t* memory,
                 const Body& body) {
  Share* shares = reinterpret_cast<Share*>(memory);
  const int64_t parts = std::min(slots_of(call), tasks);
  for (int64_t part = 0; part < parts; ++part) new (shares + part) Share;
  cut_shares(shares, parts, tasks);
  parallel_for(call.common.run, parts, [&](int64_t slot) {
    run_shares(shares, parts, slot, kTogether, [&](int64_t begin, int64_t end) {
      body(begin, end, slots + static_cast<uint64_t>(slot) * slot_bytes);
    });
  });
}

// A product whose rows are the expert's own.
void run_stage(const WaveCall& call, const Piece* pieces, int64_t count, Stage stage, const WaveMemory& sizes,
               uint8_t* slots, uint8_t* shares, int64_t* begins) {
  begins[0] = 0;
  for (int64_t i = 0; i < count; ++i) {
    const std::optional<Product>& product = pieces[i].products[stage];
    begins[i + 1] = begins[i] + (product ? product->tasks() : 0);
  }
  share_tasks(call, begins[count], sizes.slot_bytes, slots, shares,
              [&](int64_t begin, int64_t end, uint8_t* slot) {
                while (begin < end) {
                  const int64_t i = std::upper_bound(begins, begins + count + 1, begin) - begins - 1;
                  const int64_t last = std::min(end, begins[i + 1]) - begins[i];
                  begin = begins[i] + pieces[i].products[stage]->run(begin - begins[i], last, slot);
                }
              });
}

// A task has columns of the output, to which it adds one expert after the other: no two tasks write the same
// sums, and their order is always the same.
void run_last(const WaveCall& call, const Piece* pieces, int64_t count, const WaveMemory& sizes,
              uint8_t* slots, uint8_t* shares) {
  const int64_t hidden = call.args.x.shape[1], panels = (hidden + kPanelRows - 1) / kPanelRows;
  const int64_t width = std::clamp<int64_t>(panels / (4 * slots_of(call)), 1, kSumPanels) * kPanelRows;
  share_tasks(call, (hidden + width - 1) / width, sizes.slot_bytes, slots, shares,
              [&](int64_t begin, int64_t end, uint8_t* slot) {
                for (int64_t i = 0; i < count; ++i) {
                  pieces[i].products[kLast]->run_rows(begin * width, std::min(end * width, hidden), slot);
                }
              });
}

// Calls body(t) for all tokens.
template <typename Body>
void for_tokens(const WaveCall& call, const Body& body) {
  const int64_t tokens = call.args.x.shape[0], hidden = call.args.x.shape[1];
  const int64_t together = std::max<int64_t>(kSumElements / hidden, 1);
  parallel_for(call.common.run, (tokens + together - 1) / together, [&](int64_t task) {
    const int64_t end = std::min((task + 1) * together, tokens);
    for (int64_t t = task * together; t < end; ++t) body(t);
  });
}

}  // namespace

Piece::Piece(const WaveCall& call, const bl_moe_expert& expert, const int32_t* tokens, const float* weights,
             int64_t rows_)
    : x(call.args.x, tokens, rows_),
      reduced(matrix(rows_, expert.reduce.rows), nullptr, rows_),
      h(matrix(rows_, expert.up.rows), nullptr, rows_),
      contracted(matrix(rows_, expert.down.rows), nullptr, rows_),
      store_reduced(call.kernels, expert.reduce),
      store_contracted(call.kernels, expert.down),
      activate(call.kernels, expert, call.args.activation, call.args.limit),
      add(call.kernels, expert, tokens, weights, call.sums),
      rows(rows_) {
  const bool expands = expert.expand.data != nullptr;
  if (expert.reduce.data != nullptr) products[kReduce].emplace(expert.reduce);
  if (expert.gate.data != nullptr) {
    products[kFirst].emplace(expert.gate, &expert.up);
  } else {
    products[kFirst].emplace(expert.up);
  }
  if (expands) products[kDown].emplace(expert.down);
  products[kLast].emplace(expands ? expert.expand : expert.down);
}

Stage Piece::plan(const WaveCall& call, int64_t sharing) {
  const Input* inputs[] = {&x, products[kReduce] ? &reduced : &x, &h, products[kDown] ? &contracted : &h};
  const Finish* finishes[] = {&store_reduced, &activate, &store_contracted, &add};
  for (int stage = 0; stage < kStages; ++stage) {
    std::optional<Product>& product = products[stage];
    if (!product) continue;
    if (!product->plan(call.common, *inputs[stage], *finishes[stage], sharing)) {
      return static_cast<Stage>(stage);
    }
    if (packs_alone()) product->pack_alone();
  }
  return kStages;
}

const char* Piece::part(Stage stage) const {
  if (stage == kReduce) return "reduce";
  if (stage == kFirst) return "up";
  return stage == kLast && products[kDown] ? "expand" : "down";
}

uint64_t Piece::between_bytes() const {
  uint64_t bytes = row_bytes(h);
  if (products[kReduce]) bytes += row_bytes(reduced);
  if (products[kDown]) bytes += row_bytes(contracted);
  return bytes;
}

void Piece::set_between(uint8_t* memory) {
  const auto place = [&memory](Input& rows_of, auto& finish) {
    float* data = reinterpret_cast<float*>(memory);
    finish.set_out(data);
    rows_of.set_data(data);
    memory += row_bytes(rows_of);
  };
  place(h, activate);
  if (products[kReduce]) place(reduced, store_reduced);
  if (products[kDown]) place(contracted, store_contracted);
}

uint64_t Piece::bytes() const {
  uint64_t bytes = between_bytes();
  for (const std::optional<Product>& product : products) bytes += product ? product->bytes() : 0;
  return bytes;
}

uint64_t wave_bytes(const WaveCall& call, const Piece* pieces, int64_t count) {
  uint64_t bytes = WaveMemory(call, pieces, count).total();
  for (int64_t i = 0; i < count; ++i) bytes += pieces[i].bytes();
  return bytes;
}

uint64_t wave_overhead_bytes(const WaveCall& call, uint64_t slot_bytes, int64_t count) {
  return WaveMemory(call, slot_bytes, count).total();
}

void run_wave(const WaveCall& call, Piece* pieces, int64_t count, uint8_t* memory) {
  const WaveMemory sizes(call, pieces, count);
  uint8_t* slots = memory;
  uint8_t* shares = slots + sizes.slots;
  int64_t* begins = reinterpret_cast<int64_t*>(shares + sizes.shares);
  uint8_t** places = reinterpret_cast<uint8_t**>(shares + sizes.shares + sizes.begins);
  memory += sizes.total();
  for (int64_t i = 0; i < count; ++i) {
    pieces[i].set_between(memory);
    places[i] = memory + pieces[i].between_bytes();
    memory += pieces[i].bytes();
  }
  for (const Stage stage : {kReduce, kFirst, kDown}) {
    const bool any = std::any_of(pieces, pieces + count,
                                 [stage](const Piece& piece) { return piece.products[stage].has_value(); });
    if (!any) continue;
    pack_all(call, pieces, count, stage, places);
    run_stage(call, pieces, count, stage, sizes, slots, shares, begins);
    for (int64_t i = 0; i < count; ++i) {
      if (pieces[i].products[stage]) places[i] += pieces[i].products[stage]->bytes();
    }
  }
  pack_all(call, pieces, count, kLast, places);
  run_last(call, pieces, count, sizes, slots, shares);
}

bool sums_lie_in_output(const bl_moe_forward_args& args) {
  return args.x.shape[0] > 0 && Rows(args.output).direct(0) != nullptr;
}

void begin_sums(const WaveCall& call) {
  const bl_tensor& residual = call.args.residual;
  if (call.direct && residual.data == call.args.output.data && residual.data != nullptr) return;
  const Rows rows(residual);
  for_tokens(call, [&](int64_t t) {
    float* sum = call.sums.data + t * call.sums.stride;
    if (residual.data != nullptr) {
      rows.load(t, sum);
    } else {
      std::memset(sum, 0, static_cast<size_t>(call.args.x.shape[1]) * sizeof(float));
    }
  });
}

void end_sums(const WaveCall& call) {
  if (call.direct) return;
  const Rows output(call.args.output);
  for_tokens(call, [&](int64_t t) { output.store(t, call.sums.data + t * call.sums.stride); });
}

}  // namespace bitloom
