#!/bin/sh
# Copies the file system tools that the node plugin may run, and the libraries each of
# them loads, into a root directory of their own: collect-tools.sh ROOT
set -eu
root=$1
tools="/sbin/mkfs.ext4 /sbin/e2fsck /sbin/resize2fs /sbin/mkfs.xfs /sbin/xfs_repair /usr/sbin/xfs_growfs"

put() {
  mkdir -p "$root$(dirname "$1")"
  cp -L "$1" "$root$1"
}

for tool in $tools; do
  [ -x "$tool" ] || { echo "collect-tools: $tool is missing: install e2fsprogs and xfsprogs" >&2; exit 1; }
  file=$(readlink -f "$tool")
  case "$(head -c 2 "$file")" in
    '#!') echo "collect-tools: $tool is a script; the image has no shell" >&2; exit 1 ;;
  esac
  put "$tool"
  ldd "$file" | awk '/=> \//{print $3} /^[[:space:]]*\//{print $1}' | sort -u | while read -r library; do
    put "$library"
  done
done
mkdir -p "$root/etc" "$root/tmp" "$root/dev" "$root/proc" "$root/sys"
[ ! -f /etc/mke2fs.conf ] || put /etc/mke2fs.conf
