// What the tests of the interpreter share: counting checks, running snippets of PTX, compiled kernels.
#pragma once

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "machine.h"

namespace bitloom::ptx::testing {

// Counts and, on failure, prints.
void check(bool condition, const std::string& what);
// Runs `body`, which must throw a Fault of the kind whose message contains every word of `parts`.
void check_fault(FaultKind kind, const std::vector<std::string>& parts, const std::string& what,
                 const std::function<void()>& body);
int finish();  // prints "N passed, N failed", gives the exit status

// A module with one kernel `k` whose body is `body` after these declarations; %in and %out are generic 64-bit
// pointers, %t is the thread of the block. Registers: %p<10>, %h<20> (16 bits), %r<40>, %f<20>, %d<20> (64
// bits), %e<8> (f64).
std::string module_text(const std::string& body, const std::string& globals = "",
                        const std::string& target = "sm_90");

// The values of a value's bit patterns, zero extended.
using Values = std::vector<uint64_t>;
struct Column {
  uint32_t bytes;  // 1, 2, 4, 8; of a source or a result
  bool predicate = false;
};
// Runs `instruction` on each row of `inputs`, one row per lane (32 rows per warp, the last warp padded with
// row 0). In the text, $0, $1, ... stand for the results and then the sources, in registers of their sizes.
// Opcodes that ran are remembered for untested_opcodes().
std::vector<Values> run_rows(const std::string& instruction, const std::vector<Column>& results,
                             const std::vector<Column>& sources, const std::vector<Values>& inputs);
// Opcodes of ops.inc that no call of run_rows() has executed.
std::vector<std::string> untested_opcodes();

// Launches `k` of the text with one 4-byte word per thread in and out; gives the words out.
std::vector<uint32_t> run_words(const std::string& text, uint32_t grid, uint32_t block, uint32_t words_out,
                                const std::vector<uint32_t>& words_in = {}, const Options& options = {},
                                uint32_t shared_bytes = 4096);

// The PTX of a test kernel, or empty where nvcc was absent at build time.
std::string kernel_text(const std::string& name, const std::string& arch);
bool has_kernels();
const std::vector<std::string>& kernel_archs();

// Deterministic values.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 88172645463325252ull) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  float uniform() { return static_cast<float>(next() % 20001) / 10000.0f - 1.0f; }  // -1 to 1

 private:
  uint64_t state_;
};

// The parts of the suite.
void test_parser();
void test_integers();
void test_bits();
void test_floats();
void test_halves();
void test_conversions();
void test_comparisons();
void test_memory();
void test_warp_operations();
void test_matrices();
void test_control_flow();
void test_formats();
void test_faults();
void test_synchronization();
void test_counters();
void test_kernels();
void test_mutations();
void measure_speed();

}  // namespace bitloom::ptx::testing
