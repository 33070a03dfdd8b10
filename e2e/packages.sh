#!/bin/sh
# Names the Debian packages that the lab and the guest need, or those given as arguments, and
# installs what is missing, after asking. YES=1 answers.
set -eu
wanted="bc bison build-essential busybox-static conntrack containerd containernetworking-plugins
  buildah e2fsprogs ethtool fio flex fuse3 iproute2 ipset iptables iputils-ping kmod libelf-dev libssl-dev
  linux-source-6.12 musl-tools nftables nvme-cli openssl psmisc runc uml-utilities util-linux xfsprogs xz-utils"
[ $# -eq 0 ] || wanted="$*"
missing=""
for package in $wanted; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "These Debian packages are needed and missing:$missing"
if [ "${YES:-}" != 1 ]; then
  printf 'Install them now? [y/N] '
  read -r answer
  [ "$answer" = y ] || { echo "not installed; run again with YES=1, or install them yourself" >&2; exit 1; }
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086  # a list of words
apt-get install -y -qq --no-install-recommends $missing
