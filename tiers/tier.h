// SPDX-License-Identifier: Apache-2.0
//
// Tiers: memory of one kind and node, and where its pages go when it is full.
//
//   rank 0   hbm           demoted to dram0 dram1 slow2, then swap
//   rank 1   dram0         demoted to dram1 slow2        memory of nodes with CPUs
//            dram1         demoted to dram0 slow2
//   rank 2   slow2         demoted to swap               a node without CPUs: expansion memory
//
// Ranks are what is compared: integers, smaller is faster. Tiers of one rank are siblings: the same
// memory, near to one node's CPUs and far from another's. A page goes near, far, slow, swap: to a
// sibling only while that keeps its high watermark free, to a slower tier while that keeps its low
// one. So two siblings that are short do not hand pages back and forth (`takes_demoted`).
//
// Invariants: ids are positions in the table, fastest first; no tier demotes to one of a smaller
// rank, so demotion ends. Thread safety: the table is constant after set-up, pools are guarded by
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

// How far a node's CPUs are from a node's memory, in the units of ACPI's SLIT: 10 is local, twice
// that takes twice as long. What is not known is 10 for a node itself and 20 for any other.
class NodeDistances {
 public:
  static constexpr uint32_t kLocal = 10;
  static constexpr uint32_t kRemote = 20;
  void set(NodeId from, NodeId to, uint32_t distance);
  uint32_t between(NodeId from, NodeId to) const;
  // Nodes whose CPUs have a distance to anything, ascending.
  std::vector<NodeId> from() const;

 private:
  struct Entry {
    NodeId from, to;
    uint32_t distance = 0;
  };
  std::vector<Entry> entries_;
};

// Between the NUMA nodes among `devices`, as they were found.
NodeDistances node_distances(std::span<const DeviceInfo> devices);

// What a tier is made from: by describe_tiers, or by configuration.
struct TierDescription {
  std::string name;    // unique: "hbm", "dram", "dram1", "slow2"
  std::string device;  // DeviceInfo::name of its memory
  uint32_t rank = 0;   // 0 is fastest
  MemoryKind memory = MemoryKind::kDram;
  uint64_t bandwidth = 0;  // MiB/s from the nearest CPUs; 0: unknown
  uint64_t latency = 0;    // ns likewise
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

// Tiers from devices: accelerators and high-bandwidth memory before nodes with CPUs before nodes
// without. Those without have a rank for each kind, bandwidth and latency: persistent memory last,
// else the wider, then the quicker first. The only one of its name is "hbm", "dram" or "slow", else
// the name gets the node's number (GPUs: the device's). Devices of unknown capacity (0) and block
// devices are left out. Ordered by rank, then as given.
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
  // Where reclaim moves pages to, in this order; behind them: swap. By rank, siblings first; of one
  // rank the nearest first.
  const std::vector<TierId>& demotes_to() const { return demotes_to_; }
  // Whether a page of `size` may come down from `from`: `coming` bytes are on their way already.
  bool takes_demoted(const Tier& from, Bytes size, Bytes coming) const;
  struct Stats {
    uint64_t promoted = 0, demoted = 0;  // pages that left it for a nearer, a farther tier
  };
  Stats& stats() { return stats_; }

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
  std::vector<TierId> demotes_to_;
  std::unique_ptr<FramePool> pool_;
  Watermarks watermarks_;  // guarded by the core lock
  Stats stats_;            // likewise
};

class TierTable {
 public:
  // BLOCKING: creates the pools. `descriptions`: fastest first. Errors: kInvalid (none, order of
  // ranks, no MMU, capacity below one block, watermarks,
  // more than kTiersMax), kExists (a name twice), and those of
  // FramePool::create; the detail names the tier.
  static Result<std::unique_ptr<TierTable>> create(std::span<const TierDescription> descriptions,
                                                   NodeDistances distances = {});

  size_t size() const { return tiers_.size(); }
  Tier& tier(TierId id) { return *tiers_.at(id.value()); }
  const Tier& tier(TierId id) const { return *tiers_.at(id.value()); }
  Tier& fastest() { return *tiers_.front(); }
  Tier* find(std::string_view name);  // null: none
  // Whose frame it is.
  FramePool& pool_of(const Frame& frame) { return tier(frame.tier).pool(); }
  const std::vector<std::unique_ptr<Tier>>& tiers() const { return tiers_; }
  const NodeDistances& distances() const { return distances_; }

 private:
  NodeDistances distances_;
  std::vector<std::unique_ptr<Tier>> tiers_;  // by id
};

}  // namespace kvmm
