#!/usr/bin/env bash
# Compiles the library and its tests for 64-bit ARM and runs the tests in an emulator, as processors with less and
# more: Cortex-A72 (level neon), Neoverse N1 (dotprod), and all that the emulator has (i8mm). Needs
# g++-aarch64-linux-gnu, qemu-user and CMake; says what is missing and fails without them. An emulator tells
# nothing about speed.
set -euo pipefail
cd "$(dirname "$0")/../.."
missing=()
for tool in cmake aarch64-linux-gnu-g++ qemu-aarch64; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ ${#missing[@]} != 0 ]; then
  echo "arm64 tests not run, missing: ${missing[*]} (Debian: cmake g++-aarch64-linux-gnu qemu-user)" >&2
  exit 1
fi
build=build/arm64
generator=()
if [ ! -f "$build/CMakeCache.txt" ] && command -v ninja >/dev/null; then generator=(-G Ninja); fi
cmake -S . -B "$build" "${generator[@]}" -DCMAKE_TOOLCHAIN_FILE="$PWD/native/linux-arm64.cmake" \
  -DBITLOOM_TESTS=ON >/dev/null
cmake --build "$build" --parallel "$(nproc)" --target matmul_levels_test operators_levels_test

# level CPU EXPECTED: the tests as that processor, which must be taken for one of the expected level.
level() {
  local cpu=$1 expected=$2 test
  for test in matmul_levels_test operators_levels_test; do
    printf '%s as %s:\n' "$test" "$cpu"
    qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$cpu" "$build/$test" | tee "$build/$test.log"
    grep -q "best level $expected\$" "$build/$test.log" || {
      echo "$cpu: expected level $expected" >&2
      return 1
    }
  done
}
level cortex-a72 neon
level neoverse-n1 dotprod
level max i8mm
for forced in scalar neon avx2; do
  BITLOOM_ISA=$forced qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max "$build/operators_levels_test" | tail -1
done
