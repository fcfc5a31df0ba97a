// SPDX-License-Identifier: Apache-2.0
#include "runtime/cpu_nodes.h"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdio>

namespace kvmm {

CpuNodes::CpuNodes(std::span<const DeviceInfo> devices) {
  for (const DeviceInfo& d : devices) {
    nodes_ += d.cpus.empty() ? 0 : 1;
    for (const uint32_t cpu : d.cpus) {
      node_of_.resize(std::max<size_t>(node_of_.size(), size_t{cpu} + 1), kNone);
      node_of_[cpu] = d.node.value();
    }
  }
}

std::optional<NodeId> CpuNodes::of_cpu(uint32_t cpu) const {
  if (cpu >= node_of_.size() || node_of_[cpu] == kNone) {
    return std::nullopt;
  }
  return NodeId(node_of_[cpu]);
}

std::optional<NodeId> CpuNodes::here() const {
  const int cpu = sched_getcpu();
  return cpu < 0 ? std::nullopt : of_cpu(static_cast<uint32_t>(cpu));
}

std::optional<uint32_t> CpuNodes::cpu_of_stat(std::string_view line) {
  // pid (name) state ...: the CPU is field 39, and the name ends at the last parenthesis.
  constexpr int kFieldsAfterName = 39 - 3;
  size_t at = line.rfind(") ");
  if (at == std::string_view::npos) {
    return std::nullopt;
  }
  at += 2;
  for (int i = 0; i < kFieldsAfterName; ++i) {
    at = line.find(' ', at);
    if (at == std::string_view::npos) {
      return std::nullopt;
    }
    ++at;
  }
  uint32_t cpu = 0;
  const char* const end = line.data() + line.size();
  const auto [rest, error] = std::from_chars(line.data() + at, end, cpu);
  const bool ends = rest == end || *rest == ' ' || *rest == '\n';
  return error == std::errc() && ends ? std::optional(cpu) : std::nullopt;
}

std::optional<NodeId> CpuNodes::of_thread(uint32_t thread) const {
  cpu_set_t set;
  CPU_ZERO(&set);
  // A machine with more CPUs than the set holds answers EINVAL; then only /proc is asked.
  if (sched_getaffinity(static_cast<pid_t>(thread), sizeof set, &set) == 0) {
    std::optional<NodeId> only;
    bool one = true;
    for (uint32_t cpu = 0; cpu < CPU_SETSIZE && one; ++cpu) {
      if (CPU_ISSET(cpu, &set)) {
        const std::optional<NodeId> node = of_cpu(cpu);
        one = node.has_value() && (!only || *only == *node);
        only = node;
      }
    }
    if (one && only) {
      return only;
    }
  }
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%u/stat", thread);
  const int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return std::nullopt;
  }
  char line[1024];
  const ssize_t n = read(fd, line, sizeof line);
  close(fd);
  const auto cpu = cpu_of_stat(std::string_view(line, n < 0 ? 0 : static_cast<size_t>(n)));
  return cpu ? of_cpu(*cpu) : std::nullopt;
}

}  // namespace kvmm
