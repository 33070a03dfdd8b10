#!/bin/bash
# The first process of a node made of namespaces. It gives the node its own view of the machine's
# files, then starts what a node runs. $1: node, $2: state directory, $3: block device or "".
set -eu
node=$1 state=$2 drive=${3:-}
dir=$state/nodes/$node
export PATH=$state/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root

hostname "$node"
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs tmpfs /tmp
mkdir -p /run/lock /run/netns

# /sys of the node's own network namespace, with the cgroups of the machine on it.
mkdir /run/cgroup
mount --rbind /sys/fs/cgroup /run/cgroup
umount -l /sys/fs/cgroup
mount -t sysfs sysfs /sys
mount --rbind /run/cgroup /sys/fs/cgroup
umount -l /run/cgroup
rmdir /run/cgroup

# /etc: the machine's, with the node's changes on top.
mkdir -p "$dir/etc" "$dir/.etc"
mount -t overlay etc -o "lowerdir=/etc,upperdir=$dir/etc,workdir=$dir/.etc" /etc
echo "$node" >/etc/hostname
mkdir -p /etc/cni/net.d
cp "$dir/config/10-lab.conflist" /etc/cni/net.d/

# /var/lib: empty but for the node's own directories, each on the node's disk. The lab's state
# directory may lie below it, so it is kept at hand meanwhile.
mkdir /run/state
mount --bind "$state" /run/state
mount -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -p "$state"
mount --bind /run/state "$state"
umount /run/state
rmdir /run/state
for name in kubelet containerd weft; do
    mkdir -p "/var/lib/$name"
    mount --bind "$dir/$name" "/var/lib/$name"
done
mount --bind "$dir/log" /var/log

# /dev is the machine's; only the stable names of disks differ from node to node.
mount -t tmpfs -o mode=755 tmpfs /dev/disk
mkdir /dev/disk/by-id
if [ -n "$drive" ]; then
    ln -s "$drive" "/dev/disk/by-id/weft-lab-$node"
fi

mount --make-rshared /
. "$state/bin/node-services"
services "$node" "$state"
while :; do
    sleep infinity &
    wait $! || true
done
