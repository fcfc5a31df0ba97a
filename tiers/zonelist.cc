// SPDX-License-Identifier: Apache-2.0
#include "tiers/zonelist.h"

#include <algorithm>
#include <tuple>

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
  make_rows();
}

void Zonelist::make_rows() {
  rows_.push_back({NodeId(), tiers_});
  const NodeDistances& distances = table_.distances();
  std::vector<NodeId> nodes = distances.from();
  for (const Tier* t : tiers_) {
    if (std::find(nodes.begin(), nodes.end(), t->node()) == nodes.end()) {
      nodes.push_back(t->node());
    }
  }
  for (const NodeId node : nodes) {
    Row row{node, tiers_};
    std::stable_sort(row.tiers.begin(), row.tiers.end(), [&](const Tier* a, const Tier* b) {
      return std::tuple(a->rank(), distances.between(node, a->node())) <
             std::tuple(b->rank(), distances.between(node, b->node()));
    });
    if (rows_.size() <= UINT8_MAX) {
      rows_.push_back(std::move(row));
    }
  }
}

uint8_t Zonelist::row_of(NodeId node) const {
  for (size_t i = 1; i < rows_.size(); ++i) {
    if (rows_[i].node == node) {
      return static_cast<uint8_t>(i);
    }
  }
  return 0;
}

Frame* Zonelist::allocate(Bytes size, bool want_zeroed, uint32_t tenant, uint8_t row) {
  for (const bool reserve : {true, false}) {
    for (Tier* t : rows_[row].tiers) {
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

Frame* Zonelist::allocate_on(Tier& tier, Bytes size, uint32_t tenant) {
  Frame* f = tier.pool().allocate(size, false, tenant);
  return f != nullptr ? f : tier.pool().allocate(size, true, tenant);
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
