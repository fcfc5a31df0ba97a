// SPDX-License-Identifier: Apache-2.0
#include "tiers/swap_area.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "runtime/base/check.h"

namespace kvmm {

// ------------------------------------------------------------------------------------- lists

void SwapArea::push_front(List& list, uint32_t e) {
  Extent& x = extents_[e];
  x.prev = 0;
  x.next = list.head;
  if (list.head != 0) {
    extents_[list.head - 1].prev = e + 1;
  } else {
    list.tail = e + 1;
  }
  list.head = e + 1;
}

void SwapArea::unlink(List& list, uint32_t e) {
  Extent& x = extents_[e];
  (x.prev != 0 ? extents_[x.prev - 1].next : list.head) = x.next;
  (x.next != 0 ? extents_[x.next - 1].prev : list.tail) = x.prev;
  x.next = x.prev = 0;
}

// ------------------------------------------------------------------------------------- slots

uint32_t SwapArea::class_of(Bytes size) const {
  const SwapGeometry& g = superblock_.geometry;
  if (!std::has_single_bit(size.value()) || size < g.unit || size > g.extent) {
    return kClasses;
  }
  return static_cast<uint32_t>(std::countr_zero(size / g.unit));
}

Result<SlotId> SwapArea::allocate(Bytes size) {
  const uint32_t cls = class_of(size);
  if (cls == kClasses) {
    return Errc::kInvalid;
  }
  if (health_.verdict() == SwapHealth::Verdict::kFailing ||
      health_.verdict() == SwapHealth::Verdict::kGone) {
    return Errc::kIo;
  }
  if (!accepting_ || device_full_) {
    ++stats_.full;
    return Errc::kNoSpace;
  }
  if (partial_[cls].head == 0) {
    // Extents with old content first: their place on the disk is there already.
    uint32_t e = 0;
    if (free_old_.head != 0) {
      unlink(free_old_, e = free_old_.head - 1);
    } else if (next_fresh_ < grown_) {
      e = next_fresh_++;
    } else if (free_.head != 0) {
      unlink(free_, e = free_.head - 1);
      --given_back_;
    } else if (grown_ < extents_.size() && !grow_refused_) {
      starving_ = true;
      return Errc::kAgain;
    } else if (discards_in_flight_ != 0) {
      return Errc::kAgain;
    } else {
      starving_ = starving_ || grown_ < extents_.size();
      ++stats_.full;
      return Errc::kNoSpace;
    }
    Extent& x = extents_[e];
    x.cls = static_cast<uint8_t>(cls);
    x.state = Extent::kPartial;
    x.old = false;
    ++extents_of_[cls];
    push_front(partial_[cls], e);
  }
  const uint32_t e = partial_[cls].head - 1;
  Extent& x = extents_[e];
  uint32_t word = 0;
  while (x.taken[word] == UINT64_MAX) {
    ++word;
  }
  // The lowest free slot: pages written one after another lie one behind another.
  const uint32_t slot = word * 64 + static_cast<uint32_t>(std::countr_one(x.taken[word]));
  check(slot < slots_of(cls), "a partly used extent has a free slot", slot, slots_of(cls));
  x.taken[word] |= uint64_t{1} << (slot % 64);
  if (++x.used == slots_of(cls)) {
    unlink(partial_[cls], e);
    x.state = Extent::kFull;
  }
  ++used_of_[cls];
  used_ += size;
  ++stats_.allocations;
  return SlotId::make(id_, uint64_t{e} * units_per_extent_ + (uint64_t{slot} << cls));
}

bool SwapArea::is_used(SlotId slot) const {
  if (slot.area() != id_ || slot.unit() >= superblock_.geometry.units) {
    return false;
  }
  const Extent& x = extents_[slot.unit() / units_per_extent_];
  if (x.state != Extent::kPartial && x.state != Extent::kFull) {
    return false;
  }
  const auto unit = static_cast<uint32_t>(slot.unit() % units_per_extent_);
  const uint32_t i = unit >> x.cls;
  return (i << x.cls) == unit && (((x.taken[i / 64] & ~x.retired[i / 64]) >> (i % 64)) & 1) != 0;
}

uint32_t SwapArea::extent_of(SlotId slot) const {
  check(is_used(slot), "a used slot of this area", slot, id_);
  return static_cast<uint32_t>(slot.unit() / units_per_extent_);
}

Bytes SwapArea::size_of(SlotId slot) const {
  return superblock_.geometry.unit * (uint64_t{1} << extents_[extent_of(slot)].cls);
}

Bytes SwapArea::offset_of(SlotId slot) const {
  check(is_used(slot), "a used slot of this area", slot, id_);
  const SwapGeometry& g = superblock_.geometry;
  return Bytes(g.data_offset) + g.unit * slot.unit();
}

// What free and retire share: the slot holds nothing any more. Returns its extent.
uint32_t SwapArea::forget(SlotId slot) {
  const uint32_t e = extent_of(slot);
  SlotHeader& h = headers_[slot.unit()];
  if (!h.empty()) {
    h = SlotHeader{};
    mark_dirty(slot.unit());
    device_full_ = false;
  }
  const uint32_t cls = extents_[e].cls;
  --used_of_[cls];
  used_ -= superblock_.geometry.unit * (uint64_t{1} << cls);
  ++stats_.frees;
  return e;
}

void SwapArea::free(SlotId slot) {
  const uint32_t e = forget(slot);
  Extent& x = extents_[e];
  const uint32_t cls = x.cls;
  const auto i = static_cast<uint32_t>(slot.unit() % units_per_extent_) >> cls;
  x.taken[i / 64] &= ~(uint64_t{1} << (i % 64));
  if (x.state == Extent::kFull) {
    x.state = Extent::kPartial;
    push_front(partial_[cls], e);
  }
  if (--x.used == 0) {
    unlink(partial_[cls], e);
    --extents_of_[cls];
    x.state = Extent::kFree;
    x.old = true;
    push_front(free_old_, e);
  }
}

void SwapArea::retire(SlotId slot) {
  Extent& x = extents_[forget(slot)];
  const auto i = static_cast<uint32_t>(slot.unit() % units_per_extent_) >> x.cls;
  x.retired[i / 64] |= uint64_t{1} << (i % 64);
  ++retired_of_[x.cls];
  retired_ += superblock_.geometry.unit * (uint64_t{1} << x.cls);
}

SlotId SwapArea::next_used_slot(SlotId after) const {
  uint64_t e = 0;
  uint32_t unit = 0;  // look from here on in extent e
  if (!after.none()) {
    e = after.unit() / units_per_extent_;
    unit = static_cast<uint32_t>(after.unit() % units_per_extent_) + 1;
  }
  for (; e < next_fresh_; ++e, unit = 0) {
    const Extent& x = extents_[e];
    if (x.state != Extent::kPartial && x.state != Extent::kFull) {
      continue;
    }
    const uint32_t slots = slots_of(x.cls);
    uint32_t i = (unit + (1U << x.cls) - 1) >> x.cls;
    while (i < slots) {
      const uint64_t word = (x.taken[i / 64] & ~x.retired[i / 64]) >> (i % 64);
      if (word != 0) {
        i += static_cast<uint32_t>(std::countr_zero(word));
        return SlotId::make(id_, e * units_per_extent_ + (uint64_t{i} << x.cls));
      }
      i = (i / 64 + 1) * 64;
    }
  }
  return SlotId();
}

// ------------------------------------------------------------------------------------- headers

void SwapArea::record(SlotId slot, const PageIdentity& identity, uint64_t checksum, Bytes stored) {
  const Bytes size = size_of(slot);
  check(stored.value() != 0 && stored <= size, "stored bytes fit their slot", stored, size);
  SlotHeader& h = headers_[slot.unit()];
  h = SlotHeader{};
  h.magic = SlotHeader::kMagic;
  h.format = kSwapFormatVersion;
  h.checksum_kind = ChecksumKind::kXxh3Pieces;
  h.page_shift = static_cast<uint8_t>(std::countr_zero(size.value()));
  h.stored_bytes = static_cast<uint32_t>(stored.value());
  h.identity = identity;
  h.checksum = checksum;
  h.check = header_check(h, seed_, slot.unit());
  mark_dirty(slot.unit());
}

const SlotHeader& SwapArea::header(SlotId slot) const {
  check(is_used(slot), "a used slot of this area", slot, id_);
  return headers_[slot.unit()];
}

Result<void> SwapArea::verify(SlotId slot, const PageIdentity& identity, uint64_t checksum) {
  const SlotHeader& h = header(slot);
  const Errc damage = check_header(h, seed_, slot.unit()).code();
  if (damage == Errc::kNotFound) {
    ++stats_.stale;
    return Errc::kStale;
  }
  if (damage != Errc::kOk) {
    ++stats_.corrupt;
    return Errc::kCorrupt;
  }
  if (h.identity.model != identity.model || h.identity.layout != identity.layout) {
    ++stats_.wrong_model;
    return Errc::kModelMismatch;
  }
  if (h.identity != identity) {
    ++stats_.stale;
    return Errc::kStale;
  }
  if (h.checksum != checksum) {
    ++stats_.corrupt;
    return Errc::kCorrupt;
  }
  return {};
}

// ------------------------------------------------------------------------------------- index

void SwapArea::queue_sector(uint32_t s) {
  Sector& sector = sectors_[s];
  sector.flags = Sector::kQueued;
  sector.next = 0;
  (dirty_tail_ != 0 ? sectors_[dirty_tail_ - 1].next : dirty_head_) = s + 1;
  dirty_tail_ = s + 1;
}

void SwapArea::mark_dirty(uint64_t unit) {
  const auto s = static_cast<uint32_t>(unit / kHeadersPerSector);
  Sector& sector = sectors_[s];
  if ((sector.flags & Sector::kWriting) != 0) {
    // Two writes of one sector could finish in any order: the second waits for the first.
    sector.flags = Sector::kWriting | Sector::kAgain;
  } else if (sector.flags == 0) {
    queue_sector(s);
  }
}

size_t SwapArea::take_dirty_index(std::span<IndexWrite> out) {
  size_t n = 0;
  while (n < out.size() && dirty_head_ != 0 && !free_buffers_.empty()) {
    const uint32_t s = dirty_head_ - 1;
    Sector& sector = sectors_[s];
    dirty_head_ = sector.next;
    if (dirty_head_ == 0) {
      dirty_tail_ = 0;
    }
    sector.next = 0;
    sector.flags = Sector::kWriting;
    const uint32_t b = free_buffers_.back();
    free_buffers_.pop_back();
    std::byte* data = buffers_.data() + size_t{b} * kIndexSectorSize.value();
    std::memcpy(data, &headers_[size_t{s} * kHeadersPerSector], kIndexSectorSize.value());
    const uint64_t at = superblock_.geometry.index_offset + uint64_t{s} * kIndexSectorSize.value();
    out[n++] = IndexWrite{data, at, kIndexSectorSize, s, b};
    ++index_in_flight_;
  }
  return n;
}

void SwapArea::index_written(const IndexWrite& write, bool ok) {
  Sector& sector = sectors_[write.sector];
  check((sector.flags & Sector::kWriting) != 0, "index_written: the sector was taken", write.sector,
        sector.flags);
  check(write.buffer < config_.index_buffers && index_in_flight_ > 0, "index_written: its buffer",
        write.buffer, index_in_flight_);
  const bool again = (sector.flags & Sector::kAgain) != 0 || !ok;
  sector.flags = 0;
  free_buffers_.push_back(write.buffer);
  --index_in_flight_;
  if (again) {
    queue_sector(write.sector);
  }
}

// ------------------------------------------------------------------------------------- discards

size_t SwapArea::take_discards(std::span<Discard> out) {
  constexpr uint32_t kRunMax = 64;  // 128 MiB: a longer request would hold up what comes behind it
  size_t n = 0;
  const SwapGeometry& g = superblock_.geometry;
  const auto waits = [&](uint32_t e) {
    return e < next_fresh_ && extents_[e].state == Extent::kFree && extents_[e].old;
  };
  while (n < out.size() && has_discards()) {
    uint32_t first = free_old_.tail - 1;
    uint32_t end = first + 1;
    while (end - first < kRunMax && waits(end)) {
      ++end;
    }
    while (end - first < kRunMax && first != 0 && waits(first - 1)) {
      --first;
    }
    for (uint32_t e = first; e < end; ++e) {
      unlink(free_old_, e);
      extents_[e].state = Extent::kDiscarding;
      ++discards_in_flight_;
    }
    const uint32_t count = end - first;
    out[n++] = Discard{g.data_offset + g.extent.value() * first, g.extent * count, first, count};
  }
  return n;
}

void SwapArea::discarded(const Discard& discard, Errc result) {
  check(discard.count != 0, "discarded: it was taken", discard.extent, discard.count);
  for (uint32_t e = discard.extent; e < discard.extent + discard.count; ++e) {
    Extent& x = extents_[e];
    check(x.state == Extent::kDiscarding, "discarded: the extent was taken", e, x.state);
    x.state = Extent::kFree;
    x.old = false;
    --discards_in_flight_;
    ++given_back_;
    push_front(free_, e);
  }
  if (result == Errc::kOk) {
    stats_.discarded_bytes += discard.length.value();
  } else if (result == Errc::kNotSupported) {
    info_.discards = false;
  }
}

// ------------------------------------------------------------------------------------- growth

bool SwapArea::take_growth(Tick now, Growth* out) {
  constexpr uint32_t kStepMin = 4;  // extents: 8 MiB
  const auto total = static_cast<uint32_t>(extents_.size());
  if (growing_ || !accepting_ || grown_ == total || now < grow_after_) {
    return false;
  }
  // By a quarter of what there is, so that a large area is not asked for in thousands of pieces.
  const uint32_t step =
      std::min({std::max(kStepMin, grown_ / 4), total - grown_, std::max(step_max_, uint32_t{1})});
  if (!starving_ && (grow_refused_ || grown_ - next_fresh_ > step / 2 || free_old_.head != 0)) {
    return false;
  }
  const SwapGeometry& g = superblock_.geometry;
  *out = Growth{g.data_offset + g.extent.value() * grown_, g.extent * step, step};
  growing_ = true;
  return true;
}

void SwapArea::grew(const Growth& growth, Errc result, Tick now) {
  check(growing_, "grew: it was taken", growth.count, grown_);
  growing_ = false;
  if (result == Errc::kOk) {
    grown_ += growth.count;
    step_max_ = std::min(kGrowthMax, std::max(step_max_, uint32_t{1}) * 2);
    starving_ = grow_refused_ = false;
    grow_after_ = Tick(0);
    return;
  }
  step_max_ = growth.count / 2;
  if (growth.count == 1 || result != Errc::kNoSpace) {
    grow_refused_ = true;
    grow_after_ = now + millis(1000);
  }
}

// ------------------------------------------------------------------------------------- figures

SlotClassStats SwapArea::class_stats(Bytes size) const {
  const uint32_t cls = class_of(size);
  SlotClassStats s;
  s.size = size;
  if (cls != kClasses) {
    s.extents = extents_of_[cls];
    s.used = used_of_[cls];
    s.retired = retired_of_[cls];
    s.free = extents_of_[cls] * slots_of(cls) - used_of_[cls] - retired_of_[cls];
  }
  return s;
}

Bytes SwapArea::free_bytes() const {
  if (!accepting_ || device_full_) {
    return Bytes(0);
  }
  const uint64_t extents = grow_refused_ ? grown_ : extents_.size();
  return superblock_.geometry.extent * extents - used_ - retired_;
}

void SwapArea::check_invariants() const {
  Bytes used;
  Bytes retired;
  std::array<uint64_t, kClasses> slots{};
  std::array<uint64_t, kClasses> bad{};
  std::array<uint64_t, kClasses> extents{};
  uint64_t free = 0;
  uint64_t discarding = 0;
  for (uint32_t e = 0; e < extents_.size(); ++e) {
    const Extent& x = extents_[e];
    uint32_t bits = 0;
    for (const uint64_t word : x.taken) {
      bits += static_cast<uint32_t>(std::popcount(word));
    }
    check(bits == x.used, "extent: its used slots", bits, x.used);
    uint32_t lost = 0;
    for (size_t w = 0; w < x.retired.size(); ++w) {
      check((x.retired[w] & ~x.taken[w]) == 0, "a retired slot is not free", e, w);
      lost += static_cast<uint32_t>(std::popcount(x.retired[w]));
    }
    const bool carved = x.state == Extent::kPartial || x.state == Extent::kFull;
    check(carved == (x.used != 0), "an extent without used slots has no class", e, x.used);
    check((x.state == Extent::kFresh) == (e >= next_fresh_), "fresh extents are the last", e,
          next_fresh_);
    free += x.state == Extent::kFree ? 1 : 0;
    discarding += x.state == Extent::kDiscarding ? 1 : 0;
    if (carved) {
      check((x.state == Extent::kFull) == (x.used == slots_of(x.cls)), "extent: full or not", e,
            x.used);
      slots[x.cls] += x.used - lost;
      bad[x.cls] += lost;
      ++extents[x.cls];
      used += superblock_.geometry.unit * (uint64_t{x.used - lost} << x.cls);
      retired += superblock_.geometry.unit * (uint64_t{lost} << x.cls);
    }
    for (uint32_t u = 0; u < units_per_extent_; ++u) {
      const uint64_t unit = uint64_t{e} * units_per_extent_ + u;
      check(is_used(SlotId::make(id_, unit)) || headers_[unit].empty(), "no header without a slot",
            unit, e);
    }
  }
  check(used == used_, "area: used bytes", used, used_);
  check(retired == retired_ && bad == retired_of_, "area: retired bytes", retired, retired_);
  check(next_fresh_ <= grown_ && grown_ <= extents_.size(), "area: slots lie where it has grown to",
        next_fresh_, grown_);
  check(slots == used_of_ && extents == extents_of_, "area: slots and extents by class");
  check(discarding == discards_in_flight_, "area: discards in flight", discarding,
        discards_in_flight_);
  uint64_t listed = 0;
  uint64_t given_back = 0;
  for (const List* list : {&free_old_, &free_}) {
    for (uint32_t at = list->head; at != 0; at = extents_[at - 1].next) {
      const Extent& x = extents_[at - 1];
      check(x.state == Extent::kFree && x.old == (list == &free_old_), "free list: its extents",
            at - 1, x.state);
      ++listed;
      given_back += list == &free_ ? 1 : 0;
    }
  }
  check(given_back == given_back_, "area: extents given back", given_back, given_back_);
  check(listed == free, "area: free extents are listed once", listed, free);
  check(free_buffers_.size() + index_in_flight_ == config_.index_buffers, "area: index buffers",
        free_buffers_.size(), index_in_flight_);
}

}  // namespace kvmm
