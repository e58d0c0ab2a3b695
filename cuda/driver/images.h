// Kernel images of a module as they are embedded: machine code per architecture, and PTX for what comes
// later. bitloom_cuda_module() of cuda/CMakeLists.txt makes them of one .cu file.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bitloom::cuda {

struct Image {
  int32_t arch;      // compute capability * 10: 80, 86, 120
  bool is_ptx;       // text, terminated by a zero byte; runs on `arch` and later
  const void* data;  // else a cubin: runs on the same major version and a minor one of at least arch's
  size_t bytes;
};

struct ModuleImages {
  const char* name;  // "matmul"
  const Image* images;
  size_t count;
};

// Whether a device of that architecture runs the image.
constexpr bool fits(const Image& image, int32_t arch) {
  return image.arch <= arch && (image.is_ptx || image.arch / 10 == arch / 10);
}

}  // namespace bitloom::cuda
