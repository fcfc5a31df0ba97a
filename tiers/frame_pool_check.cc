// SPDX-License-Identifier: Apache-2.0
//
// What a frame pool says of itself, and whether it adds up.
#include "runtime/base/check.h"
#include "tiers/frame_pool.h"

namespace kvmm {

// ------------------------------------------------------------------------------------- figures

uint32_t FramePool::used_in_block(const Frame& frame) const {
  return fixed_ ? 1 : blocks_[frame.block].used;
}

Bytes FramePool::zeroed_bytes() const {
  Bytes sum = config_.block_size * (whole_.zeroed() + split_.zeroed());
  for (uint32_t shift = min_shift_; shift < block_shift_; ++shift) {
    sum += Bytes(small_[shift - min_shift_].zeroed() << shift);
  }
  return sum;
}

FrameClassStats FramePool::class_stats(Bytes size) const {
  const uint32_t cls = class_of(size);
  FrameClassStats s;
  s.size = size;
  s.blocks = blocks_of_[cls];
  s.used = used_of_[cls];
  s.working = working_of_[cls];
  if (fixed_) {
    return s;
  }
  if (size == config_.block_size) {
    s.free = free_blocks();
    s.zeroed = whole_.zeroed() + split_.zeroed();
    s.blocks += s.free;
  } else {
    s.free = small_[cls].size();
    s.zeroed = small_[cls].zeroed();
  }
  return s;
}

// ------------------------------------------------------------------------------------- invariants

// One block: every frame in exactly one state, counted once.
void FramePool::check_block(uint32_t b) const {
  const Block& block = blocks_[b];
  if (block.shift == 0) {
    const Frame& f = frame_at(b, 0);
    check(block.used == 0 && block.working == 0, "free block: nothing in use", block.used,
          block.working);
    check(f.free_hook.is_linked() && f.size_shift == block_shift_ && !f.working,
          "free block: in a list as one frame", b, f.size_shift);
    check(!f.zeroed || f.tenant == kTenantNobody, "zeroed block: no tenant", b, f.tenant);
    check(f.addr == area_.frame(b), "free block: its address", f.addr, area_.frame(b));
    for (uint32_t i = 1; i < per_block_; ++i) {
      check(!frame_at(b, i).free_hook.is_linked(), "free block: its pieces in no list", b, i);
    }
    return;
  }
  const Bytes size(uint64_t{1} << block.shift);
  const uint32_t n = frames_in(size);
  uint32_t used = 0;
  uint32_t working = 0;
  for (uint32_t i = 0; i < n; ++i) {
    const Frame& f = frame_at(b, i);
    check(f.size_shift == block.shift && f.block == b, "carved block: its frames", b, i);
    check(f.addr == area_.frame(b) + size * i, "carved frame: its address", f.addr, b);
    const bool free = f.free_hook.is_linked();
    check(!(free && f.working), "a frame is free or worked on", b, i);
    check(!free || !f.zeroed || f.tenant == kTenantNobody, "zeroed frame: no tenant", b, i);
    check(!free || f.page == nullptr, "free frame: no page", b, i);
    used += is_used(f) ? 1 : 0;
    working += f.working ? 1 : 0;
  }
  check(used == block.used, "block: frames in use", used, block.used);
  check(working == block.working, "block: frames worked on", working, block.working);
  check(used + working > 0, "a block with nothing in use is free", b, block.shift);
  check(n == 1 || block.split, "a carved block is split", b, n);
}

void FramePool::check_invariants() const {
  Bytes used;
  Bytes working;
  for (uint32_t shift = min_shift_; shift <= block_shift_; ++shift) {
    used += Bytes(used_of_[shift - min_shift_] << shift);
    working += Bytes(working_of_[shift - min_shift_] << shift);
  }
  check(used == used_, "pool: used bytes", used, used_);
  check(working == working_, "pool: working bytes", working, working_);
  check(used_ + working_ <= config_.capacity, "pool: within its capacity", used_, config_.capacity);
  if (fixed_) {
    uint64_t out = 0;
    for (const uint64_t n : used_of_) {
      out += n;
    }
    check(out + spare_.size() == next_spare_, "pool: lent descriptors", out, next_spare_);
    return;
  }
  Bytes free = config_.block_size * free_blocks();
  std::array<uint64_t, 10> blocks{};
  uint64_t split = 0;
  for (uint32_t shift = min_shift_; shift < block_shift_; ++shift) {
    free += Bytes(small_[shift - min_shift_].size() << shift);
  }
  for (uint32_t b = 0; b < blocks_.size(); ++b) {
    check_block(b);
    split += blocks_[b].split ? 1 : 0;
    if (blocks_[b].shift != 0) {
      ++blocks[blocks_[b].shift - min_shift_];
    }
  }
  check(used_ + working_ + free == config_.capacity, "pool: every byte in one state",
        used_ + working_ + free, config_.capacity);
  check(split == split_count_, "pool: split blocks", split, split_count_);
  check(blocks == blocks_of_, "pool: blocks by class");
}

}  // namespace kvmm
