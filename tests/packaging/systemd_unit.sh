#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# systemd finds nothing to say about the unit. usage: systemd_unit.sh SOURCE_DIR KVCTL WORK_DIR
set -euo pipefail
source_dir=$1 kvctl=$2 work=$3
command -v systemd-analyze >/dev/null || {
  echo "no systemd-analyze here"
  exit 77
}
# A copy that names the program of this build; the manual pages are not installed either.
sed "s|/usr/bin/kvctl|$kvctl|" "$source_dir/tools/packaging/kvmm-mount@.service" >"$work/kvmm-mount@.service"
said=$(systemd-analyze verify --man=no "$work/kvmm-mount@.service" 2>&1) || true
if [ -n "$said" ]; then
  echo "$said"
  exit 1
fi
# And it would say something about a breach.
sed -i 's|^Type=simple|Type=simpel|' "$work/kvmm-mount@.service"
if [ -z "$(systemd-analyze verify --man=no "$work/kvmm-mount@.service" 2>&1)" ]; then
  echo "systemd-analyze lets a wrong unit pass: this test shows nothing"
  exit 1
fi
