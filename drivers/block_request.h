// SPDX-License-Identifier: Apache-2.0
//
// What every block driver does with a request before and after the device: check it, finish it.
//
//   request ---check_block_request---> kOk: to the device
//                                      kInvalid: finish_block_request at once
//
// One check for all drivers, so that a request which `null` takes is a request which `uring` takes.
//
// Thread safety: functions without state.
#pragma once

#include "drivers/ops.h"

namespace kvmm {

// The longest read, write or discard of the drivers in this tree. Linux cuts one at 2 GiB - 4 KiB.
inline constexpr Bytes kBlockLengthMax = gib(1);

// kOk, or kInvalid: length 0 or above info.length_max, an offset, length or address that is no
// multiple of info.alignment, no buffer, or a range that leaves the capacity (also by overflow).
// A flush has no range and always passes. kGrow: kNotSupported, kNoSpace (beyond info.grows_to), or
// kInvalid (as above, or a gap behind the capacity).
Errc check_block_request(const BlockRequest& r, const BlockInfo& info) noexcept;

// Sets the result and gives the request back to its owner. REQUIRES: the driver owns `r`; it must
// not look at it afterwards.
void finish_block_request(BlockRequest& r, Errc result, int os_error = 0) noexcept;

}  // namespace kvmm
