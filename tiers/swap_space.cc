// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bitset>
#include <utility>

#include "runtime/base/check.h"
#include "tiers/swap_area.h"

namespace kvmm {

Result<SwapArea*> SwapSpace::add(std::unique_ptr<SwapArea> area) {
  check(area->used_bytes().value() == 0, "an area is numbered before its first slot",
        area->used_bytes(), 0U);
  const SwapAreaConfig& c = area->config();
  if (find(c.name) != nullptr || (!c.path.empty() && find(c.path) != nullptr)) {
    return Error(Errc::kExists, c.name + ": a swap area of this name or path is in use");
  }
  if (areas_.size() == kAreasMax) {
    return Error(Errc::kLimit, "255 swap areas are in use");
  }
  const auto free_id = std::find(by_id_.begin() + 1, by_id_.end(), nullptr);
  area->id_ = static_cast<uint8_t>(free_id - by_id_.begin());
  *free_id = area.get();
  const auto place = std::find_if(areas_.begin(), areas_.end(),
                                  [&](const auto& a) { return a->config().priority < c.priority; });
  return areas_.insert(place, std::move(area))->get();
}

Result<std::unique_ptr<SwapArea>> SwapSpace::remove(SwapArea& area) {
  const auto it =
      std::find_if(areas_.begin(), areas_.end(), [&](const auto& a) { return a.get() == &area; });
  if (it == areas_.end()) {
    return Errc::kNotFound;
  }
  if (area.used_bytes().value() != 0 || area.io_in_flight()) {
    return Error(Errc::kBusy, area.config().name + ": slots are in use or its I/O is in flight");
  }
  std::unique_ptr<SwapArea> out = std::move(*it);
  areas_.erase(it);
  by_id_[out->id()] = nullptr;
  return out;
}

namespace {

// What to say of several refusals: wait for the one that grows; the size is wrong for none.
Errc more_telling(Errc a, Errc b) {
  for (const Errc e : {Errc::kAgain, Errc::kNoSpace, Errc::kIo}) {
    if (a == e || b == e) {
      return e;
    }
  }
  return a;
}

}  // namespace

Result<SlotId> SwapSpace::allocate(Bytes size) {
  Errc why = areas_.empty() ? Errc::kNoSpace : Errc::kInvalid;
  for (size_t first = 0; first < areas_.size();) {
    size_t last = first + 1;
    while (last < areas_.size() &&
           areas_[last]->config().priority == areas_[first]->config().priority) {
      ++last;
    }
    if (auto slot = allocate_from(std::span(areas_).subspan(first, last - first), size, &why)) {
      return slot;
    }
    first = last;
  }
  return why;
}

// Of areas of one priority: the one whose turn it is, and has room.
Result<SlotId> SwapSpace::allocate_from(std::span<const std::unique_ptr<SwapArea>> areas,
                                        Bytes size, Errc* why) {
  const auto order = [&](const SwapArea& a, uint32_t cls) {
    return std::pair(a.health_.verdict() != SwapHealth::Verdict::kOk, a.turn_[cls]);
  };
  std::bitset<kAreasMax> asked;
  for (size_t tries = 0; tries < areas.size(); ++tries) {
    size_t next = areas.size();
    for (size_t i = 0; i < areas.size(); ++i) {
      const uint32_t cls = std::min(areas[i]->class_of(size), SwapArea::kClasses - 1);
      if (!asked[i] && (next == areas.size() || order(*areas[i], cls) < order(*areas[next], cls))) {
        next = i;
      }
    }
    asked.set(next);
    SwapArea& a = *areas[next];
    Result<SlotId> slot = a.allocate(size);
    if (slot) {
      a.turn_[a.class_of(size)] = ++turn_;
      return slot;
    }
    *why = more_telling(*why, slot.code());
  }
  return *why;
}

Backing SwapSpace::backing(SlotId slot) const {
  const SwapArea& a = area(slot);
  return {&a.block(), a.offset_of(slot).value(), a.block().info().length_max};
}

void SwapSpace::failed(SlotId slot, Errc why) {
  SwapArea& a = area(slot);
  a.note_io_error();
  if (why == Errc::kNoSpace) {
    a.note_no_space();
  }
}

void SwapSpace::lost(SlotId slot, Errc why) {
  SwapArea& a = area(slot);
  a.note_lost();
  if (why == Errc::kIo || why == Errc::kCorrupt) {
    a.retire(slot);
  } else {
    a.free(slot);
  }
}

SwapArea& SwapSpace::area(SlotId slot) const {
  SwapArea* a = by_id_[slot.area()];
  check(a != nullptr, "a slot of an area in use", slot, slot.area());
  return *a;
}

SwapArea* SwapSpace::find(std::string_view path_or_name) const {
  for (const auto& a : areas_) {
    if (a->config().path == path_or_name || a->config().name == path_or_name) {
      return a.get();
    }
  }
  return nullptr;
}

Bytes SwapSpace::capacity() const {
  Bytes sum;
  for (const auto& a : areas_) {
    sum += a->capacity();
  }
  return sum;
}

Bytes SwapSpace::used_bytes() const {
  Bytes sum;
  for (const auto& a : areas_) {
    sum += a->used_bytes();
  }
  return sum;
}

}  // namespace kvmm
