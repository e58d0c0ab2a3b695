// A chunk of keys in integers, after score_tile<bits> and mix_tile<bits>, which are the level's own.

__attribute__((always_inline)) inline void fetch_headers(const KvPage& layout, const uint8_t* const (&pages)[kUnits]) {
  for (int64_t u = 0; u < kUnits; ++u) {
    if (u > 0 && pages[u] == pages[u - 1]) continue;
    for (int64_t i = 0; i < layout.header_bytes; i += 64) fetch(pages[u] + i);
  }
}

// What follows the dot products of a tile: terms, probabilities, softmax.
void weigh_tile(const AttentionCall& call, Work& work, Integers& ints, Ahead& ahead, const Row* rows, int64_t first,
                int64_t count) {
  const bool terms = has_score_terms(call);
  if (terms || call.probabilities.data != nullptr) {
    for (int64_t row = 0; row < work.rows; ++row) {
      float* scores = work.scores + row * kKeyTile;
      if (work.seen[row] == 0) continue;
      if (terms) add_terms(call, rows[row], first, count, scores);
      if (call.probabilities.data == nullptr) continue;
      float* to = probability_row(call, call.first_query(rows[row].sequence) + rows[row].query, rows[row].head);
      for (int64_t s = 0; s < count; ++s) {
        if (work.seen[row] >> s & 1) to[first + s] = scores[s];
      }
    }
  }
  // A key whose score is -infinity is as one that is not seen, whatever its value.
  for (int64_t row = 0; row < work.rows && ints.any_odd; ++row) {
    for (int64_t s = 0; s < kKeyTile; ++s) {
      if (work.scores[row * kKeyTile + s] == kMinusInfinity) work.seen[row] &= ~(uint64_t{1} << s);
    }
  }
  for (int64_t row = 0; row < ints.rows; row += kGroup) weigh_rows(work, ints, ahead, row);
}

// Keys [first, end) of a segment of integers, which are one chunk.
void attend_chunk_integers(const AttentionCall& call, const AttentionTask& task, Work& work, Integers& ints, const Row* rows,
                           int32_t segment, int64_t before, int64_t first, int64_t end) {
  const KvPage& keys = call.segments[segment].key_page;
  const KvPage& values = call.segments[segment].value_page;
  const int64_t kv_head = task.head_begin / call.group();
  const int64_t sequence = task.sequence_begin;
  const int64_t length = call.segment_keys(segment, sequence, kv_head);
  load_queries(work, ints);
  clear_integers(values, work, ints);
  Tile tile(call, sequence, kv_head, segment, first, length);
  for (int64_t at = first; at < end; at += kKeyTile) {
    const bool more = at + kKeyTile < length;
    const Tile next = more ? Tile(call, sequence, kv_head, segment, at + kKeyTile, length) : tile;
    const int64_t count = std::min(end - at, kKeyTile);
    uint64_t any = 0;
    for (int64_t row = 0; row < work.rows; ++row) {
      work.seen[row] = seen_keys(call, rows[row], before + at, count);
      any |= work.seen[row];
    }
    if (any != 0) {
      if (next.key_page[0] != tile.key_page[0]) {
        fetch_headers(keys, next.key_page);
        fetch_headers(values, next.value_page);
      }
      join_halves(call, sequence, kv_head, segment, at, length, ints.joined, tile);
      Ahead ahead(keys, values, tile, next);
      if (keys.bits == 8) score_tile<8>(keys, tile, ahead, work, ints);
      if (keys.bits == 4) score_tile<4>(keys, tile, ahead, work, ints);
      if (keys.bits == 2) score_tile<2>(keys, tile, ahead, work, ints);
      load_value_scales(values, tile, ints);
      weigh_tile(call, work, ints, ahead, rows, before + at, count);
      ahead.turn();  // here rather than after the scores: the matrix unit's products leave few places to ask
      if (values.bits == 8) mix_tile<8>(values, tile, ahead, work, ints);
      if (values.bits == 4) mix_tile<4>(values, tile, ahead, work, ints);
      if (values.bits == 2) mix_tile<2>(values, tile, ahead, work, ints);
      ahead.rest();
    }
    tile = next;
  }
  fold_integers(values, work, ints);
}

// A task; segments of other formats are computed in f32.
void attend_task_integers(const AttentionCall& call, const AttentionTask& task, uint8_t* memory) {
  const int64_t rows = padded_rows(task.rows());
  Work work(call, rows, memory);
  Integers ints(call, rows, memory + align_up(work.bytes));
  work.rows = task.rows();
  int32_t last = -1;
  attend_task(call, task, work,
              [&](Units& units, const Row* row, int32_t segment, int64_t before, int64_t first, int64_t end) {
                if (!is_integer_segment(call.segments[segment])) {
                  attend_chunk(call, work, row, units, before, first, end);
                  return;
                }
                if (segment != last) ints.scaled_for = nullptr;
                last = segment;
                attend_chunk_integers(call, task, work, ints, row, segment, before, first, end);
              });
}

uint64_t integers_scratch_bytes(const AttentionCall& call, int64_t rows) {
  const int64_t padded = padded_rows(rows);
  const uint64_t core = align_up(Work(call, padded, nullptr).bytes);
  return core + Integers(call, padded, nullptr).bytes;
}
