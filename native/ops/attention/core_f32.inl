// The entries of the kernels in f32, after core.inl.

void attention_f32(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  Work work(call, task.rows(), memory);
  attend_task(call, task, work,
              [&](Units& units, const Row* rows, int32_t, int64_t before, int64_t first, int64_t end) {
                attend_chunk(call, work, rows, units, before, first, end);
              });
}

void attention_join_f32(const AttentionCall& call, int64_t query, int64_t head, const float* states, int64_t count,
                        uint8_t* memory) {
  join_states(call, query, head, states, count, memory);
}

uint64_t attention_scratch_bytes_f32(const AttentionCall& call, int64_t rows) {
  return Work(call, rows, nullptr).bytes;
}
