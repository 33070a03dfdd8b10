#!/bin/bash
# The first process of the node with a kernel of its own, after the guest's init. It makes the
# guest a Kubernetes node, then starts what every node runs. From the kernel's command line:
# WEFT_NAME the node, WEFT_STATE the state directory, WEFT_IP its address.
set -u
node=$WEFT_NAME state=$WEFT_STATE ip=${WEFT_IP%/*}
dir=$state/nodes/$node
export PATH=$state/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mkdir -p /run/lock /run/netns
mount --make-rshared /
echo 1 >/proc/sys/net/ipv4/ip_forward

# The node's disk: what must be on a real file system, and what a power cut leaves behind.
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/disk
mount -t ext4 /dev/ubda /mnt/disk
for name in kubelet containerd weft; do
    mkdir -p "/mnt/disk/$name" "/var/lib/$name"
    mount --bind "/mnt/disk/$name" "/var/lib/$name"
done
mount --bind "$dir/log" /var/log

# cgroup v2: processes out of the root, then hand the controllers down.
mkdir /sys/fs/cgroup/init
while read -r pid; do
    echo "$pid" >/sys/fs/cgroup/init/cgroup.procs
done <<<"$(cat /sys/fs/cgroup/cgroup.procs)" 2>/dev/null
echo "+cpu +memory +pids +io" >/sys/fs/cgroup/cgroup.subtree_control

# The kubelet ends when /proc/cpuinfo names no clock.
(
    sed '/^$/d' /proc/cpuinfo
    printf 'cpu MHz\t\t: 2000.000\nphysical id\t: 0\ncore id\t\t: 0\ncpu cores\t: 1\n\n'
) >/run/cpuinfo
mount --bind /run/cpuinfo /proc/cpuinfo

# Without its own name here the kubelet waits half a minute for a name server.
printf '127.0.0.1 localhost\n%s %s\n' "$ip" "$node" >/etc/hosts
: >/run/resolv.conf
mount --bind /run/resolv.conf /etc/resolv.conf
echo "$node" >/etc/hostname
mkdir -p /etc/cni/net.d
cp "$dir/config/10-lab.conflist" /etc/cni/net.d/

. "$state/bin/node-services"
keep agent busybox nc -ll -p 7001 -e "$state/bin/guest-agent"
services "$node" "$state"
while :; do
    sleep infinity &
    wait $! || true
done
