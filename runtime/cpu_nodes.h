// SPDX-License-Identifier: Apache-2.0
//
// On which NUMA node a thread runs.
//
//   here        the caller: getcpu in the vDSO, some 20 ns
//   of_thread   another one: its affinity, if that is inside one node; else the CPU it ran on last,
//               from /proc: tens of microseconds, so never on the way of a fault
//
// On a machine with one node that has CPUs there is nothing to ask (`several`).
//
// Thread safety: any thread; constant after construction.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "drivers/driver.h"

namespace kvmm {

class CpuNodes {
 public:
  explicit CpuNodes(std::span<const DeviceInfo> devices);

  bool several() const { return nodes_ > 1; }
  std::optional<NodeId> of_cpu(uint32_t cpu) const;
  std::optional<NodeId> here() const;
  // A thread of this process. Allocates nothing. None: it has ended, or /proc is not there.
  std::optional<NodeId> of_thread(uint32_t thread) const;

  // The CPU in a line of /proc/PID/task/TID/stat. The thread's name may hold anything.
  static std::optional<uint32_t> cpu_of_stat(std::string_view line);

 private:
  static constexpr uint16_t kNone = UINT16_MAX;
  std::vector<uint16_t> node_of_;  // by CPU
  uint32_t nodes_ = 0;
};

}  // namespace kvmm
