// SPDX-License-Identifier: Apache-2.0
//
// The frames of one tier: which are in use, which are free, and how clean the free ones are.
//
//   block 0   [ 2 MiB frame, in use                              ]   carved whole
//   block 1   [ 64K used | 64K free, zeroed | 64K working | ... ]    carved in 64 KiB frames
//   block 2   [ free, whole: never carved small                  ]
//   block 3   [ free, split: once carved small, all came back    ]   may be rebuilt
//
//   event                       frame becomes              its block
//   allocate                    in use                     carved if it was free
//   free                        free (zeroed or dirty)     free once every frame of it is free
//   take_to_zero, _to_rebuild   working                    stays carved
//   put_back                    free                       as `free`; a rebuilt one becomes whole
//
// Blocks are 2 MiB (a simulator may use smaller ones). A block that was carved into smaller frames
// loses its huge page, so it stays "split" after it has come back, and a frame of block size is
// taken from a whole block while there is one.
//
// Scrub rule. A free dirty frame carries the tag of the tenant whose bytes are in it. It is given
// out unzeroed to that tenant only; a frame with bytes of several tenants, or given out before it
// was scrubbed, is tagged `kTenantMixed` and fits nobody until it is zeroed.
//
// Fixed frames. Where a frame belongs to one address (MmuInfo::fixed_frames: shareable memory), the
// device says which frame it must be; the pool then only charges the budget and lends a descriptor.
//
// Invariants (`check_invariants`)
//   1. used + working + free bytes == capacity; a frame is in exactly one of the three.
//   2. A free block has no frame in use or working, and its pieces are in no free list.
//   3. A frame on a zeroed list is zeroed and has no tenant tag.
//   4. Nothing is allocated after `create`.
//
// Thread safety: guarded by the core lock. Ownership: owns descriptors and the device's frame area;
// who allocated a frame owns it until `free`. The MMU outlives the pool.
#pragma once

#include <array>
#include <boost/intrusive/list.hpp>
#include <memory>

#include "drivers/ops.h"
#include "runtime/base/lazy_array.h"
#include "runtime/base/result.h"
#include "runtime/base/units.h"
#include "vmm/frame.h"

namespace kvmm {

// Free bytes of a tier that reclaim acts on.
//
//   0 .. min      only direct reclaim and write-back may allocate
//   below low     reclaimd is woken
//   above high    reclaimd stops
struct Watermarks {
  Bytes min, low, high;

  // min 1/128, low 1/32, high 1/16 of the capacity.
  static Watermarks defaults(Bytes capacity);
  // Errors: kInvalid unless min <= low <= high <= capacity.
  Result<void> validate(Bytes capacity) const;
  bool below_min(Bytes free) const { return free < min; }
  bool below_low(Bytes free) const { return free < low; }
  bool above_high(Bytes free) const { return free >= high; }
};

// Tags of Frame::tenant that are no tenant.
inline constexpr uint32_t kTenantNobody = 0;
inline constexpr uint32_t kTenantMixed = UINT32_MAX;

inline constexpr uint32_t kFramesPerBlockMax = 512;

struct FramePoolConfig {
  TierId tier;
  NodeId node;     // frames are created on it
  Bytes capacity;  // a multiple of block_size
  Bytes block_size = kPageSizeMax;
  Bytes page_size_min = kPageSizeMin;  // smallest frame; block_size / page_size_min <= 512
  bool comes_zeroed = false;           // frames of this device are zeros when created (host)

