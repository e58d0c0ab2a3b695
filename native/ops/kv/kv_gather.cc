// kv_gather: validate, check every slot, partition the rows of k and v, decode.
#include <algorithm>

#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "kernel.h"
#include "pages.h"

namespace bitloom {

namespace {

// Values below which waking other threads costs more than it brings, and those of a task.
constexpr int64_t kSerialValues = int64_t{1} << 15;
constexpr int64_t kTaskValues = int64_t{1} << 13;

// One row of k or v: the decoded token, or zeros.
void read(const KvCall& call, const KvKernel& kernel, bool values, int64_t token, int64_t head,
          int64_t slot) {
  const bl_kv_pages& pages = values ? call.values : call.keys;
  const KvPage& layout = values ? call.value_page : call.key_page;
  const bl_tensor& to = values ? call.v : call.k;
  const float* mean = values ? nullptr : call.mean(head);
  alignas(64) float scratch[kMaxKvDim];
  float* direct = KvCall::direct(to, token, head);
  float* row = direct == nullptr ? scratch : direct;
  if (slot < 0) {
    std::fill(row, row + pages.dim, 0.0f);
  } else {
    // In 32 bits: half the time of a division in 64.
    const int64_t page = static_cast<uint32_t>(slot) / static_cast<uint32_t>(pages.page_size);
    kernel.decode_token(layout, call.page(pages, layout, page, head), slot - page * pages.page_size, row);
    for (int64_t c = 0; mean != nullptr && c < pages.dim; ++c) row[c] += mean[c];
  }
  if (direct == nullptr) {
    store_values(to.dtype, KvCall::row(to, token, head), to.strides[2], pages.dim, row);
  }
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_kv_gather(const bl_kv_gather_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_kv_gather_args, "kv_gather", checked);
  KvCall call;
  BL_RETURN_IF_ERROR(check_kv_call("kv_gather", checked.keys, checked.values, checked.k, checked.v,
                                   checked.slots, checked.key_mean, true, &call, error));
  BL_RUN_ON_DEVICE(kv_gather, checked);
  BL_RETURN_IF_ERROR(check_slots(call, error));
  const int64_t rows = call.tokens * call.heads;
  const int64_t channels = call.keys.dim + (call.values.data == nullptr ? 0 : call.values.dim);
  if (rows == 0) return BL_STATUS_ok;
  const KvKernel& kernel = choose_kv_kernel("kv_gather", checked.run);
  const int64_t per_task = std::max<int64_t>(1, kTaskValues / channels);
  const int64_t tasks = (rows + per_task - 1) / per_task;
  const auto body = [&](int64_t task) {
    for (int64_t i = task * per_task; i < std::min((task + 1) * per_task, rows); ++i) {
      const int64_t token = i / call.heads;
      const int64_t head = i % call.heads;
      const int64_t slot = call.slot(token, head);
      read(call, kernel, false, token, head, slot);
      if (call.values.data != nullptr) read(call, kernel, true, token, head, slot);
    }
  };
  if (rows * channels < kSerialValues) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
  } else {
    parallel_for(checked.run, tasks, body);
  }
  return BL_STATUS_ok;
}
