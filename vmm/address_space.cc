// SPDX-License-Identifier: Apache-2.0
#include "vmm/address_space.h"

#include <algorithm>

namespace kvmm {

const char* advice_name(Advice a) noexcept {
  switch (a) {
    case Advice::kNormal:
      return "normal";
    case Advice::kRunning:
      return "running";
    case Advice::kIdle:
      return "idle";
    case Advice::kDurable:
      return "durable";
  }
  return "?";
}

AddressSpace::AddressSpace(Arena& arena, AddressMap& map, SpaceSpec spec)
    : arena_(arena), map_(map), spec_(std::move(spec)) {}

AddressSpace::~AddressSpace() {
  check(lists_nothing(), "a session gives its frames back before it goes");
  for (Mapping& m : planes_) {
    unmap(m);
  }
}

bool AddressSpace::lists_nothing() const {
  return std::all_of(lists.begin(), lists.end(), [](const Lists& l) { return l.empty(); });
}

void AddressSpace::unmap(Mapping& m) {
  map_.erase(*m.vma);
  m.object->vmas().erase(m.object->vmas().iterator_to(*m.vma));
}

void AddressSpace::drop_last_plane() {
  check(!planes_.empty() && planes_.back().object->used_end() == 0, "an unused plane is dropped");
  unmap(planes_.back());
  planes_.pop_back();
}

Result<void> AddressSpace::add_plane(uint32_t plane, uint64_t object_id) {
  return map_plane(plane, object_id, lane_pages(arena_.planes.at(plane), spec_.lane));
}

Result<void> AddressSpace::add_plane_at(uint32_t plane, uint64_t object_id, VirtAddr start) {
  const PlaneSpec& p = arena_.planes.at(plane);
  return map_plane(plane, object_id, {start, static_cast<uint32_t>(p.lane_stride / p.page_size)});
}

Result<void> AddressSpace::map_plane(uint32_t plane, uint64_t object_id, const LanePages& lane) {
  check(plane == planes_.size(), "planes are added in order", plane, planes_.size());
  const PlaneSpec& p = arena_.planes.at(plane);
  if (lane.pages == 0) {
    return Error(Errc::kInvalid, "plane '" + p.name + "': a lane is smaller than a page");
  }
  ObjectSpec spec;
  spec.id = object_id;
  spec.kind = spec_.kind;
  spec.page_size = p.page_size;
  spec.pages = lane.pages;
  spec.identity = arena_.identity;
  spec.identity.owner = spec_.id;
  spec.home = this;
  auto object = Object::create(spec);
  if (!object) {
    return object.error();
  }
  auto ptes = LazyArray<Pte>::create(lane.pages);
  if (!ptes) {
    return ptes.error();
  }
  auto vma = std::make_unique<Vma>();
  vma->start = lane.start;
  vma->page_size = p.page_size;
  vma->pages = lane.pages;
  vma->plane = plane;
  vma->object = object->get();
  vma->space = this;
  vma->ptes = std::move(*ptes);
  if (!map_.insert(*vma)) {
    return Error(Errc::kExists, "plane '" + p.name + "' overlaps another session");
  }
  (*object)->vmas().push_back(*vma);
  planes_.push_back({std::move(*object), std::move(vma)});
  return {};
}

Vma* AddressSpace::vma_of_plane(uint32_t plane) {
  return plane < planes_.size() ? planes_[plane].vma.get() : nullptr;
}

VirtAddr AddressSpace::lane_start(uint32_t plane) const {
  const PlaneSpec& p = arena_.planes.at(plane);
  return arena_.spec.placement == Placement::kContiguous
             ? planes_.at(plane).vma->start
             : VirtAddr(p.base.value() + p.lane_stride.value() * spec_.lane);
}

AddressSpace::Span AddressSpace::bytes_of_tokens(uint32_t plane, uint64_t a, uint64_t b) const {
  const PlaneSpec& p = arena_.planes.at(plane);
  const uint64_t vma = planes_.at(plane).vma->start.value();
  const uint64_t lane = lane_start(plane).value();
  const uint64_t lane_end = lane + p.lane_stride.value();
  uint64_t from = lane;
  uint64_t to = lane_end;
  if (const uint64_t stride = p.token_stride.value(); stride != 0) {
    const uint64_t n = p.lane_stride.value() / stride;
    from = a > n ? lane_end : lane + a * stride;
    to = b >= n ? lane_end : lane + b * stride;
  }
  return {std::max(from, vma) - vma, std::max(to, vma) - vma};
}

AddressSpace::PageRange AddressSpace::pages_of_tokens(uint32_t plane, uint64_t a,
                                                      uint64_t b) const {
  const Vma& v = *planes_.at(plane).vma;
  if (a >= b) {
    return {};
  }
  if (arena_.planes[plane].token_stride.value() == 0) {
    return {0, v.pages};
  }
  const uint64_t size = v.page_size.value();
  const Span s = bytes_of_tokens(plane, a, b);
  return {static_cast<uint32_t>(s.from / size), static_cast<uint32_t>((s.to + size - 1) / size)};
}

AddressSpace::PageRange AddressSpace::whole_pages_of_tokens(uint32_t plane, uint64_t a,
                                                            uint64_t b) const {
  if (a >= b) {
    return {};
  }
  const uint64_t size = planes_.at(plane).vma->page_size.value();
  const Span s = bytes_of_tokens(plane, a, b);
  const auto begin = static_cast<uint32_t>((s.from + size - 1) / size);
  return {begin, std::max(begin, static_cast<uint32_t>(s.to / size))};
}

void AddressSpace::tokens_of_page(uint32_t plane, uint32_t index, uint64_t* first,
                                  uint64_t* end) const {
  const Vma& v = *planes_.at(plane).vma;
  const uint64_t stride = std::max<uint64_t>(1, arena_.planes[plane].token_stride.value());
  const uint64_t lane = lane_start(plane).value();
  const uint64_t page = v.address_of(index).value();
  *first = (std::max(page, lane) - lane) / stride;
  *end = (page + v.page_size.value() - lane + stride - 1) / stride;
}

uint64_t AddressSpace::token_capacity() const {
  uint64_t n = arena_.spec.lane_tokens != 0 ? arena_.spec.lane_tokens : UINT64_MAX;
  for (size_t i = 0; i < planes_.size(); ++i) {
    const uint64_t stride = arena_.planes[i].token_stride.value();
    if (stride != 0 && arena_.planes[i].window == 0) {
      n = std::min(n, planes_[i].vma->page_size.value() * planes_[i].vma->pages / stride);
    }
  }
  return n;
}

void AddressSpace::check_invariants() {
  uint64_t resident = 0;
  uint64_t swapped = 0;
  uint64_t listed = 0;
  for (Mapping& m : planes_) {
    m.object->check_invariants();
    for (uint32_t i = 0; i < m.object->used_end(); ++i) {
      const Page& p = m.object->page(i);
      resident += p.frame != nullptr ? m.object->page_size().value() : 0;
      swapped += p.place == Place::kSwapped ? m.object->page_size().value() : 0;
      const bool quiet =
          (p.place == Place::kMapped || p.place == Place::kUnmapped) && !p.has(Page::kWaiting);
      listed += quiet ? 1 : 0;
      check(!quiet || p.hook.is_linked(), "a quiet resident page is on a list", i, p.place);
    }
  }
  check(resident == stats.bytes_resident.load(), "resident bytes add up", resident,
        stats.bytes_resident.load());
  check(swapped == stats.bytes_swapped.load(), "swapped bytes add up", swapped,
        stats.bytes_swapped.load());
  size_t on_lists = 0;
  for (uint32_t tier = 0; tier < lists.size(); ++tier) {
    for (PageList* list : {&lists[tier].active, &lists[tier].inactive}) {
      for (const Page& p : *list) {
        check(p.frame->tier.value() == tier, "a page is on the lists of its frame's tier", p.index,
              tier);
        ++on_lists;
      }
    }
  }
  check(listed == on_lists, "lists hold the resident pages", listed, on_lists);
}

}  // namespace kvmm
