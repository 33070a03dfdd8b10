#!/bin/bash
# The first process of the sandbox. Its own mounts, its own /proc, an empty /run (so that names
# of network namespaces and lock files collide with nothing on the machine), a router's network.
# $1: the file that says "ready".
set -eu
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/netns /run/lock
ip link set lo up
echo 1 >/proc/sys/net/ipv4/ip_forward
# A node without power is silent: its router does not say "unreachable" in its place.
for net in 172.30.0.0/16 10.210.0.0/16; do
    ip route add blackhole "$net" metric 1000
done
echo ready >"$1"
# bash reaps every orphan of the namespace while it waits.
while :; do
    sleep infinity &
    wait $! || true
done
