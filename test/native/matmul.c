/* What another engine does: include the header, link the library, run one operator. Exits with 0 if the
 * product is exact. */
#include <stdio.h>
#include <string.h>

#include "bitloom.h"

static bl_tensor matrix(float* data, int64_t rows, int64_t cols) {
  bl_tensor view;
  memset(&view, 0, sizeof(view));
  view.data = data;
  view.bytes = (uint64_t)(rows * cols) * sizeof(float);
  view.dtype = BL_DTYPE_f32;
  view.rank = 2;
  view.shape[0] = rows;
  view.shape[1] = cols;
  view.strides[0] = cols;
  view.strides[1] = 1;
  return view;
}

int main(void) {
  float a[2 * 3] = {1, 2, 3, 4, 5, 6};
  float b[2 * 3] = {1, 0, -1, 2, 1, 0};
  float c[2 * 2] = {0};
  const float expected[2 * 2] = {-2, 4, -2, 13};
  bl_error error;
  bl_matmul_args args;
  memset(&error, 0, sizeof(error));
  memset(&args, 0, sizeof(args));
  if (bl_abi_version() != BL_ABI_VERSION) return 2;
  args.size = sizeof(args);
  args.run.isa = BL_ISA_default;
  args.a = matrix(a, 2, 3);
  args.b.data = b;
  args.b.bytes = sizeof(b);
  args.b.format = BL_FORMAT_f32;
  args.b.rows = 2;
  args.b.cols = 3;
  args.c = matrix(c, 2, 2);
  if (bl_matmul(&args, &error) != BL_STATUS_ok) {
    fprintf(stderr, "%s\n", error.message);
    return 3;
  }
  if (memcmp(c, expected, sizeof(c)) != 0) return 4;
  args.b.cols = 2;
  if (bl_matmul(&args, &error) != BL_STATUS_invalid_shape) return 5;
  printf("%s\n%s\n", bl_version(), error.message);
  return 0;
}
