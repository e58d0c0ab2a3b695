// kv_append: validate, check every slot, partition by heads and pages, encode token by token or page by page.
#include <algorithm>

#include "../../base/backend.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "kernel.h"
#include "pages.h"

namespace bitloom {

namespace {

// Values below which waking other threads costs more than it brings: about 10 microseconds of quantizing.
constexpr int64_t kSerialValues = int64_t{1} << 15;

// Keys with scales per channel come as whole pages.
bool by_page(const KvCall& call) { return call.key_page.scale == KvScale::channel; }

// With keys by page: each run of tokens that have slots is whole pages, in order.
bl_status check_page_runs(const KvCall& call, bl_error* error) {
  const int64_t size = call.keys.page_size;
  const int64_t heads = call.slots.rank == 2 ? call.heads : 1;
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t t = 0; t < call.tokens;) {
      const int64_t first = call.slot(t, h);
      if (first < 0) {
        ++t;
        continue;
      }
      for (int64_t i = 0; i < size; ++i) {
        const long long expected = first - first % size + i;
        BL_CHECK(t + i < call.tokens, invalid_argument,
                 "kv_append: slots end after %lld tokens of a page, expected all %lld: keys of format %s are "
                 "written by whole pages",
                 static_cast<long long>(i), static_cast<long long>(size),
                 bl_kv_format_name(call.keys.format));
        BL_CHECK(
            call.slot(t + i, h) == expected, invalid_argument,
            "kv_append: slots[%lld] is %lld, expected %lld: keys of format %s are written by whole pages",
            static_cast<long long>((t + i) * heads + h), static_cast<long long>(call.slot(t + i, h)),
            expected, bl_kv_format_name(call.keys.format));
      }
      t += size;
    }
  }
  return BL_STATUS_ok;
}

// Encodes one head's tokens.
struct Writer {
  const KvCall& call;
  const KvKernel& kernel;
  float* rows;  // by page: [page_size] rows, else null

  // A row of k or v as f32, with zeros up to a whole vector.
  static void load(const bl_tensor& from, int64_t token, int64_t head, const float* mean, int64_t dim,
                   float* row) {
    load_values(from.dtype, KvCall::row(from, token, head), from.strides[2], dim, row);
    for (int64_t c = 0; mean != nullptr && c < dim; ++c) row[c] -= mean[c];
    std::fill(row + dim, row + kv_row_floats(dim), 0.0f);
  }

  void write_page(int64_t token, int64_t head, int64_t page) const {
    const int64_t dim = call.keys.dim;
    uint8_t* to = call.page(call.keys, call.key_page, page, head);
    const float* direct = call.mean(head) == nullptr ? KvCall::direct(call.k, token, head) : nullptr;
    if (direct != nullptr) return kernel.encode_page(call.key_page, to, direct, call.k.strides[0]);
    for (int64_t t = 0; t < call.keys.page_size; ++t) {
      load(call.k, token + t, head, call.mean(head), dim, rows + t * kv_row_floats(dim));
    }
    kernel.encode_page(call.key_page, to, rows, kv_row_floats(dim));
  }

  // Encodes one row, from where it stands if that will do.
  void write_row(const bl_tensor& from, int64_t token, int64_t head, const float* mean, const KvPage& layout,
                 uint8_t* page, int64_t place) const {
    const float* direct = mean == nullptr ? KvCall::direct(from, token, head) : nullptr;
    if (direct != nullptr) return kernel.encode_token(layout, page, place, direct);
    alignas(64) float row[kMaxKvDim];
    load(from, token, head, mean, layout.dim, row);
    kernel.encode_token(layout, page, place, row);
  }

  void write(int64_t token, int64_t head, int64_t slot) const {
    // In 32 bits: half the time of a division in 64.
    const int64_t page = static_cast<uint32_t>(slot) / static_cast<uint32_t>(call.keys.page_size);
    const int64_t place = slot - page * call.keys.page_size;
    if (!by_page(call)) {
      write_row(call.k, token, head, call.mean(head), call.key_page,
                call.page(call.keys, call.key_page, page, head), place);
    } else if (place == 0 && token + call.keys.page_size <= call.tokens) {
      write_page(token, head, page);
    }
    if (call.values.data == nullptr) return;
    write_row(call.v, token, head, nullptr, call.value_page,
              call.page(call.values, call.value_page, page, head), place);
  }
};

// Tokens of a page share dwords, so that a page belongs to one task: tasks are heads (all of them, where a
// page may hold any head) times remainders of page numbers.
struct Partition {
  int64_t head_groups, parts;

  Partition(const KvCall& call, int32_t threads)
      : head_groups(call.keys.num_heads == call.heads ? call.heads : 1),
        // Enough tasks to share out, few enough that walking all slots in each does not count.
        parts(threads == 1 ? 1 : std::max<int64_t>(1, std::min<int64_t>(4 * threads, 32) / head_groups)) {}

  int64_t tasks() const { return head_groups * parts; }

  int64_t owner(const KvCall& call, int64_t slot) const {
    return static_cast<uint32_t>(slot) / static_cast<uint32_t>(call.keys.page_size) %
           static_cast<uint32_t>(parts);
  }

  void run(const Writer& writer, int64_t task) const {
    const KvCall& call = writer.call;
    const int64_t group = task / parts;
    const int64_t part = task % parts;
    const int64_t begin = head_groups == 1 ? 0 : group;
    const int64_t end = head_groups == 1 ? call.heads : group + 1;
    for (int64_t t = 0; t < call.tokens; ++t) {
      for (int64_t h = begin; h < end; ++h) {
        const int64_t slot = call.slot(t, h);
        if (slot >= 0 && (parts == 1 || owner(call, slot) == part)) writer.write(t, h, slot);
      }
    }
  }
};

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_kv_append(const bl_kv_append_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_kv_append_args, "kv_append", checked);
  KvCall call;
  BL_RETURN_IF_ERROR(check_kv_call("kv_append", checked.keys, checked.values, checked.k, checked.v,
                                   checked.slots, checked.key_mean, false, &call, error));
  BL_RUN_ON_DEVICE(kv_append, checked);
  BL_RETURN_IF_ERROR(check_slots(call, error));
  if (by_page(call)) BL_RETURN_IF_ERROR(check_page_runs(call, error));
  const int64_t channels = call.keys.dim + (call.values.data == nullptr ? 0 : call.values.dim);
  const int64_t values = call.tokens * call.heads * channels;
  if (values == 0) return BL_STATUS_ok;
  const KvKernel& kernel = choose_kv_kernel("kv_append", checked.run);
  const bool serial = values < kSerialValues;
  const Partition partition(call, serial ? 1 : thread_count(checked.run));
  const uint64_t task_bytes =
      by_page(call)
          ? static_cast<uint64_t>(call.keys.page_size * kv_row_floats(call.keys.dim)) * sizeof(float)
          : 0;
  const uint64_t bytes = task_bytes * static_cast<uint64_t>(serial ? 1 : partition.tasks());
  alignas(kScratchAlignment) uint8_t small[8];
  const Scratch scratch(small, bytes == 0 ? sizeof(small) : 0, bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "kv_append: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(bytes));
  const auto body = [&](int64_t task) {
    const uint64_t slot = serial ? 0 : static_cast<uint64_t>(task);
    partition.run({call, kernel, reinterpret_cast<float*>(scratch.data() + slot * task_bytes)}, task);
  };
  if (serial) {
    for (int64_t task = 0; task < partition.tasks(); ++task) body(task);
  } else {
    parallel_for(checked.run, partition.tasks(), body);
  }
  return BL_STATUS_ok;
}
