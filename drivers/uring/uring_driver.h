// SPDX-License-Identifier: Apache-2.0
//
// uring: block devices on files and device nodes, through io_uring and O_DIRECT.
//
//   options   default              meaning
//   depth     32                   requests in flight, 1 to 4096
//   size      capacity of the      the file is made at least this large (K, M, G, T); a larger file
//             DeviceInfo, else     keeps its size. Of a block device, the part that is used
//             the size it has
//   prealloc  0                    1: disk blocks for all of it at once; a full disk is then found
//                                  at bind or resize and not by a write
//
// The file is created with mode 0600 if it is not there, locked against a second user, and never
// shrunk or deleted. See uring_block.h and swap_file.h for the errors.
//
// Thread safety: as Driver and BlockOps.
#pragma once

#include <memory>

#include "drivers/driver.h"
#include "drivers/uring/uring_calls.h"

namespace kvmm {

// Binds block devices of bus "file" that have a path.
std::unique_ptr<Driver> make_uring_driver(const UringCalls& calls = uring_system_calls());

}  // namespace kvmm
