// SPDX-License-Identifier: Apache-2.0
//
// The tiers that one MMU can map pages from, in the order in which frames are taken: a row for each
// node that has CPUs, by rank, and inside a rank by distance from that node.
//
//   row of node 0   dram0 above its low watermark?  dram1?  slow2?   then the same order, down to
//   row of node 1   dram1 above its low watermark?  dram0?  slow2?   the last frame
//                     |                               |       |
//                     v                               v       v
//                  nearest                        sibling   a node without CPUs
//
// Row 0 is for those of whom nobody knows where they run: the order of the table.
//
// So memory of a slower node is used before anything is swapped, and a near node keeps what its
// watermarks keep free. Sums over the tiers say how much room there is; a frame goes back to the
// pool that it came from. The name is Linux's: a node's zones in order of fallback.
//
// Shareable frames belong to their address, not to a node: only the first tier is used then.
//
// Thread safety: guarded by the core lock. Ownership: none; the TierTable outlives it.
#pragma once

#include <vector>

#include "tiers/tier.h"

namespace kvmm {

class Zonelist {
 public:
  // Every tier of `table`, fastest first. REQUIRES: they have one MMU, and the same block size and
  // smallest page.
  explicit Zonelist(TierTable& table);

  MmuOps& mmu() const { return tiers_.front()->mmu(); }
  TierTable& table() const { return table_; }

  // As FramePool's, which see. `row`: whose order.
  Frame* allocate(Bytes size, bool want_zeroed, uint32_t tenant, uint8_t row = 0);
  // A frame of that tier and no other, or null.
  Frame* allocate_on(Tier& tier, Bytes size, uint32_t tenant);
  Frame* allocate_fixed(FrameAddr addr, Bytes size, uint32_t tenant);
  void free(Frame& frame, bool zeroed) { pool_of(frame).free(frame, zeroed); }
  void scrubbed(Frame& frame, uint32_t tenant) { pool_of(frame).scrubbed(frame, tenant); }
  Frame* take_to_zero(Bytes size);
  Frame* take_to_rebuild();
  void put_back(Frame& frame, bool zeroed) { pool_of(frame).put_back(frame, zeroed); }
  void mark_split(Frame& frame) { pool_of(frame).mark_split(frame); }
  template <class Fn>
  void for_each_frame_in_block(Frame& frame, Fn&& fn) {
    pool_of(frame).for_each_frame_in_block(frame, fn);
  }
  void check_invariants() const;

  // The row of a node, 0 if it has none.
  uint8_t row_of(NodeId node) const;
  const std::vector<Tier*>& order(uint8_t row) const { return rows_[row].tiers; }
  const std::vector<Tier*>& tiers() const { return tiers_; }  // fastest first

  // Sums.
  Bytes capacity() const { return capacity_; }
  Bytes used_bytes() const;
  Bytes free_bytes() const { return capacity_ - used_bytes(); }
  Bytes zeroed_bytes() const;
  uint64_t free_blocks() const;
  FrameClassStats class_stats(Bytes size) const;
  Watermarks watermarks() const;
  bool below_min() const { return watermarks().below_min(free_bytes()); }
  bool below_low() const { return watermarks().below_low(free_bytes()); }

  Bytes block_size() const { return tiers_.front()->pool().config().block_size; }
  Bytes page_size_min() const { return tiers_.front()->pool().config().page_size_min; }

 private:
  FramePool& pool_of(const Frame& frame) const { return table_.pool_of(frame); }

  struct Row {
    NodeId node;
    std::vector<Tier*> tiers;
  };
  void make_rows();

  TierTable& table_;
  std::vector<Tier*> tiers_;
  std::vector<Row> rows_;  // the first: of no node
  Bytes capacity_;
};

}  // namespace kvmm
