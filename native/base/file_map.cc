// Files mapped privately, and what happens when such a file shrinks: a read past the new end raises
// SIGBUS; the handler puts a page of zeros there, counts, and lets the reader go on. Whoever ran over the
// mapping compares bl_mapped_file_faults() before and after, and reports BL_STATUS_file_changed.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <mutex>
#include <new>

#include "error.h"

struct bl_file {
  uint8_t* data = nullptr;
  uint64_t bytes = 0;   // of the file
  uint64_t mapped = 0;  // whole pages
};

namespace {

// Mappings that the signal handler knows. A fixed table of atomics, because a handler may take no lock.
constexpr int kMaxMappings = 1024;
struct Mapping {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
};
Mapping mappings[kMaxMappings];
std::atomic<uint64_t> faults{0};
struct sigaction previous_action;

bool inside_mapping(uintptr_t address) {
  for (const Mapping& mapping : mappings) {
    const uintptr_t end = mapping.end.load(std::memory_order_acquire);
    if (address < end && address >= mapping.begin.load(std::memory_order_acquire)) return true;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (inside_mapping(address)) {
    void* start = reinterpret_cast<void*>(address / page * page);
    if (mmap(start, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == start) {
      faults.fetch_add(1, std::memory_order_relaxed);
      return;
    }
  }
  // Not ours: whoever was here first.
  if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    std::signal(signal, SIG_DFL);  // the fault repeats and ends the process as it would have
  }
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action;
    std::memset(&action, 0, sizeof(action));
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, &previous_action);
    sysconf(_SC_PAGESIZE);
  });
}

bool register_mapping(const bl_file& file) {
  const uintptr_t begin = reinterpret_cast<uintptr_t>(file.data);
  for (Mapping& mapping : mappings) {
    uintptr_t free = 0;
    if (!mapping.begin.compare_exchange_strong(free, begin)) continue;
    mapping.end.store(begin + file.mapped, std::memory_order_release);
    return true;
  }
  return false;
}

void forget_mapping(const bl_file& file) {
  for (Mapping& mapping : mappings) {
    if (mapping.begin.load() != reinterpret_cast<uintptr_t>(file.data)) continue;
    mapping.end.store(0, std::memory_order_release);
    mapping.begin.store(0, std::memory_order_release);
    return;
  }
}

// Closes the descriptor on every way out; a mapping does not need it.
struct Descriptor {
  int value;
  ~Descriptor() {
    if (value >= 0) close(value);
  }
};

}  // namespace

extern "C" {

bl_status bl_file_open(const char* path, bl_file** file, bl_error* error) {
  BL_CHECK(path != nullptr && file != nullptr, invalid_argument, "file_open: path or file is null");
  *file = nullptr;
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  const Descriptor descriptor{open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  BL_CHECK(descriptor.value >= 0 || errno != ENOENT, not_found, "file_open: %s: no such file", path);
  BL_CHECK(descriptor.value >= 0, invalid_file, "file_open: %s: %s", path, std::strerror(errno));
  struct stat info;
  BL_CHECK(fstat(descriptor.value, &info) == 0, invalid_file, "file_open: %s: %s", path,
           std::strerror(errno));
  BL_CHECK(S_ISREG(info.st_mode), invalid_file, "file_open: %s is not a regular file", path);
  BL_CHECK(info.st_size > 0, invalid_file, "file_open: %s is empty", path);
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t bytes = static_cast<uint64_t>(info.st_size);
  const uint64_t mapped = (bytes + page - 1) / page * page;
  // Writable but private: a stray write from JavaScript changes a copy of the page, not the file, and is
  // no segmentation fault.
  void* data =
      mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, descriptor.value, 0);
  BL_CHECK(data != MAP_FAILED, out_of_memory, "file_open: %s: cannot map %llu bytes: %s", path,
           static_cast<unsigned long long>(bytes), std::strerror(errno));
  bl_file* opened = new (std::nothrow) bl_file{static_cast<uint8_t*>(data), bytes, mapped};
  install_handler();
  if (opened == nullptr || !register_mapping(*opened)) {
    delete opened;
    munmap(data, mapped);
    return bitloom::fail(error, BL_STATUS_out_of_memory, "file_open: %s: more than %d files are mapped", path,
                         kMaxMappings);
  }
  *file = opened;
  return BL_STATUS_ok;
}

void* bl_file_data(bl_file* file) { return file == nullptr ? nullptr : file->data; }

uint64_t bl_file_bytes(const bl_file* file) { return file == nullptr ? 0 : file->bytes; }

void bl_file_close(bl_file* file) {
  if (file == nullptr) return;
  forget_mapping(*file);
  munmap(file->data, file->mapped);
  delete file;
}

uint64_t bl_mapped_file_faults(void) { return faults.load(std::memory_order_relaxed); }

}  // extern "C"
