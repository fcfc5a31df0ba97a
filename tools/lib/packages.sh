# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Installs the Debian packages that are missing. To be sourced, by tools/test and tools/demo:
#
#   source tools/lib/packages.sh
#   kvmm_install_packages build demo     # groups of debian-packages.txt; none named: build and demo

# Prints the packages of the groups named that are not installed, in the order of the list.
kvmm_missing_packages() {
  local list group package rest
  list="$(dirname "${BASH_SOURCE[0]}")/debian-packages.txt"
  while read -r group package rest; do
    case " $* " in
      *" $group "*) ;;
      *) continue ;;
    esac
    if ! dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed; then
      echo "$package"
    fi
  done <"$list"
}

# Root: installs what is missing. Others: prints the line that would, and returns 77.
# Where there is no dpkg (another distribution) it does nothing: CMake says what it does not find.
kvmm_install_packages() {
  if [ $# -eq 0 ]; then
    set -- build demo
  fi
  if ! command -v dpkg-query >/dev/null; then
    return 0
  fi
  local missing
  mapfile -t missing < <(kvmm_missing_packages "$@")
  if [ ${#missing[@]} -eq 0 ]; then
    return 0
  fi
  if [ "$(id -u)" -ne 0 ]; then
    {
      echo "These Debian packages are missing. This line installs them:"
      echo "  sudo apt-get install -y --no-install-recommends ${missing[*]}"
    } >&2
    return 77
  fi
  echo "installing: ${missing[*]}"
  local log
  log="$(mktemp)"
  # An index of yesterday may name packages that are gone: update first.
  if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
    </dev/null >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    echo "apt-get could not install: ${missing[*]}" >&2
    return 1
  fi
  rm -f "$log"
}
