// SPDX-License-Identifier: Apache-2.0
//
// The `host` driver: a NUMA node's memory as a device with an MMU, copies and data work.
//
//   option           default   meaning
//   frames=movable   *         anonymous memory moved by UFFDIO_MOVE (drivers/host/move_mmu.h)
//   frames=shareable           memfds mapped by UFFDIO_CONTINUE (drivers/host/share_mmu.h)
//   frames=pinonly             memfds mapped by mprotect; no userfaultfd: only engines that pin
//   busy_retries=N   256       tries of a move that finds the page busy, 0..1000000
//
// The driver never falls back by itself: what was asked for works, or binding fails and says what
// else there is.
//
// Thread safety: as drivers/driver.h.
#pragma once

#include <memory>

#include "drivers/driver.h"
#include "drivers/host/system_calls.h"

namespace kvmm {

// `calls` must outlive the driver and what it binds; `numa_nodes` 0: ask the machine.
std::unique_ptr<Driver> make_host_driver(const SystemCalls& calls = real_system_calls(),
                                         uint32_t numa_nodes = 0);

}  // namespace kvmm
