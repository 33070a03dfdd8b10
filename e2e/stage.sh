#!/bin/sh
# Runs one stage of `make test`: says what it is, and how long it took.
set -u
title=$1
shift
printf '\n=== %s\n' "$title"
began=$(date +%s)
"$@"
status=$?
printf '=== %s: %s after %s s\n' "$title" "$([ $status -eq 0 ] && echo passed || echo FAILED)" "$(($(date +%s) - began))"
exit $status
