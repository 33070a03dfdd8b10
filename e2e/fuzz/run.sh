#!/bin/sh
# Fuzzes every target for WEFT_FUZZ_SECONDS (60), as many at a time as there are cores.
# What is new and interesting stays in target/fuzz/corpus; an input that crashes is printed with its path.
set -eu
cd "$(dirname "$0")/../.."

seconds=${WEFT_FUZZ_SECONDS:-60}
triple=$(rustc -vV | sed -n 's/^host: //p')
work=$PWD/target/fuzz
program=$work/$triple/release/weft-fuzz

one() {
  target=$1 longest=$2
  seeds=e2e/fuzz/corpus/$target
  [ -d "$seeds" ] || { echo "fuzz: $target has no corpus" >&2; return 1; }
  mkdir -p "$work/corpus/$target" "$work/crashes/$target"
  if WEFT_FUZZ_TARGET=$target "$program" -max_total_time="$seconds" -max_len="$longest" -timeout=60 \
    -rss_limit_mb=1024 -print_final_stats=1 -artifact_prefix="$work/crashes/$target/" \
    "$work/corpus/$target" "$seeds" >"$work/$target.log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/$target.log")
    edges=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/$target.log" | tail -n 1)
    [ "${runs:-0}" -gt 0 ] || { echo "fuzz: $target ran nothing; see $work/$target.log" >&2; return 1; }
    printf '  %-16s %9d inputs, %5d edges, no crash\n' "$target" "$runs" "$edges"
  else
    tail -n 40 "$work/$target.log" >&2
    echo "fuzz: $target crashed: the input is in $work/crashes/$target" >&2
    return 1
  fi
}

# Called by itself with one target and its longest input.
if [ $# -eq 2 ]; then
  one "$1" "$2"
  exit
fi

# The coverage that libFuzzer follows; with a target named, build scripts are left alone.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks" \
  cargo build --locked --release --target "$triple" --target-dir "$work" -p weft-fuzz --features libfuzzer

WEFT_FUZZ_TARGET=--targets "$program" | xargs -P "$(nproc)" -n 2 sh "$PWD/e2e/fuzz/run.sh"
