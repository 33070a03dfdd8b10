#!/bin/sh
# Runs a command with the lowest priority beside another one, and waits for both:
# sh e2e/beside.sh 'command line of the one beside' command of the other ...
# For work that takes time but no part in what is measured. Fails if either fails.
set -u
beside=$1
shift
log=target/report/beside.log
mkdir -p target/report
# A process group of its own, so that it can be ended with all that it started.
setsid nice -n 19 sh -c "$beside" >"$log" 2>&1 </dev/null &
group=$!
trap 'kill -- "-$group" 2>/dev/null || kill "$group" 2>/dev/null' EXIT
trap 'exit 130' INT TERM
printf 'beside it, at the lowest priority (%s): %s\n' "$log" "$beside"
"$@" || exit $?
began=$(date +%s)
wait "$group"
status=$?
cat "$log"
printf 'beside it: %s, waited for %s s\n' "$([ $status -eq 0 ] && echo passed || echo FAILED)" "$(($(date +%s) - began))"
exit $status
