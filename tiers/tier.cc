// SPDX-License-Identifier: Apache-2.0
#include "tiers/tier.h"

#include <algorithm>
#include <array>
#include <utility>

namespace kvmm {
namespace {

enum Rank : uint32_t { kAccelerator, kNodeWithCpus, kNodeWithoutCpus };

std::optional<Rank> rank_of(const MemoryNode& node) {
  if (node.info.cls != DeviceClass::kMemory || node.info.capacity.value() == 0) {
    return std::nullopt;
  }
  if (node.accelerator) {
    return kAccelerator;
  }
  return node.has_cpus ? kNodeWithCpus : kNodeWithoutCpus;
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
  constexpr std::array<const char*, 3> kNames = {"hbm", "dram", "slow"};
  std::array<uint32_t, 3> count{};
  for (const MemoryNode& n : nodes) {
    if (const auto rank = rank_of(n)) {
      ++count[*rank];
    }
  }
  std::vector<TierDescription> tiers;
  for (const Rank rank : {kAccelerator, kNodeWithCpus, kNodeWithoutCpus}) {
    for (const MemoryNode& n : nodes) {
      if (rank_of(n) != rank) {
        continue;
      }
      TierDescription d;
      d.name = kNames[rank];
      if (count[rank] > 1) {
        d.name += rank == kAccelerator ? "-" + n.info.name : std::to_string(n.info.node.value());
      }
      d.device = n.info.name;
      d.rank = rank;
      d.node = n.info.node;
      d.capacity = n.info.capacity;
      if (rank == kAccelerator) {
        d.page_size_min = kPageSizeMax;  // the device maps nothing smaller
      } else {
        d.comes_zeroed = true;  // the system's memory is
      }
      tiers.push_back(std::move(d));
    }
  }
  return tiers;
}

Result<void> Tier::set_watermarks(const Watermarks& watermarks) {
  if (Result<void> valid = watermarks.validate(pool_->capacity()); !valid) {
    return named(name(), valid.error());
  }
  watermarks_ = watermarks;
  return {};
}

Result<std::unique_ptr<TierTable>> TierTable::create(
    std::span<const TierDescription> descriptions) {
  if (descriptions.empty() || descriptions.size() > UINT16_MAX) {
    return Error(Errc::kInvalid, "a tier table needs at least one tier");
  }
  auto table = std::make_unique<TierTable>();
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
  // Down to the next rank; there, to the tier of the same node if it has one, else the first.
  for (const auto& tier : table->tiers_) {
    const Tier* to = nullptr;
    for (const auto& other : table->tiers_) {
      if (other->rank() <= tier->rank() || (to != nullptr && other->rank() > to->rank())) {
        continue;
      }
      if (to == nullptr || (other->node() == tier->node() && to->node() != tier->node())) {
        to = other.get();
      }
    }
    if (to != nullptr) {
      tier->demote_to_ = to->id();
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
