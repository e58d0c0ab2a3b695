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
cmake --build "$build" --parallel "$(nproc)" --target matmul_levels_test operators_levels_test kv_levels_test

# level CPU EXPECTED: the tests as that processor, which must be taken for one of the expected level.
level() {
  local cpu=$1 expected=$2 test
  for test in operators_levels_test matmul_levels_test kv_levels_test; do
    qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu "$cpu" "$build/$test" >"$build/$test-$cpu.log" || return 1
    grep -q "best level $expected, in force $expected\$" "$build/$test-$cpu.log" || return 1
  done
}
jobs=()
for pair in cortex-a72:neon neoverse-n1:dotprod max:i8mm; do
  level "${pair%%:*}" "${pair#*:}" &
  jobs+=($!)
done
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
for log in "$build"/*_levels_test-*.log; do
  printf '%s\n' "${log##*/}"
  cat "$log"
done
# Forced levels; one of another family is refused aloud, and the best stays.
force() {
  printf 'BITLOOM_ISA=%s: ' "$1"
  BITLOOM_ISA=$1 qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max "$build/operators_levels_test" 2>&1 |
    tee "$build/forced.log" | grep -e "$2"
}
for isa in scalar neon dotprod; do force $isa "in force $isa\$" || failed=1; done
force avx2 'expected one of scalar, neon, dotprod, i8mm' || failed=1
grep -q 'in force i8mm$' "$build/forced.log" || failed=1
exit $failed
