// SPDX-License-Identifier: Apache-2.0
//
// Where the time comes from: an object handed down at construction, never the system.
//
//   runtime/  a Clock over CLOCK_MONOTONIC      simulation  a Clock that jumps to the next event
//
// Nothing below runtime/ reads a clock; it asks the `Clock` it was given, or is told the tick. So
// the same code runs on real time and on virtual time, and a run in virtual time is reproducible.
#pragma once

#include "runtime/base/units.h"

namespace kvmm {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since some fixed moment. Never goes back; may stand still. NON-BLOCKING, allocates
  // nothing. Thread safety: any thread.
  virtual Tick now() noexcept = 0;
};

}  // namespace kvmm
