// A task from its rows to its results: rows are loaded (and turned, with rope), chunks attended and joined, results or states
// written. Included by core.inl.

namespace {

// ---- results ----

// Output, lse and probabilities of query `row` of the call from its state over all keys; sums are overwritten.
void finish_row(const AttentionCall& call, int64_t row, int64_t head, float maximum, float total, float* sums) {
  const int64_t stride = padded16(call.value_dim);
  if (call.sinks != nullptr) {
    const float sink = call.sinks[head];
    const float larger = sink > maximum ? sink : maximum;
    const float base = larger == kMinusInfinity ? 0 : larger;
    const float factor = exp_one(maximum - base);
    total = total * factor + exp_one(sink - base);
    for (int64_t i = 0; i < stride; i += kLanes) (Vec::load(sums + i) * Vec::set(factor)).store(sums + i);
    maximum = larger;
  }
  if (total == 0) clear(sums, stride);
  for (int64_t i = 0; i < stride && total != 0; i += kLanes) (Vec::load(sums + i) / Vec::set(total)).store(sums + i);
  store_values(call.output.dtype, output_row(call, row, head), call.output.strides[2], call.value_dim, sums);
  const float lse = total == 0 ? kMinusInfinity : maximum + std::log(total);
  if (call.lse.data != nullptr) *lse_of(call, row, head) = lse;
  if (call.probabilities.data == nullptr) return;
  // Scores until here, -infinity where the row sees nothing.
  float* probabilities = probability_row(call, row, head);
  if (std::isnan(lse)) {  // but for keys that are not seen
    for (int64_t i = 0; i < call.probabilities.shape[2]; ++i) {
      probabilities[i] = probabilities[i] == kMinusInfinity ? 0 : lse;
    }
    return;
  }
  for_each_vec(call.probabilities.shape[2], [&](int64_t i, auto part) {
    if (lse == kMinusInfinity) return part.store(probabilities + i, Vec::set(0));
    part.store(probabilities + i, exp(part.load(probabilities + i) - Vec::set(lse)));
  });
}

void load_rows(const AttentionCall& call, const AttentionTask& task, const Work& work, Row* rows) {
  int64_t count = 0;
  const int64_t kv_head = task.head_begin / call.group();
  Rotation rotation(call.rope, work.spare);
  for (int64_t sequence = task.sequence_begin; sequence < task.sequence_end; ++sequence) {
    const int64_t queries = call.query_count(sequence);
    const int64_t keys = call.keys(sequence, kv_head);
    for (int64_t t = task.query_begin; t < task.query_end; ++t) {
      for (int64_t head = task.head_begin; head < task.head_end; ++head, ++count) {
        new (rows + count) Row{sequence, t, head, queries, keys, Sight(call, t, queries, keys, head)};
        float* query = work.query + count * call.head_dim;
        const int64_t offset = (call.first_query(sequence) + t) * call.q.strides[0] + head * call.q.strides[1];
        const int64_t bytes = call.q.dtype == BL_DTYPE_f32 ? 4 : 2;
        load_values(call.q.dtype, static_cast<const uint8_t*>(call.q.data) + offset * bytes, 1, call.head_dim, query);
        if (!rotation.none()) rotation.row(call.query_position(sequence, kv_head, t), query);
        for_each_vec(call.head_dim, [&](int64_t i, auto part) {
          part.store(query + i, part.load(query + i) * Vec::set(call.scale));
        });
      }
    }
  }
}

// The rows of a task over its keys. attend(units, rows, segment, before, first, end) brings the state over keys [first,
// end) of a segment, which are one chunk, to work.maximum, total and sums.
template <typename AttendChunk>
void attend_task(const AttentionCall& call, const AttentionTask& task, Work& work, AttendChunk&& attend) {
  alignas(Row) uint8_t row_memory[kMaxTaskRows * sizeof(Row)];
  Row* rows = reinterpret_cast<Row*>(row_memory);
  load_rows(call, task, work, rows);
  int64_t seen_begin, seen_end;
  hull(rows, work.rows, &seen_begin, &seen_end);
  // A chunk that is kept as a state need not be joined with nothing first.
  const bool one_chunk = task.state != nullptr && task.chunk_end == task.chunk_begin + 1;
  clear_state(work, work.joined_maximum, work.joined_total, one_chunk ? nullptr : work.joined);
  if (one_chunk) clear_chunk(work);  // none of it may be seen
  const int64_t kv_head = task.head_begin / call.group();
  int64_t before = 0;
  for (int32_t segment = 0; segment < call.segment_count; ++segment) {
    Units units(call, task.sequence_begin, kv_head, segment, work.scales, work.spare);
    const bool all = task.chunk_end < 0;
    const int64_t chunks = (units.count() + kKeyChunk - 1) / kKeyChunk;
    const int64_t chunk_begin = all ? 0 : segment == task.segment ? task.chunk_begin : chunks;
    const int64_t chunk_end = all ? chunks : std::min(task.chunk_end, chunks);
    for (int64_t chunk = chunk_begin; chunk < chunk_end; ++chunk) {
      const int64_t first = chunk * kKeyChunk;
      const int64_t end = std::min(first + kKeyChunk, units.count());
      if (before + end <= seen_begin || before + first >= seen_end) continue;
      attend(units, rows, segment, before, first, end);
      if (one_chunk) continue;
      for (int64_t row = 0; row < work.rows; ++row) {
        join_state(work.joined_maximum[row], work.joined_total[row], work.joined + row * work.stride, work.maximum[row],
                   work.total[row], work.sums + row * work.stride, work.stride);
      }
    }
    before += units.count();
  }
  const float* maximum = one_chunk ? work.maximum : work.joined_maximum;
  const float* total = one_chunk ? work.total : work.joined_total;
  for (int64_t row = 0; row < work.rows; ++row) {
    float* sums = (one_chunk ? work.sums : work.joined) + row * work.stride;
    const int64_t query = call.first_query(rows[row].sequence) + rows[row].query;
    if (task.state == nullptr) {
      finish_row(call, query, rows[row].head, maximum[row], total[row], sums);
      continue;
    }
    float* to = task.state + (query * task.state_heads + rows[row].head) * task.state_stride;
    to[0] = maximum[row];
    to[1] = total[row];
    std::memcpy(to + 16, sums, static_cast<size_t>(work.stride) * sizeof(float));
  }
}

void join_states(const AttentionCall& call, int64_t query, int64_t head, const float* states, int64_t count,
                 uint8_t* memory) {
  const int64_t stride = padded16(call.value_dim);
  float* sums = reinterpret_cast<float*>(memory);
  clear(sums, stride);
  float maximum = kMinusInfinity, total = 0;
  for (int64_t i = 0; i < count; ++i) {
    const float* other = states + i * state_floats(call);
    join_state(maximum, total, sums, other[0], other[1], other + 16, stride);
  }
  finish_row(call, query, head, maximum, total, sums);
}

}  // namespace
