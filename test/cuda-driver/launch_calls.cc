// Kernels: attributes and launches.
#include <cstring>

#include "calls.h"
#include "state.h"

namespace bitloom::cuda_emulation {

namespace {

template <typename Body>
CUresult with_function(CUfunction handle, Body&& body) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    const std::shared_ptr<Function> function = driver.functions.find(handle);
    if (!function || function->context != &context) return CUDA_ERROR_INVALID_HANDLE;
    const std::shared_ptr<Module> module = function->module.lock();
    if (!module) {
      record_fault(driver, "kernel " + function->name + ": its module is unloaded");
      return CUDA_ERROR_INVALID_HANDLE;
    }
    return body(driver, context, *function, module);
  });
}

uint32_t shared_limit(const Device& device) {
  return static_cast<uint32_t>(arch_limits(device.arch)->shared_per_block);
}

}  // namespace

CUresult cuFuncSetAttribute(CUfunction handle, int attribute, int value) {
  return with_function(handle, [&](Driver&, Context& context, Function& function, const auto&) -> CUresult {
    if (attribute == CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT)
      return value >= -1 && value <= 100 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    if (attribute != CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES || value < 0)
      return CUDA_ERROR_INVALID_VALUE;
    const uint32_t bytes = static_cast<uint32_t>(value);
    if (bytes + function.program->static_shared > shared_limit(*context.device))
      return CUDA_ERROR_INVALID_VALUE;
    function.dynamic_shared_limit = bytes;
    return CUDA_SUCCESS;
  });
}

CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction handle) {
  return with_function(
      handle, [&](Driver&, Context& context, Function& function, const auto& module) -> CUresult {
        if (!value) return CUDA_ERROR_INVALID_VALUE;
        const ptx::Program& program = *function.program;
        switch (attribute) {
          case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
            return *value =
                       program.kernel->max_threads ? static_cast<int>(program.kernel->max_threads) : 1024,
                   CUDA_SUCCESS;
          case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
            return *value = static_cast<int>(program.static_shared), CUDA_SUCCESS;
          case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
            return *value = 0, CUDA_SUCCESS;
          case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
            return *value = static_cast<int>(program.local_bytes), CUDA_SUCCESS;
          case CU_FUNC_ATTRIBUTE_NUM_REGS:  // ptxas would tell; PTX does not
            return *value = 128, CUDA_SUCCESS;
          case CU_FUNC_ATTRIBUTE_PTX_VERSION:
            return *value = number_after("." + module->loaded->module->target, ".sm_", ""), CUDA_SUCCESS;
          case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
            return *value = context.device->arch, CUDA_SUCCESS;
          case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
            return *value = static_cast<int>(function.dynamic_shared_limit), CUDA_SUCCESS;
          default:
            return CUDA_ERROR_INVALID_VALUE;
        }
      });
}

namespace {

// The packed block of parameters, from one pointer per parameter or from a block. Empty text, or what is
// wrong.
std::string collect_parameters(const ptx::Program& program, void** parameters, void** extra,
                               std::vector<uint8_t>& block) {
  block.assign(program.parameter_bytes, 0);
  if (program.parameters.empty()) return {};
  if ((parameters == nullptr) == (extra == nullptr)) return "kernelParams or extra is wanted, one of them";
  if (parameters) {
    for (size_t i = 0; i < program.parameters.size(); ++i) {
      if (!parameters[i]) return "parameter " + std::to_string(i) + " is null";
      std::memcpy(block.data() + program.parameters[i].offset, parameters[i], program.parameters[i].bytes);
    }
    return {};
  }
  const void* data = nullptr;
  const size_t* bytes = nullptr;
  for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
    if (extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER) data = extra[1];
    if (extra[0] == CU_LAUNCH_PARAM_BUFFER_SIZE) bytes = static_cast<const size_t*>(extra[1]);
  }
  if (!data || !bytes || *bytes != block.size()) {
    return "a parameter block of " + std::to_string(bytes ? *bytes : 0) + " bytes, expected " +
           std::to_string(block.size());
  }
  std::memcpy(block.data(), data, block.size());
  return {};
}

std::string check_shape(const Device& device, const Function& function, const ptx::LaunchConfig& config) {
  const uint64_t threads = uint64_t{config.block[0]} * config.block[1] * config.block[2];
  const uint32_t most = function.program->kernel->max_threads ? function.program->kernel->max_threads : 1024;
  if (config.grid[0] == 0 || config.grid[1] == 0 || config.grid[2] == 0) return "an empty grid";
  if (config.grid[0] > 0x7fffffff || config.grid[1] > 65535 || config.grid[2] > 65535)
    return "the grid is too large";
  if (threads == 0 || threads > most || config.block[0] > 1024 || config.block[1] > 1024 ||
      config.block[2] > 64)
    return std::to_string(threads) + " threads per block, at most " + std::to_string(most);
  if (config.shared_bytes > function.dynamic_shared_limit)
    return std::to_string(config.shared_bytes) + " bytes of dynamic shared memory, allowed are " +
           std::to_string(function.dynamic_shared_limit);
  if (config.shared_bytes + function.program->dynamic_shared_offset > shared_limit(device))
    return "too much shared memory in all";
  return {};
}

Work kernel_work(const std::shared_ptr<Module>& module, const Function& function, ptx::LaunchConfig config) {
  const auto report = std::make_shared<ptx::LaunchReport>();
  const std::string name = function.name;
  Work work{.name = "kernel " + name, .run = {}, .is_kernel = true};
  work.run = [=](Device& device) {
    ptx::LaunchConfig with_options = config;
    with_options.options = device.launch_options;
    *report = device.machine->launch(*module->loaded, name, with_options);
  };
  work.finish = [=](Device&) {
    const std::string& target = module->loaded->module->target;
    Driver::get().counters[name + "\n" + target + "\n" + std::to_string(module->text_hash)].add(
        report->counters, config);
    *report = {};
  };
  return work;
}

}  // namespace

CUresult cuLaunchKernel(CUfunction handle, unsigned int grid_x, unsigned int grid_y, unsigned int grid_z,
                        unsigned int block_x, unsigned int block_y, unsigned int block_z,
                        unsigned int shared_bytes, CUstream stream_handle, void** parameters, void** extra) {
  return with_function(handle,
                       [&](Driver& driver, Context& context, Function& function,
                           const std::shared_ptr<Module>& module) -> CUresult {
                         const std::shared_ptr<Stream> stream = find_stream(driver, context, stream_handle);
                         if (!stream) return CUDA_ERROR_INVALID_HANDLE;
                         ptx::LaunchConfig config;
                         config.grid[0] = grid_x, config.grid[1] = grid_y, config.grid[2] = grid_z;
                         config.block[0] = block_x, config.block[1] = block_y, config.block[2] = block_z;
                         config.shared_bytes = shared_bytes;
                         std::string wrong = check_shape(*context.device, function, config);
                         if (wrong.empty())
                           wrong =
                               collect_parameters(*function.program, parameters, extra, config.parameters);
                         if (!wrong.empty()) {
                           record_fault(driver, "cuLaunchKernel: kernel " + function.name + ": " + wrong);
                           return CUDA_ERROR_INVALID_VALUE;
                         }
                         return submit(driver, *stream, kernel_work(module, function, std::move(config)));
                       });
}

}  // namespace bitloom::cuda_emulation
