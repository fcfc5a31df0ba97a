# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Where things are kept between builds. To be sourced, by tools/test and tools/demo:
#   KVMM_CACHE   downloads, compiler cache, what clang-tidy has passed; safe to delete
KVMM_CACHE="${XDG_CACHE_HOME:-${HOME:-/var/tmp}/.cache}/kvmm"
export KVMM_CACHE

export CCACHE_DIR="${CCACHE_DIR:-$KVMM_CACHE/ccache}"
export CCACHE_MAXSIZE="${CCACHE_MAXSIZE:-4G}"
# Another clone of the same commit, in another folder, finds the same objects.
CCACHE_BASEDIR="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
export CCACHE_BASEDIR
export CCACHE_NOHASHDIR=1
mkdir -p "$CCACHE_DIR"
