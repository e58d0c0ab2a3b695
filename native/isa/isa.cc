// What this processor can do, and which level is in force.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "../base/error.h"
#include "../base/tensor.h"
#include "isa.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#elif defined(__aarch64__) && defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace bitloom {

namespace {

#if defined(__x86_64__)

struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool has(uint32_t word, std::initializer_list<int> bits) {
  for (const int bit : bits) {
    if ((word >> bit & 1u) == 0) return false;
  }
  return true;
}

// Register state that the operating system saves (XCR0).
uint64_t saved_state() {
  uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Linux hands out the 8 KB tile state only to processes that ask for it.
bool request_tiles() {
#if defined(__linux__)
  constexpr long kArchReqXcompPerm = 0x1023;
  constexpr long kXfeatureTileData = 18;
  return syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureTileData) == 0;
#else
  return false;
#endif
}

int32_t detect() {
  const Registers leaf1 = cpuid(1, 0);
  const Registers leaf7 = cpuid(7, 0);
  // FMA, POPCNT, OSXSAVE, AVX, F16C; then BMI1, AVX2, BMI2.
  if (!has(leaf1.ecx, {12, 23, 27, 28, 29}) || !has(leaf7.ebx, {3, 5, 8})) return BL_ISA_scalar;
  const uint64_t state = saved_state();
  if ((state & 0x6) != 0x6) return BL_ISA_scalar;  // xmm, ymm
  // F, DQ, BW, VL; then VBMI, GFNI, VNNI.
  const bool avx512 = has(leaf7.ebx, {16, 17, 30, 31}) && has(leaf7.ecx, {1, 8, 11}) &&
                      (state & 0xe0) == 0xe0;  // opmask, upper zmm
  if (!avx512) return BL_ISA_avx2;
  // AMX-BF16, AMX-TILE, AMX-INT8; AVX512_BF16.
  const bool amx = has(leaf7.edx, {22, 24, 25}) && has(cpuid(7, 1).eax, {5}) &&
                   (state & 0x60000) == 0x60000 && request_tiles();
  return amx ? BL_ISA_amx : BL_ISA_avx512;
}

#elif defined(__aarch64__)

#if defined(__linux__)
// Bits of AT_HWCAP and AT_HWCAP2 (linux/arch/arm64/include/uapi/asm/hwcap.h); older C libraries lack names.
constexpr unsigned long kHwcapDotprod = 1ul << 20;
constexpr unsigned long kHwcap2I8mm = 1ul << 13;
bool has_dotprod() { return (getauxval(AT_HWCAP) & kHwcapDotprod) != 0; }
bool has_i8mm() { return (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0; }
#elif defined(__APPLE__)
bool has(const char* feature) {
  int value = 0;
  size_t size = sizeof(value);
  return sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
}
bool has_dotprod() { return has("hw.optional.arm.FEAT_DotProd"); }
bool has_i8mm() { return has("hw.optional.arm.FEAT_I8MM"); }
#else
bool has_dotprod() { return false; }
bool has_i8mm() { return false; }
#endif

int32_t detect() {
  if (!has_dotprod()) return BL_ISA_neon;
  return has_i8mm() ? BL_ISA_i8mm : BL_ISA_dotprod;
}

#else

int32_t detect() { return BL_ISA_scalar; }

#endif

// The lowest level above scalar of this family of processors.
#if defined(__aarch64__)
constexpr int32_t kFirstLevel = BL_ISA_neon;
#else
constexpr int32_t kFirstLevel = BL_ISA_avx2;
#endif

int32_t find_isa(const char* name) {
#define BL_ISA(isa, value) \
  if (std::strcmp(name, #isa) == 0) return value;
#include "isa.inc"
#undef BL_ISA
  return -1;
}

int32_t level_from_environment() {
  const char* text = std::getenv("BITLOOM_ISA");
  if (text == nullptr || *text == 0) return bl_isa_available();
  const int32_t wanted = find_isa(text);
  if (bl_isa_supported(wanted) != 0) return wanted;
  std::fprintf(stderr,
               "bitloom: BITLOOM_ISA is \"%s\", expected one of %s (what this machine has); ignored\n", text,
               SupportedIsas().names);
  return bl_isa_available();
}

std::atomic<int32_t>& forced_level() {
  static std::atomic<int32_t> level{level_from_environment()};
  return level;
}

}  // namespace

int32_t isa_of(const bl_run& run) { return run.isa == BL_ISA_default ? bl_isa_active() : run.isa; }

bool verbose_dispatch() {
  static const bool verbose = [] {
    const char* text = std::getenv("BITLOOM_VERBOSE");
    return text != nullptr && std::strstr(text, "dispatch") != nullptr;
  }();
  return verbose;
}

}  // namespace bitloom

extern "C" {

const char* bl_isa_name(int32_t isa) {
  switch (isa) {
#define BL_ISA(name, value) \
  case value:               \
    return #name;
#include "isa.inc"
#undef BL_ISA
    default:
      return nullptr;
  }
}

int32_t bl_isa_available(void) {
  static const int32_t level = bitloom::detect();
  return level;
}

int32_t bl_isa_supported(int32_t isa) {
  return isa == BL_ISA_scalar || (isa >= bitloom::kFirstLevel && isa <= bl_isa_available()) ? 1 : 0;
}

int32_t bl_isa_active(void) { return bitloom::forced_level().load(std::memory_order_relaxed); }

bl_status bl_set_isa(int32_t isa, bl_error* error) {
  BL_CHECK(isa == BL_ISA_default || bl_isa_name(isa) != nullptr, invalid_argument,
           "set_isa: isa is %d, expected a known level", isa);
  BL_CHECK(isa == BL_ISA_default || bl_isa_supported(isa) != 0, unsupported,
           "set_isa: isa is %s, expected one of %s (what this machine has)", bl_isa_name(isa),
           bitloom::SupportedIsas().names);
  bitloom::forced_level().store(isa == BL_ISA_default ? bitloom::level_from_environment() : isa,
                                std::memory_order_relaxed);
  return BL_STATUS_ok;
}

}  // extern "C"
