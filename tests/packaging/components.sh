#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each installed file belongs to one package. usage: components.sh BUILD_DIR PREFIX
set -euo pipefail
build=$1 prefix=$2
rm -rf "$prefix"
has() {
  if ! compgen -G "$prefix/$1" >/dev/null; then
    echo "$1 is not installed by $2"
    exit 1
  fi
}
for component in kvmm dev tools; do
  DESTDIR='' cmake --install "$build" --prefix "$prefix/$component" --component "$component" >/dev/null
done
cmake --install "$build" --prefix "$prefix/all" >/dev/null
has 'kvmm/lib*/libkvmm.so.0' kvmm
has 'dev/include/kvmm/kvmm.h' dev
has 'dev/lib*/libkvmm.so' dev
has 'tools/bin/kvctl' tools
has 'tools/lib/systemd/system/kvmm-mount@.service' tools
list() { (cd "$1" && find . ! -type d | sort); }
parts=$(for c in kvmm dev tools; do list "$prefix/$c"; done | sort)
if [ "$parts" != "$(list "$prefix/all")" ]; then
  echo "files in no package, or in two:"
  diff <(echo "$parts") <(list "$prefix/all") || true
  exit 1
fi
