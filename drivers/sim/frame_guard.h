// SPDX-License-Identifier: Apache-2.0
//
// Who catches a device that touches a page which the engine can reach.
//
//   SimDisk, SimCopy, SimData --on_device_access--> SimMmu: is a frame of these bytes mapped now?
//
// On real movable frames such an access finds an emptied address; on others it races with the
// engine and certifies bytes that are still changing. Either way the layers above are wrong, and
// the simulation stops there and not a million operations later.
//
// Thread safety: one thread.
#pragma once

#include <cstddef>

#include "runtime/base/units.h"

namespace kvmm {

class FrameGuard {
 public:
  virtual ~FrameGuard() = default;
  // A device is about to read (or write, if `writes`) memory. `who` is a constant text.
  virtual void on_device_access(const std::byte* data, Bytes length, bool writes,
                                const char* who) = 0;
};

}  // namespace kvmm
