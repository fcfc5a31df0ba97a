// SPDX-License-Identifier: Apache-2.0
//
// The C API as a benchmark calls it: an error is a Failure, an option struct knows its size.
//
// Thread safety: that of the calls.
#pragma once

#include <fmt/format.h>
#include <kvmm/kvmm.h>

#include "tools/kvbench/benchmark.h"

namespace kvmm::bench {

// Throws Failure (77: this kernel or user cannot).
inline void require(kvmm_status status, const char* what) {
  if (status == KVMM_OK) {
    return;
  }
  throw Failure(
      status == KVMM_EPERMISSION || status == KVMM_ENOTSUPPORTED ? kExitImpossible : kExitFailed,
      fmt::format("{}: {} ({})", what, kvmm_last_error(), kvmm_status_name(status)));
}

// KVMM_INIT of C, without a warning about the fields that it leaves 0.
template <class Struct>
Struct sized() {
  Struct s{};
  s.size = sizeof(s);
  return s;
}

}  // namespace kvmm::bench
