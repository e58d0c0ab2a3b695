#include "scores.h"

#include <algorithm>
#include <atomic>

#include "../../base/error.h"
#include "../../base/scratch.h"
#include "../../base/thread_pool.h"
#include "score_tasks.h"

namespace bitloom {

namespace {

// Pieces of work for each thread at least: fewer leave a thread idle at the end for long.
constexpr int64_t kPiecesPerThread = 4;

// Tasks that are under way together, and the memory of theirs.
struct Round {
  const ScoreTasks& tasks;
  const bl_run& run;
  int64_t threads;
  uint64_t task_bytes, workspace_bytes;
  uint8_t* memory;
  uint8_t* workspaces;
  int64_t first, count;

  // body(task, its memory, the thread's, i) for each task and i in [0, each), shared by threads.
  template <typename Body>
  void share(int64_t each, Body&& body) const {
    std::atomic<int64_t> next{0};
    parallel_for(run, std::min(threads, count * each), [&](int64_t thread) {
      uint64_t bytes = 0;
      const ScoreWorkspace own =
          tasks.workspace(workspaces + static_cast<uint64_t>(thread) * workspace_bytes, &bytes);
      for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count * each;) {
        body(first + i / each, tasks.memory(memory + static_cast<uint64_t>(i / each) * task_bytes, &bytes),
             own, i % each);
      }
    });
  }
};

void run_round(const Round& round) {
  const ScoreTasks& tasks = round.tasks;
  using Memory = const ScoreMemory&;
  using Own = const ScoreWorkspace&;
  int64_t blocks = 0;
  bool any_split = false;
  for (int64_t task = round.first; task < round.first + round.count; ++task) {
    blocks = std::max(blocks, tasks.blocks(task));
    any_split |= tasks.is_split(task);
  }
  round.share(tasks.heads(), [&](int64_t, Memory memory, Own, int64_t head) { tasks.clear(memory, head); });
  for (int64_t block = 0; block < blocks; ++block) {
    round.share(tasks.most_chunks(), [&](int64_t task, Memory memory, Own own, int64_t chunk) {
      tasks.attend(task, memory, own, block, chunk);
    });
    if (any_split) {
      round.share(tasks.rows(), [&](int64_t task, Memory memory, Own own, int64_t row) {
        tasks.join(task, memory, own, block, row);
      });
    }
    round.share(tasks.most_chunks(), [&](int64_t task, Memory memory, Own, int64_t chunk) {
      tasks.add(task, memory, block, chunk);
    });
  }
  round.share(tasks.heads(),
              [&](int64_t task, Memory memory, Own, int64_t head) { tasks.write(task, memory, head); });
}

}  // namespace

bl_status run_scores(const AttentionCall& call, const AttentionKernelRow& kernel,
                     const bl_attention_args& args, const bl_run& run, bool writes_output, bl_error* error) {
  const ScoreTasks tasks(call, kernel, args, writes_output);
  if (tasks.count() == 0) return BL_STATUS_ok;
  const int64_t threads = thread_count(run);
  // Enough for threads to share, and no more, so that weights stay in their caches.
  const int64_t pieces = (kPiecesPerThread * threads + tasks.most_chunks() - 1) / tasks.most_chunks();
  const int64_t together = std::min(pieces, tasks.count());
  Round round{tasks, run, threads, 0, 0, nullptr, nullptr, 0, 0};
  tasks.memory(nullptr, &round.task_bytes);
  tasks.workspace(nullptr, &round.workspace_bytes);
  const uint64_t all_tasks = static_cast<uint64_t>(together) * round.task_bytes;
  const uint64_t bytes = all_tasks + static_cast<uint64_t>(threads) * round.workspace_bytes;
  const Scratch scratch(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes for scores",
           static_cast<unsigned long long>(bytes));
  round.memory = scratch.data();
  round.workspaces = scratch.data() + all_tasks;
  for (; round.first < tasks.count(); round.first += together) {
    round.count = std::min(together, tasks.count() - round.first);
    run_round(round);
  }
  return BL_STATUS_ok;
}

}  // namespace bitloom