  // Errors: kInvalid (a size that is no power of two or does not divide).
  Result<void> validate() const;
};

// One size class, in frames of that size (but `blocks`).
struct FrameClassStats {
  Bytes size;
  uint64_t blocks = 0;   // carved into this size now; for the block size: free ones as well
  uint64_t used = 0;     // given out
  uint64_t free = 0;     // free, of these
  uint64_t zeroed = 0;   //   known to be zeros
  uint64_t working = 0;  // being zeroed or rebuilt
};

struct FramePoolStats {
  uint64_t allocations = 0, frees = 0;
  uint64_t split_taken = 0;    // frames of block size taken from a split block
  uint64_t foreign_taken = 0;  // dirty frames of another tenant given out to be zeroed
  uint64_t carved = 0;         // blocks carved into smaller frames
  uint64_t coalesced = 0;      // blocks that became free again after that
  uint64_t rebuilt = 0;        // split blocks made whole
};

class FramePool {
 public:
  // BLOCKING: creates the frames. Errors: kInvalid (config), and those of MmuOps::create_frames.
  static Result<std::unique_ptr<FramePool>> create(MmuOps& mmu, const FramePoolConfig& config);
  // BLOCKING. REQUIRES: no frame is in use by an engine or I/O.
  ~FramePool();
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;

  // A frame for `tenant` (neither kTenantNobody nor kTenantMixed), or null. O(1), or O(frames of a
  // block) when a block is carved.
  //   want_zeroed   zeroed frames first; else any dirty one: `frame->zeroed` says which it is, and
  //                 the caller zeroes a dirty one and calls `scrubbed`
  //   otherwise     dirty frames of this tenant or nobody's first, then zeroed ones. Never a dirty
  //                 one of another tenant: null can mean that only those are left; then ask again
  //                 with want_zeroed
  // Partly used blocks are preferred to free ones.
  // REQUIRES: not fixed; a power of two from page_size_min to block_size.
  Frame* allocate(Bytes size, bool want_zeroed, uint32_t tenant);
  // Charges `size` and lends a descriptor for the device's frame at `addr`; null: over capacity.
  // REQUIRES: fixed; the frame at `addr` has no descriptor now.
  Frame* allocate_fixed(FrameAddr addr, Bytes size, uint32_t tenant);
  // Every byte of a frame in use has been overwritten, by zeros or by a page of `tenant` that was
  // read into it: nothing of another tenant is left.
  void scrubbed(Frame& frame, uint32_t tenant);
  // `zeroed`: it is known to be all zeros (for example taken and never used).
  // REQUIRES: in use, frame.page == null.
  void free(Frame& frame, bool zeroed);

  // A free dirty frame to be zeroed ahead, marked working, or null if there is none. For sizes
  // below block_size only frames of partly used blocks; free blocks are zeroed as a whole.
  Frame* take_to_zero(Bytes size);
  // A free split block as a frame of block_size to be made whole, marked working; null: none.
  Frame* take_to_rebuild();
  // Ends both. `zeroed`: the work was done; for a block to rebuild it is then whole and zeroed.
  void put_back(Frame& frame, bool zeroed);

  // The device broke up a frame's huge page (a move that failed): its block counts as split.
  void mark_split(Frame& frame);

  // Frames of the block that `frame` is in. A fixed frame is alone.
  uint32_t used_in_block(const Frame& frame) const;
  // Calls fn(Frame&) for every frame of that block: in use, free and working. `fn` must not
  // allocate or free.
  template <class Fn>
  void for_each_frame_in_block(Frame& frame, Fn&& fn) {
    if (fixed_) {
      fn(frame);
      return;
    }
    const uint32_t n = frames_in(frame.size());
    for (uint32_t i = 0; i < n; ++i) {
      fn(frame_at(frame.block, i));
    }
  }
  bool is_used(const Frame& frame) const;

  const FramePoolConfig& config() const { return config_; }
  // Where the frames are. Fixed pools: nothing.
  const FrameArea& area() const { return area_; }
  bool fixed() const { return fixed_; }  // frames come from allocate_fixed
  Bytes capacity() const { return config_.capacity; }
  Bytes used_bytes() const { return used_; }
  Bytes working_bytes() const { return working_; }
  // What can be had once workers have put back what they hold: capacity - used.
  Bytes free_bytes() const { return config_.capacity - used_; }
  Bytes zeroed_bytes() const;
  Bytes free_bytes(Bytes size) const { return size * class_stats(size).free; }
  FrameClassStats class_stats(Bytes size) const;
  uint64_t free_blocks() const { return whole_.size() + split_.size(); }
  uint64_t split_blocks() const { return split_count_; }  // in use or free
  const FramePoolStats& stats() const { return stats_; }
  // Stops the process if an invariant is broken. O(frames).
  void check_invariants() const;

