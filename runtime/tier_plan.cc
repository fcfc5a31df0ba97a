// SPDX-License-Identifier: Apache-2.0
#include "runtime/tier_plan.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvmm {
namespace {

std::string path_of(const TierDescription& d) {
  return "tiers/" + d.name + "/capacity";
}

bool has_cpus(const TierDescription& d, std::span<const MemoryNode> nodes) {
  const auto it = std::find_if(nodes.begin(), nodes.end(),
                               [&](const MemoryNode& n) { return n.info.name == d.device; });
  return it != nodes.end() && it->has_cpus;
}

Result<void> check_lines(std::span<const TierCapacity> lines,
                         std::span<const TierDescription> tiers) {
  for (const TierCapacity& line : lines) {
    std::string names;
    bool known = false;
    for (const TierDescription& d : tiers) {
      names += (names.empty() ? "" : ", ") + d.name;
      known = known || path_of(d) == line.path;
    }
    if (!known) {
      return Error(Errc::kNotFound, fmt::format("{}: there is no {}; the tiers of this machine: {}",
                                                line.where, line.path, names));
    }
  }
  return {};
}

}  // namespace

Result<std::vector<TierDescription>> plan_tiers(std::span<const DeviceInfo> devices, Bytes dram,
                                                Bytes block, std::span<const TierCapacity> lines,
                                                bool one) {
  std::vector<MemoryNode> nodes;
  for (const DeviceInfo& d : devices) {
    if (d.cls == DeviceClass::kMemory && d.bus != "cuda" && d.bus != "pci") {
      nodes.push_back({d, d.has_cpus, false});
    }
  }
  std::vector<TierDescription> tiers = describe_tiers(nodes);
  if (one) {  // the node that the memory device is bound to
    const auto first = std::find_if(tiers.begin(), tiers.end(),
                                    [&](const TierDescription& d) { return has_cpus(d, nodes); });
    tiers = first == tiers.end() ? std::vector<TierDescription>() : std::vector{*first};
  }
  if (tiers.empty()) {
    return Error(Errc::kNotSupported, "the system names no NUMA node that has memory");
  }
  if (auto ok = check_lines(lines, tiers); !ok) {
    return ok.error();
  }
  // Without an amount and without a line of theirs, nodes with CPUs share the default.
  uint64_t memory = 0, with_cpus = 0;
  bool named = false;
  for (const TierDescription& d : tiers) {
    if (has_cpus(d, nodes)) {
      memory += d.capacity.value();
      ++with_cpus;
      named = named || std::any_of(lines.begin(), lines.end(),
                                   [&](const TierCapacity& l) { return l.path == path_of(d); });
    }
  }
  const Bytes sum = dram.value() != 0 ? dram : Bytes(std::min<uint64_t>(kGiB, memory / 4));
  const bool share = dram.value() != 0 || !named;
  for (TierDescription& d : tiers) {
    const bool near = has_cpus(d, nodes);
    d.capacity = near && share ? Bytes(sum.value() / with_cpus) : Bytes(0);
    for (const TierCapacity& l : lines) {
      if (l.path == path_of(d) && !(near && dram.value() != 0)) {
        d.capacity = l.capacity;
      }
    }
    d.block_size = block;
    d.capacity = Bytes(round_up(d.capacity.value(), block.value()));
  }
  std::erase_if(tiers, [](const TierDescription& d) { return d.capacity.value() == 0; });
  if (tiers.empty()) {
    return Error(Errc::kInvalid, "every tier is of size 0");
  }
  return tiers;
}

}  // namespace kvmm
