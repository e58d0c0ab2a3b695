// The work of scores.cc in tasks: some heads of one kv head of a sequence, their observed queries in blocks,
// keys in chunks.
#pragma once

#include "scores.h"

namespace bitloom {

// A task's memory: weights and states of a block's rows, and what has been added up of its heads.
struct ScoreMemory {
  float* weights;   // [rows][stride]
  float* states;    // [rows][most_chunks][state_floats()]
  double* sums;     // [heads][stride]
  double* squares;  // [heads][stride]
  double* logs;     // [heads][stride]
};
// And a thread's.
struct ScoreWorkspace {
  float* output;    // [value_dim], where results go that are not wanted
  uint8_t* kernel;  // the kernel's own
};

class ScoreTasks {
 public:
  // All four must outlive this object.
  ScoreTasks(const AttentionCall& call, const AttentionKernelRow& kernel, const bl_attention_args& args,
             bool writes_output);

  int64_t count() const { return count_; }
  int64_t heads() const { return heads_; }  // of a task at most
  int64_t rows() const { return rows_; }    // of a block at most
  int64_t most_chunks() const { return most_chunks_; }
  int64_t blocks(int64_t task) const;
  // Chunks are attended each by itself and then joined, or all at once.
  bool is_split(int64_t task) const { return kernel_.chunks && chunks(task) > 1; }

  ScoreMemory memory(uint8_t* memory, uint64_t* bytes) const;
  ScoreWorkspace workspace(uint8_t* memory, uint64_t* bytes) const;

  // In this order, each for all of its last index, which is beyond what a task has for some: those do
  // nothing.
  void clear(const ScoreMemory& memory, int64_t head) const;
  // Then block by block: scores and states of a chunk; weights of a row, joined; a chunk's weights added up.
  void attend(int64_t task, const ScoreMemory& memory, const ScoreWorkspace& own, int64_t block,
              int64_t chunk) const;
  void join(int64_t task, const ScoreMemory& memory, const ScoreWorkspace& own, int64_t block,
            int64_t row) const;
  void add(int64_t task, const ScoreMemory& memory, int64_t block, int64_t chunk) const;
  // And what has been added up, written.
  void write(int64_t task, const ScoreMemory& memory, int64_t head) const;

 private:
  // A chunk of the keys of a sequence and kv head.
  struct Chunk {
    int32_t segment;
    int64_t index;       // in its segment
    int64_t first, end;  // keys of the sequence
  };

  int64_t sequence_of(int64_t task) const { return task / parts_ / call_.kv_heads; }
  int64_t kv_head_of(int64_t task) const { return task / parts_ % call_.kv_heads; }
  int64_t keys_of(int64_t task) const { return call_.keys(sequence_of(task), kv_head_of(task)); }
  int64_t observed(int64_t task) const;
  int64_t chunks(int64_t task) const;
  Chunk chunk_of(int64_t task, int64_t chunk) const;
  AttentionTask block_of(int64_t task, int64_t block) const;
  AttentionCall call_of(const AttentionTask& block, int64_t keys, const ScoreMemory& memory,
                        float* output) const;

  const AttentionCall& call_;
  const AttentionKernelRow& kernel_;
  const bl_attention_args& args_;
  AddWeights add_weights_;
  bool writes_output_;
  int64_t heads_, queries_;  // of a block
  int64_t parts_;            // tasks of a kv head
  int64_t count_, rows_;
  int64_t stride_;  // of rows of weights
  int64_t most_chunks_ = 1;
};

}  // namespace bitloom
