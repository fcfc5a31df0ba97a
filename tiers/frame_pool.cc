// SPDX-License-Identifier: Apache-2.0
#include "tiers/frame_pool.h"

#include <bit>
#include <string>
#include <utility>

#include "runtime/base/check.h"

namespace kvmm {

// ------------------------------------------------------------------------------------- watermarks

Watermarks Watermarks::defaults(Bytes capacity) {
  const uint64_t c = capacity.value();
  return Watermarks{Bytes(c / 128), Bytes(c / 32), Bytes(c / 16)};
}

Result<void> Watermarks::validate(Bytes capacity) const {
  if (min > low || low > high || high > capacity) {
    return Error(Errc::kInvalid, "watermarks must be min <= low <= high <= capacity");
  }
  return {};
}

Result<void> FramePoolConfig::validate() const {
  const uint64_t block = block_size.value();
  const uint64_t page = page_size_min.value();
  if (!std::has_single_bit(block) || !std::has_single_bit(page) || page > block ||
      block / page > kFramesPerBlockMax) {
    return Error(Errc::kInvalid,
                 "block and smallest page must be powers of two, at most 512 pages a block");
  }
  if (capacity.value() == 0 || capacity.value() % block != 0 ||
      capacity.value() / block >= UINT32_MAX) {
    return Error(Errc::kInvalid, "a pool's capacity must be a positive number of whole blocks of " +
                                     std::to_string(block) + " bytes");
  }
  return {};
}

// ------------------------------------------------------------------------------------- free sets

Frame* FramePool::FreeSet::pop(FrameList& list) {
  if (list.empty()) {
    return nullptr;
  }
  Frame* f = &list.front();
  list.pop_front();
  return f;
}

FramePool::FrameList& FramePool::FreeSet::list_of(const Frame& f) {
  if (f.zeroed) {
    return zeroed_;
  }
  if (f.tenant == kTenantNobody) {
    return nobodys_;
  }
  return f.tenant == kTenantMixed ? mixed_ : owned_[f.tenant % kBuckets];
}

Frame* FramePool::FreeSet::pop_dirty_any() {
  if (Frame* f = pop(mixed_)) {
    return f;
  }
  if (Frame* f = pop(nobodys_)) {
    return f;
  }
  for (FrameList& list : owned_) {
    if (Frame* f = pop(list)) {
      return f;
    }
  }
  return nullptr;
}

Frame* FramePool::FreeSet::pop_dirty_own(uint32_t tenant) {
  FrameList& own = owned_[tenant % kBuckets];
  uint32_t probes = 0;
  for (auto it = own.begin(); it != own.end() && probes < kProbes; ++it, ++probes) {
    if (it->tenant == tenant) {
      Frame* f = &*it;
      own.erase(it);
      return f;
    }
  }
  return pop(nobodys_);
}

uint64_t FramePool::FreeSet::size() const {
  uint64_t n = zeroed_.size() + nobodys_.size() + mixed_.size();
  for (const FrameList& list : owned_) {
    n += list.size();
  }
  return n;
}

void FramePool::FreeSet::clear() {
  zeroed_.clear();
  nobodys_.clear();
  mixed_.clear();
  for (FrameList& list : owned_) {
    list.clear();
  }
}

// ------------------------------------------------------------------------------------- life

FramePool::FramePool(MmuOps& mmu, const FramePoolConfig& config)
    : mmu_(mmu),
      config_(config),
      fixed_(mmu.info().fixed_frames),
      per_block_(static_cast<uint32_t>(config.block_size / config.page_size_min)),
      min_shift_(static_cast<uint32_t>(std::countr_zero(config.page_size_min.value()))),
      block_shift_(static_cast<uint32_t>(std::countr_zero(config.block_size.value()))) {}

Result<std::unique_ptr<FramePool>> FramePool::create(MmuOps& mmu, const FramePoolConfig& config) {
  if (Result<void> valid = config.validate(); !valid) {
    return valid.error();
  }
  std::unique_ptr<FramePool> pool(new FramePool(mmu, config));
  const auto blocks = static_cast<uint32_t>(config.capacity / config.block_size);
  auto frames = LazyArray<Frame>::create(size_t{blocks} * pool->per_block_);
  if (!frames) {
    return frames.error();
  }
  pool->frames_ = std::move(*frames);
  if (pool->fixed_) {
    return pool;
  }
  auto table = LazyArray<Block>::create(blocks);
  if (!table) {
    return table.error();
  }
  pool->blocks_ = std::move(*table);
  Result<FrameArea> area = mmu.create_frames(config.block_size, blocks, config.node);
  if (!area) {
    return area.error();
  }
  pool->area_ = *area;
  // Backwards, because lists are last in, first out: the lowest address is given out first.
  for (uint32_t b = blocks; b-- > 0;) {
    Frame& f = pool->frame_at(b, 0);
    f.addr = pool->area_.frame(b);
    f.block = b;
    f.tier = config.tier;
    f.size_shift = static_cast<uint8_t>(pool->block_shift_);
    f.zeroed = config.comes_zeroed;
    pool->whole_.insert(f);
  }
  return pool;
}

FramePool::~FramePool() {
  for (FreeSet& set : small_) {
    set.clear();
  }
  whole_.clear();
  split_.clear();
  spare_.clear();
  if (area_.count != 0) {
    mmu_.destroy_frames(area_);
  }
}

// ------------------------------------------------------------------------------------- helpers

uint32_t FramePool::class_of(Bytes size) const {
  check(std::has_single_bit(size.value()), "a frame's size is a power of two", size, 0U);
  check(size >= config_.page_size_min && size <= config_.block_size, "a frame size of this pool",
        size, config_.block_size);
  return static_cast<uint32_t>(std::countr_zero(size.value())) - min_shift_;
}

FramePool::FreeSet& FramePool::set_of(const Frame& f) {
  if (f.size_shift != block_shift_) {
    return small_[f.size_shift - min_shift_];
  }
  return blocks_[f.block].split ? split_ : whole_;
}

bool FramePool::is_used(const Frame& frame) const {
  if (frame.free_hook.is_linked() || frame.working) {
    return false;
  }
  // A descriptor that is no frame at present: its block is free or carved differently.
  return fixed_ ? frame.size_shift != 0 : blocks_[frame.block].shift == frame.size_shift;
}

void FramePool::set_split(Block& b, bool split) {
  if (b.split != split) {
    b.split = split;
    split_count_ = split ? split_count_ + 1 : split_count_ - 1;
  }
}

// ------------------------------------------------------------------------------------- allocate

Frame* FramePool::allocate(Bytes size, bool want_zeroed, uint32_t tenant) {
  check(!fixed_, "allocate on a pool of frames without an address of their own");
  check(tenant != kTenantNobody && tenant != kTenantMixed, "a frame is for a tenant", tenant, 0U);
  const uint32_t cls = class_of(size);
  const bool block = size == config_.block_size;
  Frame* f = block ? allocate_block(want_zeroed, tenant) : allocate_small(cls, want_zeroed, tenant);
  if (f == nullptr) {
    return nullptr;
  }
  Block& b = blocks_[f->block];
  ++b.used;
  if (block) {
    b.shift = static_cast<uint8_t>(block_shift_);
    ++blocks_of_[cls];
    stats_.split_taken += b.split ? 1 : 0;
  }
  ++used_of_[cls];
  used_ += size;
  ++stats_.allocations;
  if (!f->zeroed && f->tenant != tenant && f->tenant != kTenantNobody) {
    check(want_zeroed, "a dirty frame of another tenant", f->tenant, tenant);
    // Nobody's until `scrubbed`: if the caller gives it back before that, it still fits no one.
    f->tenant = kTenantMixed;
    ++stats_.foreign_taken;
  } else {
    f->tenant = tenant;
  }
  return f;
}

Frame* FramePool::allocate_block(bool want_zeroed, uint32_t tenant) {
  // A split block costs a huge page for good, zeroing costs microseconds: whole ones come first.
  for (FreeSet* set : {&whole_, &split_}) {
    Frame* f = want_zeroed ? set->pop_zeroed() : set->pop_dirty_own(tenant);
    if (f == nullptr) {
      f = want_zeroed ? set->pop_dirty_any() : set->pop_zeroed();
    }
    if (f != nullptr) {
      return f;
    }
  }
  return nullptr;
}

Frame* FramePool::allocate_small(uint32_t cls, bool want_zeroed, uint32_t tenant) {
  FreeSet& own = small_[cls];
  Frame* block = nullptr;
  if (want_zeroed) {
    // Somebody waits for a page of zeros: a clean frame is worth a fresh block.
    if (Frame* f = own.pop_zeroed()) {
      return f;
    }
    if ((block = split_.pop_zeroed()) == nullptr && (block = whole_.pop_zeroed()) == nullptr) {
      if (Frame* f = own.pop_dirty_any()) {
        return f;
      }
      if ((block = split_.pop_dirty_any()) == nullptr) {
        block = whole_.pop_dirty_any();
      }
    }
  } else {
    // Any clean or own frame will do: whole blocks are broken up last.
    if (Frame* f = own.pop_dirty_own(tenant)) {
      return f;
    }
    if ((block = split_.pop_dirty_own(tenant)) == nullptr) {
      if (Frame* f = own.pop_zeroed()) {
        return f;
      }
      if ((block = split_.pop_zeroed()) == nullptr &&
          (block = whole_.pop_dirty_own(tenant)) == nullptr) {
        block = whole_.pop_zeroed();
      }
    }
  }
  return block == nullptr ? nullptr : carve(block, cls);
}

Frame* FramePool::carve(Frame* block, uint32_t cls) {
  const uint32_t number = block->block;
  Block& b = blocks_[number];
  const bool kept = b.split || mmu_.carve(block->addr);
  const bool zeroed = block->zeroed && kept;
  const uint32_t tenant = block->tenant;
  const auto shift = static_cast<uint8_t>(min_shift_ + cls);
  const Bytes size(uint64_t{1} << shift);
  b.shift = shift;
  set_split(b, true);
  ++blocks_of_[cls];
  ++stats_.carved;
  for (uint32_t i = frames_in(size); i-- > 0;) {
    Frame& f = frame_at(number, i);
    f.page = nullptr;
    f.addr = area_.frame(number) + size * i;
    f.block = number;
    f.tenant = tenant;
    f.tier = config_.tier;
    f.size_shift = shift;
    f.zeroed = zeroed;
    f.working = false;
    if (i != 0) {
      small_[cls].insert(f);
    }
  }
  return &frame_at(number, 0);
}

Frame* FramePool::allocate_fixed(FrameAddr addr, Bytes size, uint32_t tenant) {
  check(fixed_, "allocate_fixed on a pool that has frames of its own");
  const uint32_t cls = class_of(size);
  if (used_ + size > config_.capacity) {
    return nullptr;
  }
  Frame* f = nullptr;
  if (!spare_.empty()) {
    f = &spare_.front();
    spare_.pop_front();
  } else {
    // Enough for the capacity in smallest frames, so the budget above is the only limit.
    f = &frames_[next_spare_++];
  }
  f->page = nullptr;
  f->addr = addr;
  f->block = UINT32_MAX;
  f->tenant = tenant;
  f->tier = config_.tier;
  f->size_shift = static_cast<uint8_t>(min_shift_ + cls);
  f->zeroed = config_.comes_zeroed;
  f->working = false;
  ++used_of_[cls];
  used_ += size;
  ++stats_.allocations;
  return f;
}

void FramePool::scrubbed(Frame& frame, uint32_t tenant) {
  check(is_used(frame), "scrubbed: the frame is in use", frame.addr, frame.block);
  check(tenant != kTenantNobody && tenant != kTenantMixed, "a frame is for a tenant", tenant, 0U);
  frame.tenant = tenant;
}

// ------------------------------------------------------------------------------------- free

void FramePool::free(Frame& frame, bool zeroed) {
  check(is_used(frame), "free: the frame is in use", frame.addr, frame.block);
  check(frame.page == nullptr, "free: no page has the frame", frame.addr, frame.block);
  const uint32_t cls = class_of(frame.size());
  check(used_of_[cls] > 0 && used_ >= frame.size(), "free: more than was given out", used_,
        frame.size());
  --used_of_[cls];
  used_ -= frame.size();
  ++stats_.frees;
  if (fixed_) {
    frame.size_shift = 0;
    spare_.push_front(frame);
    return;
  }
  frame.zeroed = zeroed;
  --blocks_[frame.block].used;
  insert_free(frame);
}

// Into its free list; its block becomes free if it was the last one out.
void FramePool::insert_free(Frame& f) {
  if (f.zeroed) {
    f.tenant = kTenantNobody;
  }
  Block& b = blocks_[f.block];
  if (!is_small(f)) {
    b.shift = 0;
    --blocks_of_[block_shift_ - min_shift_];
    set_of(f).insert(f);
    return;
  }
  set_of(f).insert(f);
  if (b.used == 0 && b.working == 0) {
    coalesce(f.block);
  }
}

void FramePool::coalesce(uint32_t block) {
  Block& b = blocks_[block];
  Frame& first = frame_at(block, 0);
  FreeSet& set = set_of(first);
  bool zeroed = true;
  uint32_t tenant = kTenantNobody;
  for (uint32_t i = 0, n = frames_in(first.size()); i < n; ++i) {
    Frame& f = frame_at(block, i);
    set.remove(f);
    zeroed = zeroed && f.zeroed;
    if (!f.zeroed && f.tenant != kTenantNobody) {
      // Nobody's bytes beside a tenant's are that tenant's; two tenants' are nobody's to have.
      tenant = tenant == kTenantNobody || tenant == f.tenant ? f.tenant : kTenantMixed;
    }
  }
  --blocks_of_[b.shift - min_shift_];
  b.shift = 0;
  first.size_shift = static_cast<uint8_t>(block_shift_);
  first.zeroed = zeroed;
  first.tenant = tenant;
  split_.insert(first);
  ++stats_.coalesced;
}

// ------------------------------------------------------------------------------------- workers

void FramePool::begin_work(Frame& f) {
  Block& b = blocks_[f.block];
  const uint32_t cls = class_of(f.size());
  f.working = true;
  ++b.working;
  if (!is_small(f)) {
    b.shift = static_cast<uint8_t>(block_shift_);
    ++blocks_of_[cls];
  }
  ++working_of_[cls];
  working_ += f.size();
}

Frame* FramePool::take_to_zero(Bytes size) {
  const uint32_t cls = class_of(size);
  Frame* f = nullptr;
  if (size == config_.block_size) {
    if ((f = whole_.pop_dirty_any()) == nullptr) {
      f = split_.pop_dirty_any();
    }
  } else {
    f = small_[cls].pop_dirty_any();
  }
  if (f != nullptr) {
    begin_work(*f);
  }
  return f;
}

Frame* FramePool::take_to_rebuild() {
  Frame* f = split_.pop_dirty_any();
  if (f == nullptr && (f = split_.pop_zeroed()) == nullptr) {
    return nullptr;
  }
  blocks_[f->block].rebuilding = true;
  begin_work(*f);
  return f;
}

void FramePool::put_back(Frame& frame, bool zeroed) {
  check(frame.working, "put_back: the frame was taken to be worked on", frame.addr, frame.block);
  Block& b = blocks_[frame.block];
  const uint32_t cls = class_of(frame.size());
  frame.working = false;
  --b.working;
  --working_of_[cls];
  working_ -= frame.size();
  if (b.rebuilding) {
    b.rebuilding = false;
    if (zeroed) {
      set_split(b, false);
      ++stats_.rebuilt;
    }
  }
  // A worker that failed may have stopped anywhere: zeros so far are no promise, the tag stays.
  frame.zeroed = zeroed;
  insert_free(frame);
}

void FramePool::mark_split(Frame& frame) {
  check(!fixed_, "a fixed frame has no block");
  check(is_used(frame), "mark_split: the frame is in use", frame.addr, frame.block);
  set_split(blocks_[frame.block], true);
}

}  // namespace kvmm
