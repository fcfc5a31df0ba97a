#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the packages of a directory in a fresh Debian tree and uses them there.
# usage: try.sh DIR     as root; the tree is made in a temporary directory and removed
set -euo pipefail
packages="$(cd "$1" && pwd)"
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source_dir="$(cd "$here/../.." && pwd)"

if [ "$(id -u)" -ne 0 ]; then
  echo "try.sh: a fresh Debian tree is made by debootstrap, as root" >&2
  exit 77
fi
tree="$(mktemp -d "${TMPDIR:-/var/tmp}/kvmm-debian.XXXXXX")"
cleanup() {
  umount "$tree/proc" "$tree/sys" "$tree/dev" 2>/dev/null || true
  # Nothing of the machine may be mounted below when the tree goes.
  if ! grep -q " $tree/" /proc/self/mountinfo; then
    rm -rf --one-file-system "$tree"
  fi
}
trap cleanup EXIT

# The mirror that this machine's apt uses, whatever it is.
suite="$(. /etc/os-release && echo "$VERSION_CODENAME")"
mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Codename: '"$suite" | sort -u | head -1)"
echo "a fresh $suite"
debootstrap --variant=minbase "$suite" "$tree" "$mirror" >"$packages/debootstrap.log" 2>&1 || {
  tail -20 "$packages/debootstrap.log" >&2
  exit 1
}
cp "$packages"/*.deb "$tree/var/tmp/"
cp -r "$source_dir/tests/consumer/project/pkgconfig" "$tree/var/tmp/consumer"
mount -t proc proc "$tree/proc"
mount -t sysfs sysfs "$tree/sys"
mount --bind /dev "$tree/dev"

inside() { chroot "$tree" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "$@"; }
echo "installing"
inside sh -c 'DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends /var/tmp/libkvmm0_*.deb /var/tmp/kvmm-tools_*.deb' \
  >"$packages/install.log" 2>&1 || {
  tail -20 "$packages/install.log" >&2
  exit 1
}
echo "using: kvctl, kvbench"
inside kvctl --version
inside kvctl ps
inside kvbench --list >/dev/null
inside kvbench fault --quick --dir /var/tmp --json >/dev/null
echo "developing"
inside sh -c 'DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev pkg-config /var/tmp/libkvmm-dev_*.deb' \
  >>"$packages/install.log" 2>&1 || {
  tail -20 "$packages/install.log" >&2
  exit 1
}
# shellcheck disable=SC2016 # for the shell in the tree
inside sh -c 'cc -std=c11 -Wall -Werror /var/tmp/consumer/main.c $(pkg-config --cflags --libs kvmm) -o /var/tmp/consumer/main'
inside /var/tmp/consumer/main /var/tmp/consumer/swap
echo "removing"
inside sh -c 'dpkg --purge kvmm-tools libkvmm-dev libkvmm0' >>"$packages/install.log" 2>&1
if inside sh -c 'ls /usr/lib/*/libkvmm* /usr/bin/kvctl' >/dev/null 2>&1; then
  echo "try.sh: files are left behind" >&2
  exit 1
fi
echo "installed, used and removed in a fresh $suite"
