// SPDX-License-Identifier: Apache-2.0
//
// What the machine has that a driver may bind: NUMA nodes and GPUs, as hwloc sees them.
//
//   hwloc (this machine, or an XML of another)      DeviceInfo
//     NUMANode L#0 (128 GB) + 32 cores       ---->   node0  kMemory  numa  128 GB
//     NUMANode L#1 (256 GB), no cores        ---->   node1  kMemory  numa  256 GB  has_cpus = false
//       subtype HBM, NVM, CXL-DRAM ...       ---->     memory = kHbm, kPersistent, kCxl
//       Bandwidth, Latency (memory attributes) -->     bandwidth, latency, from the best CPUs
//     latencies from node to node, else a matrix ->    distances
//     PCI 10de:2330 (3D) "0000:3b:00.0"      ---->   gpu0   kMemory  cuda  path = its bus id
//     PCI of another maker (display)         ---->   gpu1   kMemory  pci
//
// Invariants
//   1. Nodes come first, in the order of their numbers; a node's name is "node" and that number.
//   2. GPUs are numbered from 0 in the order of their bus ids; `node` is the nearest node.
//   3. An XML that does not parse is an error, never an empty or half list.
// Thread safety: any thread; nothing is kept between calls.
#pragma once

#include <string>
#include <vector>

#include "drivers/driver.h"
#include "runtime/base/result.h"

namespace kvmm {

// Where the topology comes from: at most one of the two, none is this machine.
struct TopologySource {
  std::string xml_path;  // a file as `lstopo --of xml` writes it
  std::string xml_text;  // the same as text
};

// BLOCKING. Errors: kInvalid (both sources given; malformed XML; a node number above 65535),
// kNotFound, kPermission (the file), kIo (hwloc cannot read the machine), kNoMemory.
Result<std::vector<DeviceInfo>> enumerate_devices(const TopologySource& source = {});

}  // namespace kvmm
