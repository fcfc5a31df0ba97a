#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs kvmm into a prefix of its own, builds one consumer against it, outside this build, and runs it.
# usage: consumer.sh package|pkgconfig BUILD_DIR WORK_DIR   (CC, CXX, SANITIZE from the environment)
set -euo pipefail
kind=$1 build=$2 work=$3
here=$(cd "$(dirname "$0")" && pwd)
flags=${SANITIZE:+-fsanitize=$SANITIZE}
rm -rf "$work"
mkdir -p "$work"
for component in kvmm dev; do
  cmake --install "$build" --prefix "$work/prefix" --component $component >> "$work/install.log"
done
lib=$(dirname "$(find "$work/prefix" -name libkvmm.so)")
case $kind in
  package)
    cmake -S "$here/project/package" -B "$work/build" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" \
      -DCMAKE_CXX_COMPILER="$CXX" -DCMAKE_CXX_FLAGS="$flags" > "$work/configure.log"
    cmake --build "$work/build"
    "$work/build/consumer" # finds the library by the rpath that the package gives it
    ;;
  pkgconfig)
    export PKG_CONFIG_PATH=$lib/pkgconfig
    pkg-config --exact-version="$VERSION" kvmm
    # shellcheck disable=SC2046,SC2086 # the words are meant to be split
    $CC -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror $flags \
      "$here/project/pkgconfig/main.c" "$here/project/pkgconfig/abi.c" \
      $(pkg-config --cflags --libs kvmm) -o "$work/consumer"
    LD_LIBRARY_PATH=$lib "$work/consumer" "$work/swap"
    ;;
  *)
    echo "consumer.sh: no such kind: $kind" >&2
    exit 2
    ;;
esac