 private:
  using FrameList = boost::intrusive::list<
      Frame, boost::intrusive::member_hook<Frame, boost::intrusive::list_member_hook<>,
                                           &Frame::free_hook>>;

  // Free frames of one size. Dirty ones lie in lists by tenant, so that a tenant's own frames are
  // found in a few steps however many others there are.
  class FreeSet {
   public:
    static constexpr uint32_t kBuckets = 16;
    static constexpr uint32_t kProbes = 8;  // two tenants in one bucket: how far to look

    void insert(Frame& f) { list_of(f).push_front(f); }
    void remove(Frame& f) {
      FrameList& list = list_of(f);
      list.erase(list.iterator_to(f));
    }
    Frame* pop_zeroed() { return pop(zeroed_); }
    Frame* pop_dirty_any();                 // frames that fit nobody first
    Frame* pop_dirty_own(uint32_t tenant);  // this tenant's, then nobody's
    uint64_t size() const;
    uint64_t zeroed() const { return zeroed_.size(); }
    void clear();

   private:
    static Frame* pop(FrameList& list);
    FrameList& list_of(const Frame& f);
    FrameList zeroed_, nobodys_, mixed_;
    std::array<FrameList, kBuckets> owned_;
  };

  struct Block {
    uint16_t used;     // frames given out
    uint16_t working;  // frames with a worker
    uint8_t shift;     // log2 of the frame size it is carved into; 0: free
    bool split;        // carved small since it was created or rebuilt
    bool rebuilding;
  };

  FramePool(MmuOps& mmu, const FramePoolConfig& config);

  uint32_t frames_in(Bytes size) const { return static_cast<uint32_t>(config_.block_size / size); }
  Frame& frame_at(uint32_t block, uint32_t i) { return frames_[size_t{block} * per_block_ + i]; }
  const Frame& frame_at(uint32_t block, uint32_t i) const {
    return frames_[size_t{block} * per_block_ + i];
  }
  uint32_t class_of(Bytes size) const;  // 0: page_size_min
  bool is_small(const Frame& f) const { return f.size() != config_.block_size; }
  FreeSet& set_of(const Frame& f);
  Frame* allocate_block(bool want_zeroed, uint32_t tenant);
  Frame* allocate_small(uint32_t cls, bool want_zeroed, uint32_t tenant);
  Frame* carve(Frame* block, uint32_t cls);
  void insert_free(Frame& f);
  void coalesce(uint32_t block);
  void set_split(Block& b, bool split);
  void begin_work(Frame& f);
  void check_block(uint32_t b) const;

  // Constant after create.
  MmuOps& mmu_;
  FramePoolConfig config_;
  FrameArea area_;
  bool fixed_ = false;
  uint32_t per_block_ = 0;  // descriptors a block: block_size / page_size_min
  uint32_t min_shift_ = 0, block_shift_ = 0;

  // Guarded by the core lock.
  LazyArray<Frame> frames_;  // [block * per_block_ + i]; fixed: any free one
  LazyArray<Block> blocks_;
  std::array<FreeSet, 10> small_;  // by class, below block size
  FreeSet whole_, split_;          // free blocks, as frames of block size
  FrameList spare_;                // fixed: descriptors that came back
  size_t next_spare_ = 0;          // fixed: descriptors never used
  std::array<uint64_t, 10> used_of_{}, working_of_{}, blocks_of_{};
  Bytes used_, working_;
  uint64_t split_count_ = 0;
  FramePoolStats stats_;
};

}  // namespace kvmm
