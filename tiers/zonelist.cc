// SPDX-License-Identifier: Apache-2.0
#include "tiers/zonelist.h"

#include "runtime/base/check.h"

namespace kvmm {

Zonelist::Zonelist(TierTable& table) : table_(table) {
  for (const auto& t : table.tiers()) {
    const FramePoolConfig& config = t->pool().config();
    check(tiers_.empty() || (&t->mmu() == &mmu() && config.block_size == block_size() &&
                             config.page_size_min == page_size_min()),
          "tiers of one list have one MMU and the same frames");
    if (tiers_.empty() || !t->pool().fixed()) {
      tiers_.push_back(t.get());
      capacity_ += t->pool().capacity();
    }
  }
}

Frame* Zonelist::allocate(Bytes size, bool want_zeroed, uint32_t tenant) {
  for (const bool reserve : {true, false}) {
    for (Tier* t : tiers_) {
      if (reserve && t->pool().free_bytes() < size + t->watermarks().low) {
        continue;
      }
      if (Frame* f = t->pool().allocate(size, want_zeroed, tenant); f != nullptr) {
        return f;
      }
    }
  }
  return nullptr;
}

Frame* Zonelist::allocate_fixed(FrameAddr addr, Bytes size, uint32_t tenant) {
  return tiers_.front()->pool().allocate_fixed(addr, size, tenant);
}

Frame* Zonelist::take_to_zero(Bytes size) {
  for (Tier* t : tiers_) {
    if (Frame* f = t->pool().take_to_zero(size); f != nullptr) {
      return f;
    }
  }
  return nullptr;
}

Frame* Zonelist::take_to_rebuild() {
  for (Tier* t : tiers_) {
    if (Frame* f = t->pool().take_to_rebuild(); f != nullptr) {
      return f;
    }
  }
  return nullptr;
}

void Zonelist::check_invariants() const {
  for (const Tier* t : tiers_) {
    t->pool().check_invariants();
  }
}

Bytes Zonelist::used_bytes() const {
  Bytes sum;
  for (const Tier* t : tiers_) {
    sum += t->pool().used_bytes();
  }
  return sum;
}

Bytes Zonelist::zeroed_bytes() const {
  Bytes sum;
  for (const Tier* t : tiers_) {
    sum += t->pool().zeroed_bytes();
  }
  return sum;
}

uint64_t Zonelist::free_blocks() const {
  uint64_t sum = 0;
  for (const Tier* t : tiers_) {
    sum += t->pool().free_blocks();
  }
  return sum;
}

FrameClassStats Zonelist::class_stats(Bytes size) const {
  FrameClassStats sum;
  sum.size = size;
  for (const Tier* t : tiers_) {
    const FrameClassStats s = t->pool().class_stats(size);
    sum.blocks += s.blocks;
    sum.used += s.used;
    sum.free += s.free;
    sum.zeroed += s.zeroed;
    sum.working += s.working;
  }
  return sum;
}

Watermarks Zonelist::watermarks() const {
  Watermarks sum{};
  for (const Tier* t : tiers_) {
    sum.min += t->watermarks().min;
    sum.low += t->watermarks().low;
    sum.high += t->watermarks().high;
  }
  return sum;
}

}  // namespace kvmm
