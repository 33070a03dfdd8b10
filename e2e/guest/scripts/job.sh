#!/bin/bash
# Runs WEFT_JOB/script as the only job of a guest, leaves its words, its status and the kernel's
# log on the host, and switches the guest off. The limit is for a guest whose starter died.
timeout --kill-after=5 "$WEFT_LIMIT" bash "$WEFT_JOB/script" >"$WEFT_JOB/out" 2>&1 </dev/null
rc=$?
dmesg >"$WEFT_JOB/dmesg"
echo "$rc" >"$WEFT_JOB/rc"
sync
echo o >/proc/sysrq-trigger
sleep 5
