// SPDX-License-Identifier: Apache-2.0
#include "tiers/tier.h"

#include <algorithm>
#include <array>
#include <string>
#include <tuple>
#include <utility>

namespace kvmm {
namespace {

enum class Group : uint8_t { kWide, kNodeWithCpus, kNodeWithoutCpus };
constexpr std::array<const char*, 3> kGroupNames = {"hbm", "dram", "slow"};

Group group_of(const MemoryNode& node) {
  if (node.accelerator || (!node.has_cpus && node.info.memory == MemoryKind::kHbm)) {
    return Group::kWide;
  }
  return node.has_cpus ? Group::kNodeWithCpus : Group::kNodeWithoutCpus;
}

// What decides the rank; nodes that are equal in it are siblings.
using Speed = std::tuple<Group, bool, uint64_t, uint64_t>;

Speed speed_of(const MemoryNode& node) {
  const Group group = group_of(node);
  if (group != Group::kNodeWithoutCpus) {
    return {group, false, 0, 0};  // two sockets are siblings, whatever is plugged into them
  }
  // Unknown bandwidth (0) becomes the largest number: last.
  const uint64_t narrow = ~node.info.bandwidth + 1;
  return {group, node.info.memory == MemoryKind::kPersistent,
          node.info.bandwidth == 0 ? UINT64_MAX : narrow,
          node.info.latency == 0 ? UINT64_MAX : node.info.latency};
}

Error named(const std::string& tier, const Error& e) {
  return Error(e.code, "tier " + tier + (e.detail.empty() ? "" : ": " + e.detail), e.os_error);
}

Result<void> check_description(const TierDescription& d) {
  if (d.name.empty()) {
    return Error(Errc::kInvalid, "a tier needs a name");
  }
  if (d.mmu == nullptr) {
    return Error(Errc::kInvalid, "tier " + d.name + ": its device maps no memory");
  }
  return {};
}

}  // namespace

std::vector<TierDescription> describe_tiers(std::span<const MemoryNode> nodes) {
  std::vector<const MemoryNode*> order;
  std::array<uint32_t, 3> count{};
  for (const MemoryNode& n : nodes) {
    if (n.info.cls == DeviceClass::kMemory && n.info.capacity.value() != 0) {
      order.push_back(&n);
      ++count[static_cast<size_t>(group_of(n))];
    }
  }
  std::stable_sort(order.begin(), order.end(), [](const MemoryNode* a, const MemoryNode* b) {
    return speed_of(*a) < speed_of(*b);
  });
  std::vector<TierDescription> tiers;
  for (size_t i = 0; i < order.size(); ++i) {
    const MemoryNode& n = *order[i];
    TierDescription d;
    const auto group = static_cast<size_t>(group_of(n));
    d.name = kGroupNames[group];
    if (count[group] > 1) {
      d.name += n.accelerator ? "-" + n.info.name : std::to_string(n.info.node.value());
    }
    d.device = n.info.name;
    if (i != 0) {
      const bool same = speed_of(n) == speed_of(*order[i - 1]);
      d.rank = tiers.back().rank + (same ? 0 : 1);
    }
    d.node = n.info.node;
    d.capacity = n.info.capacity;
    d.memory = n.accelerator ? MemoryKind::kHbm : n.info.memory;
    d.bandwidth = n.info.bandwidth;
    d.latency = n.info.latency;
    if (n.accelerator) {
      d.page_size_min = kPageSizeMax;  // the device maps nothing smaller
    } else {
      d.comes_zeroed = true;  // the system's memory is
    }
    tiers.push_back(std::move(d));
  }
  return tiers;
}

void NodeDistances::set(NodeId from, NodeId to, uint32_t distance) {
  for (Entry& e : entries_) {
    if (e.from == from && e.to == to) {
      e.distance = distance;
      return;
    }
  }
  entries_.push_back({from, to, distance});
}

uint32_t NodeDistances::between(NodeId from, NodeId to) const {
  for (const Entry& e : entries_) {
    if (e.from == from && e.to == to) {
      return e.distance;
    }
  }
  return from == to ? kLocal : kRemote;
}

std::vector<NodeId> NodeDistances::from() const {
  std::vector<NodeId> nodes;
  for (const Entry& e : entries_) {
    if (std::find(nodes.begin(), nodes.end(), e.from) == nodes.end()) {
      nodes.push_back(e.from);
    }
  }
  std::sort(nodes.begin(), nodes.end());
  return nodes;
}

NodeDistances node_distances(std::span<const DeviceInfo> devices) {
  NodeDistances all;
  for (const DeviceInfo& d : devices) {
    if (d.cls == DeviceClass::kMemory && !d.cpus.empty()) {
      all.set(d.node, d.node, NodeDistances::kLocal);  // a node without memory has CPUs, too
    }
    for (const DeviceInfo::Distance& to : d.distances) {
      all.set(d.node, to.to, to.value);
    }
  }
  return all;
}

bool Tier::takes_demoted(const Tier& from, Bytes size, Bytes coming) const {
  const Bytes keeps = rank() == from.rank() ? watermarks_.high : watermarks_.low;
  // Bytes alone do not do: a page of 2 MiB finds no frame among blocks that are partly used.
  const bool has_frame = pool_->free_blocks() != 0 || pool_->class_stats(size).free != 0;
  return has_frame && pool_->free_bytes() >= keeps + coming + size;
}

Result<void> Tier::set_watermarks(const Watermarks& watermarks) {
  if (Result<void> valid = watermarks.validate(pool_->capacity()); !valid) {
    return named(name(), valid.error());
  }
  watermarks_ = watermarks;
  return {};
}

Result<std::unique_ptr<TierTable>> TierTable::create(std::span<const TierDescription> descriptions,
                                                     NodeDistances distances) {
  if (descriptions.empty() || descriptions.size() > kTiersMax) {
    return Error(Errc::kInvalid, "a tier table has 1 to " + std::to_string(kTiersMax) +
                                     " tiers, not " + std::to_string(descriptions.size()));
  }
  auto table = std::make_unique<TierTable>();
  table->distances_ = std::move(distances);
  for (const TierDescription& d : descriptions) {
    if (Result<void> r = check_description(d); !r) {
      return r.error();
    }
    if (table->find(d.name) != nullptr) {
      return Error(Errc::kExists, "two tiers are named " + d.name);
    }
    if (!table->tiers_.empty() && table->tiers_.back()->rank() > d.rank) {
      return Error(Errc::kInvalid, "tier " + d.name + ": tiers must be ordered fastest first");
    }
    std::unique_ptr<Tier> tier(new Tier);
    tier->id_ = TierId(static_cast<uint16_t>(table->tiers_.size()));
    tier->description_ = d;
    tier->kind_ = d.mmu->info().kind;
    FramePoolConfig config;
    config.tier = tier->id_;
    config.node = d.node;
    config.block_size = d.block_size;
    config.page_size_min = d.page_size_min;
    config.comes_zeroed = d.comes_zeroed;
    config.capacity = d.block_size.value() == 0
                          ? d.capacity
                          : Bytes(round_down(d.capacity.value(), d.block_size.value()));
    auto pool = FramePool::create(*d.mmu, config);
    if (!pool) {
      return named(d.name, pool.error());
    }
    tier->pool_ = std::move(*pool);
    const Watermarks marks = d.watermarks.value_or(Watermarks::defaults(config.capacity));
    if (Result<void> r = tier->set_watermarks(marks); !r) {
      return r.error();
    }
    table->tiers_.push_back(std::move(tier));
  }
  for (const auto& tier : table->tiers_) {
    std::vector<std::tuple<uint32_t, uint32_t, TierId>> to;
    for (const auto& other : table->tiers_) {
      if (other != tier && other->rank() >= tier->rank() && !other->pool().fixed()) {
        to.emplace_back(other->rank(), table->distances_.between(tier->node(), other->node()),
                        other->id());
      }
    }
    std::sort(to.begin(), to.end());
    for (const auto& [rank, distance, id] : to) {
      tier->demotes_to_.push_back(id);
    }
  }
  return table;
}

Tier* TierTable::find(std::string_view name) {
  const auto it =
      std::find_if(tiers_.begin(), tiers_.end(), [&](const auto& t) { return t->name() == name; });
  return it == tiers_.end() ? nullptr : it->get();
}

}  // namespace kvmm
