#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Holds the dynamic symbols of libkvmm.so against kvmm.h: every function of the header, nothing else.
# usage: exports.sh LIBKVMM_SO KVMM_H
set -euo pipefail
# Lines of a declaration: "KVMM_API kvmm_status kvmm_append(..." -> kvmm_append
sed -nE 's/^KVMM_API .*[ *](kvmm_[a-z_]+)\(.*/\1/p' "$2" | sort > exports.want
# The version node KVMM_0 is itself a symbol (type A).
nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort > exports.have
echo "$(wc -l < exports.want) functions in the header, $(wc -l < exports.have) exported symbols"
# Every KVMM_API line must have been understood, or the comparison below proves nothing.
[ "$(wc -l < exports.want)" -eq "$(grep -c "^KVMM_API" "$2")" ] || { echo "a declaration was not read"; exit 1; }
diff --label "in kvmm.h" --label "in libkvmm.so" -u exports.want exports.have
