// SPDX-License-Identifier: Apache-2.0
//
// Which tiers a runtime makes of the machine's NUMA nodes, and how large.
//
//   node0  256 GiB  CPUs       dram0   half of `dram_bytes`
//   node1  256 GiB  CPUs       dram1   the other half
//   node2    1 TiB  no CPUs    slow    only with a line `tiers/slow/capacity = ...`
//
// The one node of most machines is `dram`. Memory that the engine did not ask for is never taken:
// `dram_bytes` is the sum over the nodes with CPUs, and a node without CPUs waits to be named.
//
// Thread safety: pure functions.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "drivers/driver.h"
#include "runtime/base/result.h"
#include "tiers/tier.h"

namespace kvmm {

// A line of the configuration: `path` = tiers/<tier>/capacity, `where` = "file:line".
struct TierCapacity {
  std::string path;
  std::string where;
  Bytes capacity;
};

// Fastest first; device operations are not bound yet.
//   dram   0: the lines decide; without one for a node with CPUs, 1 GiB or a quarter of these
//          nodes' memory if that is less. Else the lines of nodes with CPUs are set aside.
//   block  capacities are rounded up to it
//   lines  those of unknown tiers are errors
//   one    only the first tier that has CPUs (frames that belong to no node)
// Errors: kNotFound (a line of an unknown tier; the text names the tiers), kInvalid (every tier is
// of size 0), kNotSupported (no NUMA node with memory).
Result<std::vector<TierDescription>> plan_tiers(std::span<const DeviceInfo> devices, Bytes dram,
                                                Bytes block, std::span<const TierCapacity> lines,
                                                bool one);

}  // namespace kvmm
