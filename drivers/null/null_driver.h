// SPDX-License-Identifier: Apache-2.0
//
// null: a block device of any size that forgets what is written and reads as zeros.
//
//   write  -> kOk, nothing kept        read    -> kOk, zeros
//   flush  -> kOk                      discard -> kOk
//
// It is the bound of a measurement (what does everything above the disk cost?) and the example of
// docs/writing_a_driver.md: the smallest driver that passes the block suite.
//
// Options: size=BYTES (default: DeviceInfo::capacity).
//
// Invariants: every request is finished before `submit` returns; there is no state to break.
// Thread safety: as BlockOps.
#pragma once

#include <memory>

#include "drivers/driver.h"

namespace kvmm {

// Binds block devices of bus "null".
std::unique_ptr<Driver> make_null_driver();

}  // namespace kvmm
