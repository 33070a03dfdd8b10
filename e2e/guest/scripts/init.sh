#!/bin/bash
# The first process of a guest. The kernel hands over words of its command line as environment:
#   WEFT_NAME    the guest's name
#   WEFT_SHARES  directories of the host, separated by ':', in which the guest may write
#   WEFT_IP      address/length of vec0; WEFT_GW its gateway. Both may be missing
#   WEFT_SCRIPT  what to run in the end, as the first process
# The root becomes the host's tree with a tmpfs on top: nothing but the shares is ever written.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb

if [ "$1" != second ]; then
    mount -t tmpfs -o size=80% tmpfs /mnt
    mkdir /mnt/u /mnt/w /mnt/r
    mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w /mnt/r || exit 1
    IFS=: read -ra shares <<<"$WEFT_SHARES"
    for share in "${shares[@]}"; do
        mkdir -p "/mnt/r$share"
        mount -t hostfs none -o "$share" "/mnt/r$share" || exit 1
    done
    mkdir /mnt/r/.old
    cd /mnt/r || exit 1
    pivot_root . .old
    exec chroot . bash "$0" second </dev/null >/dev/console 2>&1
fi

umount -l /.old
rmdir /.old
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for dir in /dev/shm /run /tmp /mnt; do mount -t tmpfs tmpfs "$dir"; done
mount -t configfs configfs /sys/kernel/config
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for name in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    [ -e "/dev/${name%%:*}" ] || ln -s "/proc/self/${name#*:}" "/dev/${name%%:*}"
done
hostname "$WEFT_NAME"
ip link set lo up
if [ -n "$WEFT_IP" ]; then
    ip addr add "$WEFT_IP" dev vec0
    ip link set vec0 up
    [ -z "$WEFT_GW" ] || ip route add default via "$WEFT_GW"
fi
cd /
exec bash "$WEFT_SCRIPT"
