// SPDX-License-Identifier: Apache-2.0
//
// Tiers: memory of one kind and node, and where its pages go when it is full.
//
//   rank 0   hbm           demote_to dram0   (the GPU's own node, node0)
//   rank 1   dram0, dram1  demote_to slow2   memory of nodes with CPUs
//   rank 2   slow2         demote_to none    a node without CPUs: expansion memory
//            (none: swap)
//
// Ranks are what is compared; tiers of one rank are each other's siblings (other NUMA nodes), never
// demotion targets: moving a page between two DRAM nodes frees nothing.
//
// Invariants: ids are positions in the table, fastest first; demote_to has a greater rank than its
// tier, so demotion ends. Thread safety: the table is constant after set-up, pools are guarded by
// the core lock. Ownership: a tier owns its pool; the devices outlive the table.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "drivers/driver.h"
#include "drivers/ops.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "tiers/frame_pool.h"

namespace kvmm {

// What a tier is made from: by describe_tiers, or by configuration.
struct TierDescription {
  std::string name;    // unique: "hbm", "dram", "dram1", "slow2"
  std::string device;  // DeviceInfo::name of its memory
  uint32_t rank = 0;   // 0 is fastest
  NodeId node;
  Bytes capacity;  // rounded down to block_size
  Bytes block_size = kPageSizeMax;
  Bytes page_size_min = kPageSizeMin;
  bool comes_zeroed = false;
  std::optional<Watermarks> watermarks;  // none: Watermarks::defaults
  // Bound by the composition root before TierTable::create. `copy` and `data` may be null.
  MmuOps* mmu = nullptr;
  CopyOps* copy = nullptr;
  DataOps* data = nullptr;
};

// A memory device as enumeration reports it.
struct MemoryNode {
  DeviceInfo info;
  bool has_cpus = true;      // of a NUMA node
  bool accelerator = false;  // memory of a GPU: fastest; has_cpus is not looked at
};

// Tiers from devices: accelerators before nodes with CPUs before nodes without. The only one of
// its kind is named "hbm", "dram" or "slow", else the name gets the node's number (GPUs: the
// device's). Devices of unknown capacity (0) and block devices are left out. Ordered by rank, then
// as given.
std::vector<TierDescription> describe_tiers(std::span<const MemoryNode> nodes);

class Tier {
 public:
  TierId id() const { return id_; }
  const std::string& name() const { return description_.name; }
  const TierDescription& description() const { return description_; }
  uint32_t rank() const { return description_.rank; }
  NodeId node() const { return description_.node; }
  FrameKind kind() const { return kind_; }
  MmuOps& mmu() const { return *description_.mmu; }
  CopyOps* copy() const { return description_.copy; }  // null: none
  DataOps* data() const { return description_.data; }  // null: none
  FramePool& pool() { return *pool_; }
  const FramePool& pool() const { return *pool_; }
  // Where reclaim moves pages to; none: swap.
  std::optional<TierId> demote_to() const { return demote_to_; }

  const Watermarks& watermarks() const { return watermarks_; }
  // Errors: kInvalid; the old ones stay.
  Result<void> set_watermarks(const Watermarks& watermarks);
  bool below_min() const { return watermarks_.below_min(pool_->free_bytes()); }
  bool below_low() const { return watermarks_.below_low(pool_->free_bytes()); }
  bool above_high() const { return watermarks_.above_high(pool_->free_bytes()); }

 private:
  friend class TierTable;
  Tier() = default;

  TierId id_;
  TierDescription description_;
  FrameKind kind_ = FrameKind::kMovable;
  std::optional<TierId> demote_to_;
  std::unique_ptr<FramePool> pool_;
  Watermarks watermarks_;  // guarded by the core lock
};

class TierTable {
 public:
  // BLOCKING: creates the pools. `descriptions`: fastest first. Errors: kInvalid (none, order of
  // ranks, no MMU, capacity below one block, watermarks), kExists (a name twice), and those of
  // FramePool::create; the detail names the tier.
  static Result<std::unique_ptr<TierTable>> create(std::span<const TierDescription> descriptions);

  size_t size() const { return tiers_.size(); }
  Tier& tier(TierId id) { return *tiers_.at(id.value()); }
  const Tier& tier(TierId id) const { return *tiers_.at(id.value()); }
  Tier& fastest() { return *tiers_.front(); }
  Tier* find(std::string_view name);  // null: none
  // Whose frame it is.
  FramePool& pool_of(const Frame& frame) { return tier(frame.tier).pool(); }
  const std::vector<std::unique_ptr<Tier>>& tiers() const { return tiers_; }

 private:
  std::vector<std::unique_ptr<Tier>> tiers_;  // by id
};

}  // namespace kvmm
