// SPDX-License-Identifier: Apache-2.0
//
// sim: simulated devices on a virtual clock, for the simulator and for tests.
//
//   block devices of bus "sim"     SimDisk (sim_disk.h)
//     size=BYTES  alignment=4096  depth=32  latency_us=80  jitter_us=0  bytes_per_s=2000000000
//     seed=0
//   memory devices of bus "sim"    SimMmu (sim_mmu.h), SimCopy, SimData (sim_data.h)
//     size=BYTES  granule=4096  kind=movable|shareable|dma  fixed=0  faults=1  strict=1  seed=0
//     async=0      1: map, unmap and copies complete at a later poll
//     data_async=0 1: checksum, zero and the like too
//     latency_us=0 jitter_us=0 (map, unmap)  copy_us=0  bytes_per_s=0 (copies; 0: no time) depth=64
//
//   SimClock clock;
//   auto memory = make_sim_driver(clock)->bind(info, nullptr);
//   SimMmu* mmu = find_sim_mmu(**memory);          // the engine's side: read(), write()
//   find_sim_disk(**disk)->set_guard(mmu);         // I/O on a mapped frame stops the run
//
// Thread safety: one thread for all devices of one clock.
#pragma once

#include <memory>

#include "drivers/driver.h"
#include "drivers/sim/sim_clock.h"
#include "drivers/sim/sim_disk.h"
#include "drivers/sim/sim_mmu.h"

namespace kvmm {

// `clock` outlives the driver and its devices.
std::unique_ptr<Driver> make_sim_driver(SimClock& clock);

// The test's and simulator's side of a bound device, or null if it is no such device of this
// driver.
SimDisk* find_sim_disk(Device& device);
SimMmu* find_sim_mmu(Device& device);

}  // namespace kvmm
